"""Linears whose operands lie beside pages that cannot be touched; a process of its own, for it may be killed.

Prints how many were right, and which operands kill a process where they are one element shorter than they should be.
"""

import itertools
import os
import signal

import numpy as np
import torch
from guard_pages import PAGE, Guarded
from kernel_runs import Kernel, on_host
from linear_runs import TYPES, Linear, Place, activations, assert_same, biases, choices, host_targets, weights

from hf_tle_int8.arithmetic import int8_linear
from hf_tle_int8.backend.target import named

OPERANDS = ("x", "q", "scale_x", "w", "scale_w", "bias", "y")
PAGES = {name: Guarded(8 * PAGE) for name in OPERANDS}


def placed(at_end: bool, short: str = "") -> Place:
    """Operands up to the end of their pages, or from the beginning; the last element of ``short`` beyond the end."""

    def place(name: str, values: np.ndarray) -> np.ndarray:
        inside = values[: values.size - (name == short)]
        room = PAGES[name].elements(values.dtype, inside.size, at_end)
        room[...] = inside
        return room

    return place


def check(linear: Linear, kernels: list[Kernel], m: int, n: int, k: int, place: Place) -> None:
    """One linear against the reference."""
    x, (weight, scale), bias = activations(m, k, linear.dtype), weights(n, k), biases(n, linear.bias)
    expected = int8_linear(x, weight, scale, bias)
    assert_same(linear.run(kernels, x, weight, scale, bias, place=place), expected)


def check_tails(linear: Linear, kernels: list[Kernel]) -> int:
    """Rows, columns and k around the edges of a tile; gives how many."""
    tile_m, tile_n = linear.choice.tile_m, linear.choice.tile_n
    rows = {1, tile_m, tile_m + 1, 2 * tile_m - 1}
    shapes = list(itertools.product(rows, {1, tile_n - 1, tile_n, tile_n + 1, 31}, (1, 31, 33, 64)))
    for shape, at_end in itertools.product(shapes, (False, True)):
        check(linear, kernels, *shape, placed(at_end))
    return 2 * len(shapes)


def dies(linear: Linear, kernels: list[Kernel], short: str) -> bool:
    """Whether a process does that touches the last element of an operand, which lies beyond the end of its page."""
    child = os.fork()
    if not child:
        check(linear, kernels, linear.choice.tile_m, 64, 64, placed(True, short))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def main() -> None:
    """Every tile of every target, with types in turn."""
    done, deadly = 0, set(OPERANDS)
    kinds = itertools.cycle(itertools.product(TYPES, reversed(TYPES)))
    for name in host_targets():
        target = named(name)
        for choice in choices(target):
            linear = Linear(target, choice, *next(kinds))
            kernels = [on_host(case, target) for case in linear.cases]
            done += check_tails(linear, kernels)
            deadly &= {operand for operand in OPERANDS if dies(linear, kernels, operand)}
    print(done, *sorted(deadly))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
