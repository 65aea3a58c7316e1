"""``hf-tle-int8 env``: what a bug report needs."""

import argparse
import json
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("env", help="print versions, CPU, threads and the state of the Triton backend")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the environment, one line a fact, or as JSON."""
    from hf_tle_int8 import report

    facts = report.environment()
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
