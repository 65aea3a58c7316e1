"""``hf-tle-int8 bench model``: a model in INT8 beside itself in float."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_tle_int8.cli import options

if TYPE_CHECKING:
    from hf_tle_int8.cli.causal import CausalCheckpoint

_DESCRIPTION = """\
Time a causal language model in INT8 beside itself in float, in turns: prefill of a prompt of random tokens, then greedy
decoding token by token. Printed are tokens a second by the fastest round and by the median, the ratio of INT8 to float
by the fastest, and the bytes of the weights. Both models are in memory at once.

float is bf16 unless --dtype says otherwise: on a CPU without bf16 instructions, compare with float32 as well. On a
machine that others share, differences below 15 % (30 % in decoding) are noise."""
_EXAMPLES = """\
examples:
  hf-tle-int8 bench model Qwen/Qwen2.5-0.5B-Instruct
  hf-tle-int8 bench model my-model-int8 --dtype float32 --threads 4 --rounds 10 --csv model.csv"""


def add_parser(kinds: Any) -> None:
    """Add the command to the parser."""
    parser = kinds.add_parser(
        "model",
        help="prefill and decoding of a model in INT8 beside itself in float",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_model(parser)
    for name, value, text in (
        ("prompt", 128, "tokens of the prompt"),
        ("tokens", 32, "tokens to decode"),
        ("rounds", 3, "timed runs of each model"),
    ):
        parser.add_argument(
            f"--{name}", type=options.positive, default=value, metavar="N", help=f"{text} (default: %(default)s)"
        )
    options.add_dtype(parser, default="bfloat16")
    options.add_threads(parser, default=1)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write one line a result to FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of Markdown")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        CheckpointError: there is no such model, or it is no causal language model.
        ConfigError: it has no key-value cache, or too few positions.
        OSError: ``--csv`` cannot be written.
    """
    from hf_tle_int8.bench import tables
    from hf_tle_int8.cli import causal

    options.check_writable(arguments.csv)
    checkpoint = causal.find(arguments.model)
    checkpoint.check_length(arguments.prompt + arguments.tokens, "--prompt with --tokens")
    load = os.getloadavg()[0]
    with options.torch_threads(arguments.threads):
        facts = tables.surroundings(arguments.threads, load)
        records = _measure(checkpoint, arguments)
    if arguments.csv is not None:
        tables.write_csv(arguments.csv, records, facts)
    if arguments.json:
        print(json.dumps({**facts, "results": records}, indent=2))
    else:
        print("\n".join(_markdown(checkpoint.name, records, facts, arguments.rounds)))


def _measure(checkpoint: "CausalCheckpoint", arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A record for each phase of each model."""
    import torch

    from hf_tle_int8.bench import model
    from hf_tle_int8.cli.measure import parameter_bytes

    both = {"INT8": checkpoint.load(arguments.dtype), "float": checkpoint.load(arguments.dtype, int8=False)}
    prompt = torch.randint(checkpoint.vocabulary, (1, arguments.prompt), generator=torch.Generator().manual_seed(0))
    speeds = model.interleaved(both, prompt, arguments.tokens, arguments.rounds)
    return [
        {
            "model": checkpoint.name,
            "weights": name,
            "dtype": str(both[name].dtype).removeprefix("torch."),
            "phase": phase,
            "tokens": tokens,
            "tokens_per_second": float(f"{tokens / times.minimum:.4g}"),
            "median_tokens_per_second": float(f"{tokens / times.median:.4g}"),
            "ratio_to_float": float(f"{getattr(speeds['float'], phase).minimum / times.minimum:.4g}"),
            "weight_bytes": parameter_bytes(both[name]),
        }
        for phase, tokens in (("prefill", arguments.prompt), ("decode", arguments.tokens))
        for name, speed in speeds.items()
        for times in [getattr(speed, phase)]
    ]


def _markdown(name: str, records: list[dict[str, Any]], facts: Mapping[str, str], rounds: int) -> Iterator[str]:
    from hf_tle_int8.cli.measure import megabytes

    yield f"# {name} in INT8 beside float\n"
    yield from (f"- {fact}: {value}" for fact, value in facts.items())
    yield f"- rounds: {rounds}, in another order in each\n"
    yield "| | weights | tokens | tokens/s | median | ratio to float | weights take |"
    yield "|---" * 7 + "|"
    for record in records:
        kind = record["weights"] if record["weights"] == "INT8" else record["dtype"]
        yield (
            f"| {record['phase']} | {kind} | {record['tokens']} | {record['tokens_per_second']} "
            f"| {record['median_tokens_per_second']} | {record['ratio_to_float']:.2f} "
            f"| {megabytes(record['weight_bytes'])} |"
        )
