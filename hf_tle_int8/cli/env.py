"""``hf-tle-int8 env``: what a bug report needs."""

import argparse
from typing import Any

from hf_tle_int8.report import environment


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("env", help="print versions, CPU, ISA features and threads, for a bug report")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the environment, one line a fact."""
    facts = environment()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
