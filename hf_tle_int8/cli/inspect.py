"""``hf-tle-int8 inspect``: what a checkpoint folder holds, without loading its weights."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "inspect", help="show the layers of a checkpoint folder: INT8 or float, what runs them, and bytes"
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="folder with config.json and safetensors files")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the table of layers, or all of it as JSON."""
    from hf_tle_int8.inspection import inspect_checkpoint

    table = inspect_checkpoint(arguments.path)
    print(table.to_json() if arguments.json else table)
