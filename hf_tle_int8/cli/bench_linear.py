"""``hf-tle-int8 bench linear``: linear layers of this project beside those of other libraries."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from hf_tle_int8.cli.options import check_writable, positive, threads, torch_threads

_DESCRIPTION = """\
Time linear layers: this project, torch in bf16 and fp32, torch's dynamic quantization, torch._int_mm, and torchao,
onnxruntime, OpenVINO (pip install 'hf_tle_int8[bench]') and llama.cpp (pip install llama-cpp-python, which compiles it
for this CPU) where they are installed.

Every peer is first checked against the float result. Then all are timed in rounds, in another order each time, so that
what disturbs the machine meets all of them. M is the number of rows: 1 is decoding, more is prefill or a batch. One row
is timed cold (128 MB are read, then another layer run, before each call: the weights come from memory and the code from
the caches, as in decoding) and hot.

Printed, as Markdown: the machine; the speed of each peer relative to torch bf16, as the geometric mean of the shapes;
then each case with the least and the median time, the share of the speed at which this machine reads memory, and the
share of what its int8 instruction does on registers. On a machine that others share, differences below 15 % (30 % at
M=1) are noise.
"""
_EXAMPLES = """\
examples:
  hf-tle-int8 bench linear --threads 1                                 all of it: some minutes
  hf-tle-int8 bench linear --shape 4096x4096 --m 1 32 --peers hf_tle_int8 'torch bf16'
  hf-tle-int8 bench linear --csv linear.csv --plot linear.png > linear.md
"""


def _shape(text: str) -> tuple[int, int]:
    n, separator, k = text.partition("x")
    if not (separator and n.isdecimal() and k.isdecimal() and int(n) and int(k)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape NxK. Write, for example, 4096x1024: outputs x inputs.")
    return int(n), int(k)


def add_parser(kinds: Any) -> None:
    """Add the command to the parser."""
    parser = kinds.add_parser(
        "linear",
        help="linear layers beside those of other libraries",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--shape",
        type=_shape,
        nargs="+",
        metavar="NxK",
        help="outputs x inputs (default: nine of Qwen2.5 and Llama-3.2)",
    )
    add("--m", type=positive, nargs="+", metavar="M", help="rows (default: 1 4 16 32 128 512)")
    add("--threads", type=threads, metavar="T", help="threads of every peer (default: what torch uses)")
    add("--rounds", type=positive, default=7, metavar="R", help="timed calls of each case (default: %(default)s)")
    add("--peers", nargs="+", metavar="NAME", help="only these; a name may be the beginning of one (default: all)")
    add("--json", action="store_true", help="print one JSON object instead of Markdown")
    add("--csv", type=Path, metavar="FILE", help="also write one line a case to FILE, with the machine and versions")
    add("--plot", type=Path, metavar="FILE", help="also draw the means to FILE (.png, .svg); takes matplotlib")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        ValueError: ``--peers`` names none, or not what ``--plot`` compares with; or it has no format for pictures.
        ImportError: ``--plot`` without matplotlib.
        OSError: ``--csv`` or ``--plot`` cannot be written.
        RuntimeError: kernels cannot run here.
    """
    from tqdm import tqdm

    from hf_tle_int8.bench import linear, plot, tables
    from hf_tle_int8.bench.peers import BASE

    peers = _peers(arguments.peers)
    for file in (arguments.csv, arguments.plot):
        check_writable(file)
    if arguments.plot is not None:
        plot.check(arguments.plot)
        if BASE not in [peer.name for peer in peers]:
            raise ValueError(
                f"--plot draws speed relative to {BASE}, which is none of --peers. Add it, or drop --plot."
            )
    with torch_threads(arguments.threads):
        machine = _machine()
        with tqdm(bar_format="{desc} {elapsed}", leave=False) as bar:
            shapes, rows = arguments.shape or linear.SHAPES, arguments.m or linear.ROWS
            outcome = linear.run(peers, shapes, rows, arguments.rounds, bar.set_description)
    found, facts = tables.records(outcome, machine, BASE), machine.facts()
    if arguments.csv is not None:
        tables.write_csv(arguments.csv, found, facts)
    if arguments.plot is not None:
        plot.plot(arguments.plot, [{**record, **facts} for record in found], BASE)
    if arguments.json:
        print(json.dumps({**facts, "absent": outcome.absent, "failed": outcome.failed, "results": found}, indent=2))
    else:
        print("\n".join(tables.markdown(outcome, machine, BASE, arguments.rounds)))


def _peers(names: list[str] | None) -> list[Any]:
    from hf_tle_int8.bench.peers import PEERS

    exact = {peer.name for peer in PEERS}
    chosen = set(exact) if names is None else set()
    for name in names or []:
        found = {name} & exact or {known for known in exact if known.startswith(name)}
        if not found:
            raise ValueError(f"no peer is called {name!r}. Choose of {', '.join(peer.name for peer in PEERS)}.")
        chosen |= found
    return [peer for peer in PEERS if peer.name in chosen]


def _machine() -> Any:
    import torch

    from hf_tle_int8 import execution
    from hf_tle_int8.bench.machine import int8_peak, streaming_bandwidth
    from hf_tle_int8.bench.tables import Machine

    load, threads, target = os.getloadavg()[0], torch.get_num_threads(), execution.target()
    return Machine(target.name, threads, streaming_bandwidth(target, threads), int8_peak(target, threads), load)
