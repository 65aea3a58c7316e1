"""``torch._int_mm`` on the CPU, routed to the int8 kernels: opt-in, for the whole process, and undoable.

torch computes it by a scalar loop on AArch64 and on x86-64 without VNNI, and what builds on it, such as the dynamic
int8 of torchao, waits for that loop.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_tle_int8 import execution
from hf_tle_int8.dispatch import QUANTIZED_BLOCK, choose, constexprs

_libraries: list[Any] = []


def override_int_mm() -> None:
    """Let ``torch._int_mm`` run on the int8 kernels wherever they serve it; a second call changes nothing.

    The results are the same, exact for all int8 values. What the kernels do not serve, such as operands that are
    contiguous in neither dimension, runs as before.

    Raises:
        RuntimeError: the kernels cannot run here, or torch is older than 2.9; says what to do.
    """
    if _libraries:
        return
    reason = execution.unavailable()
    if reason is not None:
        raise RuntimeError(f"torch._int_mm cannot be overridden: {reason}")
    if not hasattr(torch.library, "get_kernel"):
        raise RuntimeError(f"torch {torch.__version__} cannot give back what is overridden. Use torch 2.9 or newer.")
    library = torch.library.Library("aten", "IMPL")
    original = {name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in ("_int_mm", "_int_mm.out")}

    def int_mm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        if not _is_served(a, b):
            return original["_int_mm"].call_boxed(keys, a, b)
        return _product(a, b, torch.empty((a.shape[0], b.shape[1]), dtype=torch.int32))

    def int_mm_out(keys: Any, a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        fits = out.shape == (a.shape[0], b.shape[-1]) and out.dtype == torch.int32 and out.is_contiguous()
        if not (fits and _is_served(a, b)):
            return original["_int_mm.out"].call_boxed(keys, a, b, out=out)
        return _product(a, b, out)

    with warnings.catch_warnings():
        # torch warns of what was asked for here.
        warnings.simplefilter("ignore", UserWarning)
        library.impl("_int_mm", int_mm, "CPU", with_keyset=True)
        library.impl("_int_mm.out", int_mm_out, "CPU", with_keyset=True)
    _libraries.append(library)


def restore_int_mm() -> None:
    """Undo `override_int_mm`; nothing where it was not called."""
    while _libraries:
        _libraries.pop()._destroy()


def _is_served(a: Tensor, b: Tensor) -> bool:
    return (
        a.dtype == b.dtype == torch.int8
        and a.dim() == b.dim() == 2
        and a.shape[1] == b.shape[0]
        and min(*a.shape, b.shape[1]) > 0
        and 1 in a.stride()
        and 1 in b.stride()
        and a.is_cpu
        and b.is_cpu
    )


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """``a [M, K] @ b [K, N]`` into contiguous int32 ``out``."""
    (m, k), n = a.shape, b.shape[1]
    here = execution.layout()
    choice = choose(m, n, k, here, torch.get_num_threads())
    padded_n, padded_k = here.packing.padded(n, k)
    padded_m = -(-m // choice.tile_m) * choice.tile_m
    q = torch.empty((padded_m, padded_k), dtype=torch.int8)
    panels = torch.empty((padded_n, padded_k), dtype=torch.int8)
    _pack(a, q, choice.rows, choice.flipped, choice.threads)
    _pack(b.t(), panels, here.packing.columns, False, choice.threads)
    call = _multiplier(choice.tile_m, choice.tile_n)
    programs = padded_m // choice.tile_m, -(-n // choice.tile_n)
    call(q.data_ptr(), panels.data_ptr(), out.data_ptr(), n, m, n, padded_k, *programs, 1, choice.threads)
    return out


def _pack(x: Tensor, to: Tensor, rows: int, flipped: bool, threads: int) -> None:
    transposed = x.stride(1) != 1
    call = _packer(rows, flipped, transposed)
    m, k = x.shape
    arguments = x.data_ptr(), x.stride(1 if transposed else 0), to.data_ptr(), m, k, to.shape[1]
    call(*arguments, to.shape[0] // rows, 1, 1, threads)


@functools.cache
def _packer(rows: int, flipped: bool, transposed: bool) -> Callable[..., None]:
    from hf_tle_int8.kernels.pack import pack

    values = {"ROWS": rows, "GROUP": execution.layout().packing.group, "BLOCK": QUANTIZED_BLOCK}
    entry = execution.compiled(pack, {"x": "*i8"}, {**values, "FLIPPED": flipped, "TRANSPOSED": transposed})
    call: Callable[..., None] = entry.call
    return call


@functools.cache
def _multiplier(tile_m: int, tile_n: int) -> Callable[..., None]:
    from hf_tle_int8.kernels.linear import gemm_int32

    layout = execution.layout()
    values = constexprs(layout, layout.choice(tile_m, tile_n))
    call: Callable[..., None] = execution.compiled(gemm_int32, {"y": "*i32"}, values).call
    return call
