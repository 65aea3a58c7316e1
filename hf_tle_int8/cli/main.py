"""Entry point of ``hf-tle-int8``: parses the arguments and runs one command."""

import argparse
import os
import sys
from collections.abc import Sequence

from hf_tle_int8.cli import bench, cache, chat, convert, demo, env, eval, generate, inspect
from hf_tle_int8.errors import TLEInt8Error
from hf_tle_int8.version import __version__

_EXAMPLES = """\
examples:
  hf-tle-int8 generate Qwen/Qwen2.5-0.5B-Instruct --prompt "Once upon a time"

MODEL is a folder or a name on the Hub. `hf-tle-int8 COMMAND --help` tells the options of a command, with examples."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each command's module adds its own."""
    parser = argparse.ArgumentParser(
        prog="hf-tle-int8",
        description="Run Hugging Face transformers models in INT8 (W8A8) on CPUs.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (demo, convert, generate, chat, eval, inspect, bench, cache, env):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code: 0, 2 for what the user can mend, 1 for a failure, 130 for Ctrl-C."""
    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
        if sys.stdout is not None:  # closed by who started the process: nothing is printed
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (TLEInt8Error, OSError, ValueError, ImportError) as error:
        print(f"hf-tle-int8: error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:  # of torch, for one, where there is too little memory
        print(f"hf-tle-int8: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0
