"""``hf-tle-int8 chat``: a conversation with a model."""

import argparse
import functools
import importlib.util
import sys
from typing import Any

from jinja2 import TemplateError
from torch import Tensor

from hf_tle_int8.cli import causal, generation, options
from hf_tle_int8.errors import ConfigError

_DESCRIPTION = """\
Talk with a model in INT8, by the chat template of its tokenizer. Each line is a message; the conversation is kept.

/exit or Ctrl-D ends, /clear forgets all that was said, Ctrl-C stops an answer, which stays in the conversation as far
as it came. Answers go to stdout, tokens per second to stderr; lines may come from a pipe."""
_EXAMPLES = """\
examples:
  hf-tle-int8 chat Qwen/Qwen2.5-0.5B-Instruct
  hf-tle-int8 chat my-model-int8 --system "Answer in one sentence." --temperature 0 < questions.txt"""
_HELP = "/exit or Ctrl-D ends, /clear forgets, Ctrl-C stops an answer"


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "chat",
        help="talk with a model in INT8",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_model(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system prompt, if the template of the model takes one")
    generation.add_options(parser, None, "as the model's generation_config.json says")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read lines and answer them until they end.

    Raises:
        CheckpointError: there is no such model, or it has no tokenizer or cannot generate.
        ConfigError: it has no chat template, or one that refuses the system prompt.
    """
    checkpoint = causal.find(arguments.model)
    tokenizer = causal.load_tokenizer(arguments.model)
    if not tokenizer.chat_template:
        raise ConfigError(f"{arguments.model} has no chat template: use hf-tle-int8 generate, or a model made to chat.")
    conversation = Conversation(tokenizer, arguments.system)
    conversation.prompt("Hello")
    with options.torch_threads(arguments.threads):
        model = checkpoint.load(arguments.dtype, int8=not arguments.float)
        _talk(conversation, generation.Generator(checkpoint, model, tokenizer, arguments))


class Conversation:
    """What was said, and the template that makes tokens of it.

    Args:
        tokenizer: with a chat template.
        system: a system prompt.
    """

    def __init__(self, tokenizer: Any, system: str | None):
        self._tokenizer = tokenizer
        self._opening = [{"role": "system", "content": system}] if system is not None else []
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
            ConfigError: the template refuses them, as some do a system prompt.
        """
        messages = [*self.messages, {"role": "user", "content": question}]
        try:
            found = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        except TemplateError as error:
            hint = " Leave out --system." if self._opening else ""
            raise ConfigError(f"the chat template of the model refuses the conversation: {error}.{hint}") from error
        return found["input_ids"]


def _talk(conversation: Conversation, generator: generation.Generator) -> None:
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
