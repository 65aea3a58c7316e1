"""``hf-tle-int8 eval``: what INT8 costs a model on a text."""

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_tle_int8.cli import options
from hf_tle_int8.errors import ConfigError, InputValueError

if TYPE_CHECKING:
    from hf_tle_int8.accuracy import Accuracy, Windows
    from hf_tle_int8.cli.causal import CausalCheckpoint

_DESCRIPTION = """\
Perplexity of a model in INT8 on a text and, beside a float reference, what quantization changed: the perplexity of
both, the Kullback-Leibler divergence of their next-token distributions, and how often the likeliest token is the same.

The tokens of the text are cut into windows, each evaluated by itself; what is left at the end is in none. A long text
is read and tokenized in blocks of 2**18 characters and the rest of a line. Both models are in memory, and one block."""
_EXAMPLES = """\
examples:
  hf-tle-int8 eval Qwen/Qwen2.5-0.5B --text wiki.txt --window 512
  hf-tle-int8 eval my-model-int8 --reference my-model --text wiki.txt --json"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "eval",
        help="measure perplexity and divergence from float on a text",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_model(parser)
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="plain text, UTF-8")
    add("--reference", metavar="FLOAT_MODEL", help="what to compare with (default: MODEL, if it is a float checkpoint)")
    add("--window", type=options.positive, default=256, metavar="N", help="tokens of a window (default: %(default)s)")
    options.add_dtype(parser)
    options.add_threads(parser)
    add("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print.

    Raises:
        CheckpointError: there is no such model, or it has no tokenizer or is no causal language model.
        ConfigError: the reference is quantized, or the windows or the tokenizer do not suit the model.
        InputValueError: the text is no UTF-8 or shorter than a window.
        OSError: the text cannot be read.
    """
    from tqdm import tqdm

    from hf_tle_int8 import accuracy
    from hf_tle_int8.cli import causal

    checkpoint = causal.find(arguments.model)
    reference = _reference(checkpoint, arguments.reference)
    if arguments.window < 2:
        raise ConfigError("--window 1 leaves nothing to predict: take 2 tokens or more.")
    for each in (checkpoint, reference):
        if each is not None:
            each.check_length(arguments.window, "--window")
    windows = accuracy.Windows(causal.load_tokenizer(arguments.model), arguments.window)
    with arguments.text.open(encoding="utf-8") as file, options.torch_threads(arguments.threads):
        found = map(checkpoint.check_tokens, windows.of(accuracy.blocks(file)))
        # Before the models are loaded: a text that does not do is told at once.
        every = itertools.chain(_first(windows, found, arguments.text), found)
        models = [checkpoint.load(arguments.dtype)]
        if reference is not None:
            models.append(reference.load(arguments.dtype, int8=False))
        outcome = accuracy.measure(tqdm(every, unit="window", leave=False, disable=None), *models)
    if arguments.json:
        print(json.dumps({"text": str(arguments.text), "tokens": windows.tokens, **asdict(outcome)}, indent=2))
    else:
        print("\n".join(_table(outcome, windows.tokens)))


def _reference(checkpoint: "CausalCheckpoint", name: str | None) -> "CausalCheckpoint | None":
    from hf_tle_int8.cli import causal

    if name is None:
        return None if checkpoint.quantized else checkpoint
    reference = causal.find(name)
    if reference.quantized:
        raise ConfigError(f"--reference {name} is quantized: name the float original.")
    if reference.vocabulary != checkpoint.vocabulary:
        raise ConfigError(
            f"--reference {name} has a vocabulary of {reference.vocabulary} tokens, and {checkpoint.name} one of "
            f"{checkpoint.vocabulary}: name the float original of the same model."
        )
    return reference


def _first(windows: "Windows", found: Iterator[Any], file: Path) -> list[Any]:
    first = list(itertools.islice(found, 1))
    if not first:
        raise InputValueError(
            f"{file} has {windows.tokens} tokens, less than a window of {windows.length}: take a longer text, or a "
            f"smaller --window."
        )
    return first


def _table(found: "Accuracy", tokens: int) -> Iterator[str]:
    positions = found.windows * found.window
    yield f"{tokens} tokens, {found.windows} windows of {found.window}, {positions - found.windows} tokens predicted\n"
    if found.reference_perplexity is None:
        yield f"perplexity, INT8   {found.perplexity:.4f}"
        yield "\nName the float original by --reference to compare with it."
        return
    change = found.perplexity / found.reference_perplexity - 1
    yield f"perplexity, float                    {found.reference_perplexity:.4f}"
    yield f"perplexity, INT8                     {found.perplexity:.4f} ({change:+.2%})"
    yield f"KL divergence (float || INT8), mean  {found.kl_divergence:.5f} nats"
    yield f"same most likely next token          {found.same_top1:.2%} of {positions} positions"
