"""``hf-tle-int8 chat``: a conversation with a model."""

import argparse
from typing import Any

from hf_tle_int8.cli import options
from hf_tle_int8.errors import ConfigError

_DESCRIPTION = """\
Talk with a model in INT8, by the chat template of its tokenizer. Each line is a message; the conversation is kept.

/exit or Ctrl-D ends, /clear forgets all that was said, Ctrl-C stops an answer, which stays in the conversation as far
as it came. Answers go to stdout, tokens per second to stderr; lines may come from a pipe."""
_EXAMPLES = """\
examples:
  hf-tle-int8 chat Qwen/Qwen2.5-0.5B-Instruct
  hf-tle-int8 chat my-model-int8 --system "Answer in one sentence." --temperature 0 < questions.txt"""


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
    options.add_generation(parser, None, "as the model's generation_config.json says")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read lines and answer them until they end.

    Raises:
        CheckpointError: there is no such model, or it has no tokenizer or cannot generate.
        ConfigError: it has no chat template, or one that refuses the system prompt.
    """
    from hf_tle_int8.cli import causal, conversation, generation

    checkpoint = causal.find(arguments.model)
    tokenizer = causal.load_tokenizer(arguments.model)
    if not tokenizer.chat_template:
        raise ConfigError(f"{arguments.model} has no chat template: use hf-tle-int8 generate, or a model made to chat.")
    said = conversation.Conversation(tokenizer, arguments.system)
    said.prompt("Hello")
    with options.torch_threads(arguments.threads):
        model = checkpoint.load(arguments.dtype, int8=not arguments.float)
        conversation.talk(said, generation.Generator(checkpoint, model, tokenizer, arguments))
