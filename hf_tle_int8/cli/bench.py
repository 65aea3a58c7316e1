"""``hf-tle-int8 bench``: measure on this machine."""

from typing import Any

from hf_tle_int8.cli import bench_compile, bench_linear, bench_model


def add_parser(commands: Any) -> None:
    """Add the command and what it can measure to the parser."""
    parser = commands.add_parser("bench", help="measure this project beside others on this machine")
    kinds = parser.add_subparsers(title="what to measure", required=True, metavar="WHAT")
    bench_linear.add_parser(kinds)
    bench_model.add_parser(kinds)
    bench_compile.add_parser(kinds)
