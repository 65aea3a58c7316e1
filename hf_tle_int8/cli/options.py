"""Options that several commands share.

Like the files of the commands, it imports torch and transformers only to run: help and errors of usage come at once.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_tle_int8.config import TLEInt8Config

# OpenMP ends the process where it cannot start as many as it is asked for.
_MOST_THREADS = 1024
_LEAST_TEMPERATURE = 0.001


def positive(text: str) -> int:
    """A number from 1 on; argparse shows the error of anything else."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on.")
    return int(text)


def threads(text: str) -> int:
    """A number of threads that OpenMP can start; argparse shows the error of anything else."""
    if not (text.isdecimal() and 0 < int(text) <= _MOST_THREADS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads from 1 to {_MOST_THREADS}.")
    return int(text)


def temperature(text: str) -> float:
    """0, or a finite number that logits can be divided by; argparse shows the error of anything else."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value != 0 and not _LEAST_TEMPERATURE <= value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no temperature: 0 is greedy, {_LEAST_TEMPERATURE} or more samples."
        )
    return value


def seed(text: str) -> int:
    """A number that torch takes as a seed; argparse shows the error of anything else."""
    if not (text.isdecimal() and int(text) < 1 << 63):
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: a number from 0 to 2**63 - 1.")
    return int(text)


def check_writable(file: Path | None) -> None:
    """Raise `OSError` where ``file`` could not be written in the end: nothing is measured in vain."""
    if file is not None and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
        raise OSError(f"{file} cannot be written. Name a file in a folder that is there and is yours.")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, a causal language model."""
    parser.add_argument("model", metavar="MODEL", help="folder of a causal language model, or its name on the Hub")


def add_dtype(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Add ``--dtype``: of all that is not INT8."""
    choices = ("auto", "float32", "bfloat16", "float16")
    text = "of all that is not INT8; auto is that of the checkpoint (default: %(default)s)"
    parser.add_argument("--dtype", choices=choices, default=default, help=text)


def add_conversion(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what becomes INT8, to be given to `conversion`."""
    add = parser.add_argument
    add("--modules-to-not-convert", nargs="+", metavar="NAME", help="names or re: patterns that stay in float")
    add("--modules-to-convert", nargs="+", metavar="NAME", help="names or re: patterns, the only ones to convert")
    add("--quantize-lm-head", action="store_true", help="convert the output head, too")


def conversion(arguments: argparse.Namespace) -> "TLEInt8Config":
    """What `add_conversion` has asked for; raises `ConfigError`."""
    from hf_tle_int8.config import TLEInt8Config

    return TLEInt8Config(
        modules_to_not_convert=arguments.modules_to_not_convert,
        modules_to_convert=arguments.modules_to_convert,
        quantize_lm_head=arguments.quantize_lm_head,
    )


def add_threads(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """Add ``--threads``, to be given to `torch_threads`."""
    text = f"threads of torch and of the kernels (default: {default or 'what torch uses'})"
    parser.add_argument("--threads", type=threads, default=default, metavar="T", help=text)


def add_generation(parser: argparse.ArgumentParser, default: float | None, meaning: str) -> None:
    """Add the options of `generation.Generator`, with the default of the temperature, and what that means."""
    add = parser.add_argument
    add("--max-new-tokens", type=positive, default=256, metavar="N", help="at most (default: %(default)s)")
    text = f"0 takes the most likely token, more samples (default: {meaning})"
    add("--temperature", type=temperature, default=default, metavar="T", help=text)
    add("--seed", type=seed, metavar="S", help="of sampling: the same seed gives the same text")
    add_dtype(parser)
    add_threads(parser)
    add("--float", action="store_true", help="run the model in float; an INT8 checkpoint is dequantized")


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Within, torch and the kernels run on ``count`` threads; None leaves their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
