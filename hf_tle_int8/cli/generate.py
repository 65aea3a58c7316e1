"""``hf-tle-int8 generate``: continue a text, as it comes."""

import argparse
import functools
import json
import sys
from dataclasses import asdict
from typing import Any

from hf_tle_int8.cli import options

_DESCRIPTION = """\
Continue a text with a causal language model in INT8. A float checkpoint is quantized while it loads; an INT8 one is
taken as it is.

The text goes to stdout, with its prompt, and the tokens per second to stderr. The first run on a machine compiles the
kernels, so that its prefill takes longer; `hf-tle-int8 bench model` leaves that out. Ctrl-C ends the text."""
_EXAMPLES = """\
examples:
  hf-tle-int8 generate Qwen/Qwen2.5-0.5B-Instruct --prompt "Once upon a time"
  hf-tle-int8 generate my-model-int8 --prompt "Dear" --temperature 0.8 --seed 1 --json"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "generate",
        help="continue a text with a model in INT8",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_model(parser)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what to continue")
    options.add_generation(parser, 0.0, "0")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of the text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Generate and print.

    Raises:
        CheckpointError: there is no such model, or it has no tokenizer or cannot generate.
        ConfigError: the prompt is empty, or longer than the model takes.
    """
    from hf_tle_int8.cli import causal, generation

    checkpoint = causal.find(arguments.model)
    tokenizer = causal.load_tokenizer(arguments.model)
    prompt = tokenizer(causal.check_text(arguments.prompt), return_tensors="pt").input_ids
    checkpoint.check_prompt(prompt)
    with options.torch_threads(arguments.threads):
        model = checkpoint.load(arguments.dtype, int8=not arguments.float)
        generator = generation.Generator(checkpoint, model, tokenizer, arguments)
        if arguments.json:
            answer = generator(prompt, write=lambda _: None)
        else:
            answer = generator(prompt, write=functools.partial(print, end="", flush=True), echo=True)
    if arguments.json:
        rates = {"prefill_tokens_per_second": answer.prefill_rate, "decode_tokens_per_second": answer.decode_rate}
        print(json.dumps({"prompt": arguments.prompt, **asdict(answer), **rates}, indent=2))
    else:
        print()
        print(answer.summary(), file=sys.stderr)
