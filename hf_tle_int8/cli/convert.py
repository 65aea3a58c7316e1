"""``hf-tle-int8 convert``: a float checkpoint folder to an INT8 one."""

import argparse
import dataclasses
import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_tle_int8.cli import options

if TYPE_CHECKING:
    from hf_tle_int8.streaming.options import Outcome

_DTYPES = ("auto", "float32", "float16", "bfloat16")
# `hf_tle_int8.streaming.options.FORMATS`, which takes torch to import.
_FORMATS = ("tle_int8", "compressed-tensors")
_DESCRIPTION = """\
Write the INT8 checkpoint that from_pretrained(SRC, quantization_config=TLEInt8Config()) and save_pretrained(DST) would
write, tensor by tensor: memory is that of the largest tensor, whatever the size of the model.

DST appears when it is complete. After an interruption, the same command continues with what DST.partial holds.
Tokenizer and other small files are copied. SRC is the folder of a checkpoint with safetensors files; `hf download`
gets one.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="convert a float checkpoint folder to INT8, tensor by tensor",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SRC", help="folder of the float checkpoint")
    add("destination", type=Path, metavar="DST", help="folder to write")
    add("--dtype", choices=_DTYPES, default="auto", help="of what stays in float (default: that of SRC)")
    options.add_conversion(parser)
    add("--max-shard-size", default="5GB", metavar="SIZE", help="of a file (default: %(default)s)")
    add("--format", choices=_FORMATS, default=_FORMATS[0], help="configuration to write (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace the checkpoint that DST is")
    add("--json", action="store_true", help="print one JSON object instead of a sentence")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert and say what was written.

    Raises:
        SystemExit: 130 after Ctrl-C.
        TLEInt8Error, OSError, ValueError: see `convert_checkpoint`.
    """
    import torch

    from hf_tle_int8.streaming import conversion
    from hf_tle_int8.streaming.options import Options

    dtype = None if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    config = options.conversion(arguments)
    wanted = Options(config, dtype, arguments.max_shard_size, arguments.format, arguments.overwrite)
    try:
        outcome = conversion.convert_checkpoint(arguments.source, arguments.destination, wanted)
    except KeyboardInterrupt:
        print("hf-tle-int8: interrupted. The same command continues.", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            f"{error}. Free some space: the same command continues with the files that are complete."
        ) from error
    if arguments.json:
        print(json.dumps(dataclasses.asdict(outcome), indent=2))
    else:
        print("\n".join(_lines(outcome)))


def _lines(outcome: "Outcome") -> list[str]:
    size, count = outcome.bytes / 1e6, len(outcome.files)
    lines = [f"{outcome.folder}: {size:.1f} MB in {count} safetensors file{'s' if count > 1 else ''}"]
    if outcome.resumed:
        lines.append(f"{outcome.resumed} of them from an earlier run")
    lines.append(f"INT8: {', '.join(outcome.int8_modules) or 'nothing'}")
    if outcome.left_out:
        shown = ", ".join(outcome.left_out[:4]) + (", …" if len(outcome.left_out) > 4 else "")
        lines.append(f"left out, as the model has no such tensors: {shown}")
    return lines
