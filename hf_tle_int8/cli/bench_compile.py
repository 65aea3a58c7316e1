"""``hf-tle-int8 bench compile``: how long kernels take to compile."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_tle_int8.cli.options import check_writable, positive

_DESCRIPTION = """\
Time the compiling of each kernel that INT8 linears need on this machine: cold, with nothing in Triton's cache, and
cached, when it is loaded from there. Each figure is of fresh processes with a cache of their own; yours is not touched.
What a process pays once before its first kernel (Triton's digests, starting LLVM) is shown apart from it.

The kernels of a model are compiled at its first call, or ahead of it by hf-tle-int8 cache warm.
"""
_EXAMPLES = """\
examples:
  hf-tle-int8 bench compile
  hf-tle-int8 bench compile --dtype float32 --kernels gemm --processes 5 --csv compile.csv
"""


def add_parser(kinds: Any) -> None:
    """Add the command to the parser."""
    parser = kinds.add_parser(
        "compile",
        help="the kernels of linears: compiling and loading them",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--kernels", nargs="+", metavar="NAME", help="only these; a name may be the beginning of one (default: all)")
    choices = ("float32", "bfloat16", "float16")
    add("--dtype", choices=choices, default="bfloat16", help="of input and bias (default: %(default)s)")
    add("--processes", type=positive, default=3, metavar="N", help="pairs of them a kernel (default: %(default)s)")
    add("--csv", type=Path, metavar="FILE", help="also write one line a kernel to FILE, with the machine and versions")
    add("--json", action="store_true", help="print one JSON object instead of Markdown")
    add("--load-average", type=float, metavar="L", help="before a series of benchmarks, for the facts (default: now)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        ValueError: ``--kernels`` names none.
        OSError: kernels cannot run here, or the file of ``--csv`` cannot be written.
        RuntimeError: a process that compiles failed.
    """
    import torch
    from tqdm import tqdm

    from hf_tle_int8 import execution
    from hf_tle_int8.bench import compiling, tables

    check_writable(arguments.csv)
    if (reason := execution.unavailable()) is not None:
        raise OSError(f"kernels cannot run here: {reason}")
    facts = {
        **tables.surroundings(torch.get_num_threads(), arguments.load_average),
        "dtype": arguments.dtype,
        "processes": str(arguments.processes),
    }
    dtype = getattr(torch, arguments.dtype)
    kernels = _chosen(list(execution.kernels(dtype, dtype)), arguments.kernels)
    with tqdm(bar_format="{desc} {elapsed}", leave=False) as bar:
        found = compiling.measure(kernels, dtype, arguments.processes, bar.set_description)
    records = [
        {
            "kernel": result.kernel,
            **{
                f"{kind}_{part}_ms": round(1e3 * getattr(getattr(result, kind), attribute), 1)
                for kind in ("cold", "cached", "once")
                for part, attribute in (("min", "minimum"), ("median", "median"))
            },
        }
        for result in found
    ]
    if arguments.csv is not None:
        tables.write_csv(arguments.csv, records, facts)
    if arguments.json:
        print(json.dumps({**facts, "results": records}, indent=2))
    else:
        print("\n".join(_markdown(records, facts)))


def _chosen(known: Sequence[str], names: Sequence[str] | None) -> list[str]:
    for name in names or ():
        if not any(kernel.startswith(name) for kernel in known):
            raise ValueError(f"no kernel is called {name!r}. Choose of {', '.join(known)}.")
    return [kernel for kernel in known if names is None or kernel.startswith(tuple(names))]


def _markdown(records: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> Iterator[str]:
    yield "# Compiling the kernels of linears\n"
    yield from (f"- {name}: {value}" for name, value in facts.items())
    yield "\n| kernel | cold min ms | median | cached min ms | median | once before, min ms | median |"
    yield "|---" * 7 + "|"
    for record in records:
        yield "| " + " | ".join(map(str, record.values())) + " |"
