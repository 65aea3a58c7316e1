"""``hf-tle-int8 cache``: the compiled kernels in Triton's cache."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_tle_int8.cli import options

if TYPE_CHECKING:
    import torch

_DTYPES = ("auto", "float32", "float16", "bfloat16")


def add_parser(commands: Any) -> None:
    """Add the command and its actions to the parser."""
    text = "show, clear or fill the cache of compiled kernels"
    parser = commands.add_parser("cache", help=text, description=f"{text.capitalize()}. Without ACTION, show it.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a sentence")
    parser.set_defaults(run=show)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    clearing = actions.add_parser("clear", help="remove the kernels of this backend; those of others stay")
    clearing.set_defaults(run=clear)
    text = "compile all that the INT8 layers of a checkpoint need, so that its first token compiles nothing"
    warming = actions.add_parser("warm", help=text, description=text.capitalize() + ".")
    warming.add_argument(
        "path",
        type=Path,
        metavar="MODEL_FOLDER",
        help="INT8 checkpoint, or float one to load as INT8 with the options below",
    )
    warming.add_argument("--dtype", choices=_DTYPES, default="auto", help="of the model (default: that of its folder)")
    options.add_conversion(warming)
    warming.set_defaults(run=warm)
    for action in (clearing, warming):
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")


def show(arguments: argparse.Namespace) -> None:
    """Print where the cache is, and what this backend has in it."""
    from hf_tle_int8.backend import kernel_cache

    found = list(kernel_cache.kernels())
    facts = {
        "folder": str(kernel_cache.folder()),
        "kernels": len(found),
        "bytes": sum(kernel.bytes for kernel in found),
    }
    _print(arguments, facts, "{folder}: {kernels} kernels of this backend, {bytes} bytes")


def clear(arguments: argparse.Namespace) -> None:
    """Remove the kernels of this backend, and print how many there were."""
    from hf_tle_int8.backend import kernel_cache

    found = list(kernel_cache.kernels())
    facts = {
        "folder": str(kernel_cache.folder()),
        "removed": len(found),
        "bytes": sum(kernel.bytes for kernel in found),
    }
    for kernel in found:
        kernel.remove()
    _print(arguments, facts, "{folder}: removed {removed} kernels of this backend, {bytes} bytes")


def warm(arguments: argparse.Namespace) -> None:
    """Compile the kernels of a model, and print how many were new.

    Raises:
        TLEInt8Error: the folder is no checkpoint, or a damaged one; or options for one that is INT8 already.
        OSError: kernels cannot run here.
    """
    import torch

    from hf_tle_int8 import execution
    from hf_tle_int8.backend import kernel_cache
    from hf_tle_int8.warming import warm as compile_for

    if (reason := execution.unavailable()) is not None:
        raise OSError(f"kernels cannot run here: {reason}")
    before = len(list(kernel_cache.kernels()))
    dtype = None if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    found = compile_for(arguments.path, dtype, options.conversion(arguments))
    kinds = [[_name(input_dtype), bias and _name(bias)] for input_dtype, bias in found]
    now = len(list(kernel_cache.kernels()))
    text = ", ".join(f"{kind[0]} {f'with a {kind[1]} bias' if kind[1] else 'without bias'}" for kind in kinds)
    facts = {"folder": str(kernel_cache.folder()), "kinds": kinds, "added": now - before, "text": text}
    _print(arguments, facts, "{folder}: {added} kernels added, for linears in {text}")


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _print(arguments: argparse.Namespace, facts: dict[str, Any], sentence: str) -> None:
    if arguments.json:
        print(json.dumps({key: value for key, value in facts.items() if key != "text"}, indent=2))
    else:
        print(sentence.format(**facts))
