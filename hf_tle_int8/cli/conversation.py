"""What is said with a model, line by line, and the chat template that makes tokens of it."""

import functools
import importlib.util
import sys
from typing import Any

from torch import Tensor

from hf_tle_int8.cli import causal
from hf_tle_int8.cli.generation import Generator
from hf_tle_int8.errors import ConfigError

_HELP = "/exit or Ctrl-D ends, /clear forgets, Ctrl-C stops an answer"


class Conversation:
    """What was said, and the template that makes tokens of it.

    Args:
        tokenizer: with a chat template.
        system: a system prompt.
    """

    def __init__(self, tokenizer: Any, system: str | None):
        self._tokenizer = tokenizer
        self._opening = [{"role": "system", "content": causal.check_text(system)}] if system is not None else []
        self.clear()

    def clear(self) -> None:
        """Forget all but the system prompt."""
        self.messages = list(self._opening)

    def add(self, question: str, answer: str) -> None:
        """Remember a message of the user and what was answered."""
        self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def prompt(self, question: str) -> Tensor:
        """Tokens of all that was said, the question, and the beginning of its answer: int64 ``[1, length]``.

        Raises:
            ConfigError: the template refuses them, as some do a system prompt; or the question is no text.
        """
        messages = [*self.messages, {"role": "user", "content": causal.check_text(question)}]
        try:
            found = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        except Exception as error:  # of the template language, or of Python for what a template computes
            hint = " Leave out --system." if self._opening else ""
            raise ConfigError(
                f"the chat template of the model refuses the conversation: {type(error).__name__}: {error}.{hint}"
            ) from error
        return found["input_ids"]


def talk(conversation: Conversation, generator: Generator) -> None:
    """Read lines from stdin, if it is open, and answer them until they end."""
    if sys.stdin is None:
        return
    write = functools.partial(print, end="", flush=True)
    if sys.stdin.isatty():
        print(_HELP, file=sys.stderr)
        if importlib.util.find_spec("readline"):
            import readline  # noqa: F401 - input() then edits lines
    while (line := _read()) is not None and line != "/exit":
        if line == "/clear":
            conversation.clear()
        elif line:
            try:
                answer = generator(conversation.prompt(line), write)
            except ConfigError as error:
                print(f"hf-tle-int8: {error} /clear begins anew.", file=sys.stderr)
                continue
            print()
            print(answer.summary(), file=sys.stderr)
            conversation.add(line, answer.text)


def _read() -> str | None:
    """The next line, without the white space around it; None at the end."""
    while sys.stdin.isatty():
        try:
            return input("> ").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            print(f"\n{_HELP}", file=sys.stderr)
    line = sys.stdin.readline()
    return line.strip() if line else None
