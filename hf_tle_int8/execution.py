"""Running linears of packed weights: kernels compiled once for each kind, called without Triton's own Python."""

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from hf_tle_int8 import activations, dispatch
from hf_tle_int8.backend.target import Target
from hf_tle_int8.dispatch import MOST_ROWS, QUANTIZED_BLOCK, Choice, Scheme, choose, constexprs

if TYPE_CHECKING:
    from hf_tle_int8.backend.entry import KernelEntry

_TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_ARGUMENTS = {
    **{"stride": "i64", "q": "*i8", "w": "*i8"},
    **dict.fromkeys(("scale", "scale_x", "scale_w"), "*fp32"),
    **dict.fromkeys(("M", "N", "K", "K_PADDED"), "i32"),
}


@functools.cache
def unavailable() -> str | None:
    """Why kernels cannot run in this process; None where they can. The reason names the remedy."""
    try:
        from hf_tle_int8.backend import settings
        from hf_tle_int8.backend.codegen import llvm
        from hf_tle_int8.backend.target import current

        llvm()
        current()
    except (ImportError, RuntimeError) as error:
        return str(error)
    return settings.why_not_registered()


@functools.cache
def target() -> Target:
    """What kernels are compiled for.

    Raises:
        RuntimeError: see `unavailable`.
    """
    reason = unavailable()
    if reason is not None:
        raise RuntimeError(reason)
    from hf_tle_int8.backend.target import current

    return current()


@functools.cache
def layout() -> Scheme:
    """How operands lie in memory here, and the tiles.

    Raises:
        ConfigError: see `dispatch.with_tiles`.
    """
    found, tiles = dispatch.scheme(target()), os.environ.get(dispatch.VARIABLE)
    return dispatch.with_tiles(found, tiles) if tiles else found


# Loaded code must outlive the functions that point into it.
_entries: list["KernelEntry"] = []


def compiled(kernel: Any, types: dict[str, str], values: dict[str, Any]) -> "KernelEntry":
    """A kernel, ready to be called with addresses and integers, the grid and the number of threads.

    Args:
        kernel: a ``triton.jit`` function of `hf_tle_int8.kernels`.
        types: Triton's names of the types of arguments that differ from call to call.
        values: of its constexprs.
    """
    from hf_tle_int8.backend.prepared import prepare

    entry = prepare(kernel, {**_ARGUMENTS, **types}, values, target())
    _entries.append(entry)
    return entry


@functools.cache
def _quantizer(dtype: torch.dtype, rows: int, flipped: bool) -> "KernelEntry":
    from hf_tle_int8.kernels.quantize import quantize

    values = {"ROWS": rows, "GROUP": layout().packing.group, "BLOCK": QUANTIZED_BLOCK, "FLIPPED": flipped}
    return compiled(quantize, {"x": f"*{_TYPES[dtype]}"}, values)


@functools.cache
def _gemm(tile: tuple[int, int], x: str, bias: str | None) -> "KernelEntry":
    from hf_tle_int8.kernels.linear import gemm

    values = {**constexprs(layout(), layout().choice(*tile)), "HAS_BIAS": bias is not None}
    return compiled(gemm, {"x": f"*{x}", "y": f"*{x}", "bias": f"*{bias or x}"}, values)


class _Plan(NamedTuple):
    """All that a call for one shape needs.

    Attributes:
        call: `hf_tle_int8.kernels.linear.gemm`, compiled.
        quantize: what happens before it.
        programs: of the kernel, along rows and columns.
        threads: how many to use.
    """

    call: Callable[..., None]
    quantize: activations.Quantize
    programs: tuple[int, int]
    threads: int


@functools.lru_cache(maxsize=4096)
def _rows(m: int, k: int, dtype: torch.dtype, choice: Choice) -> activations.Quantize:
    call, padded_k = _quantizer(dtype, choice.rows, choice.flipped).call, layout().packing.padded(1, k)[1]
    return activations.quantize(call, m, k, padded_k, choice)


def _plan(m: int, n: int, k: int, dtype: torch.dtype, bias: torch.dtype | None, threads: int) -> _Plan:
    choice = choose(m, n, k, layout(), threads)
    kernel = _gemm((choice.tile_m, choice.tile_n), _TYPES[dtype], None if bias is None else _TYPES[bias])
    return _Plan(
        kernel.call, _rows(m, k, dtype, choice), (-(-m // choice.tile_m), -(-n // choice.tile_n)), choice.threads
    )


def kernels(dtype: torch.dtype, bias: torch.dtype | None) -> dict[str, Callable[[], object]]:
    """What compiles each kernel that linears need for any number of rows, or loads it from Triton's cache, by its name.

    Args:
        dtype: of their input, fp32, fp16 or bf16.
        bias: dtype of their bias, or None.

    Raises:
        RuntimeError: see `unavailable`.
    """
    x, found = _TYPES[dtype], dict[str, Callable[[], object]]()
    for m, n in layout().tiles:
        rows, flipped = (choice := layout().choice(m, n)).rows, choice.flipped
        name = f"quantize {rows}{' flipped' * flipped}"
        found[name] = functools.partial(_quantizer, dtype, rows, flipped)
        found[f"gemm {m}x{n}"] = functools.partial(_gemm, (m, n), x, None if bias is None else _TYPES[bias])
    return found


def addresses(tile: tuple[int, int], dtype: torch.dtype, bias: torch.dtype | None) -> tuple[int, int]:
    """Of the kernel for a tile and of the quantizer that goes with it, compiled; see `KernelEntry.address`.

    Raises:
        RuntimeError: see `unavailable`.
    """
    choice = layout().choice(*tile)
    kernel = _gemm(tile, _TYPES[dtype], None if bias is None else _TYPES[bias])
    return kernel.address, _quantizer(dtype, choice.rows, choice.flipped).address


def compile_tiles(dtype: torch.dtype, bias: torch.dtype | None) -> None:
    """Compile all `kernels`."""
    for compile_kernel in kernels(dtype, bias).values():
        compile_kernel()


_PLANS: dict[tuple[Any, ...], _Plan] = {}
_MOST_PLANS = 4096
_scratch = activations.Scratch()


def packed_linear(
    x: Tensor, panels: Tensor, scale: Tensor, bias: Tensor | None,
    reader: activations.Reader | None = None, quantized: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`hf_tle_int8.arithmetic.int8_linear` of packed weights; nothing is recorded for autograd.

    Args:
        x: ``[..., K]``, fp32, fp16 or bf16, on the CPU.
        panels: int8, those of `layout` for ``[N, K]``.
        scale: ``[N, 1]``, floating point.
        bias: ``[N]``, floating point, or None.
        reader: which of the linears that share ``x`` this is.
        quantized: what `quantized_rows` gives for ``x``.

    Returns:
        ``[..., N]`` in the dtype of ``x``.
    """
    shape, n = x.shape, scale.shape[0]
    k = shape[-1]
    if not panels.is_contiguous():
        panels = panels.contiguous()
    if scale.dtype is not torch.float32 or not scale.is_contiguous():
        scale = scale.float().contiguous()
    m = x.numel() // k
    # Integers one by one: torch parses them in half the time of a tuple.
    y = torch.empty(*shape[:-1], n, dtype=x.dtype)
    if not m:
        return y
    kind = None
    if bias is not None:
        if bias.dtype not in _TYPES or not bias.is_contiguous():
            bias = bias.float().contiguous()
        kind = bias.dtype
    key = m, n, k, x.dtype, kind, torch.get_num_threads()
    plan = _PLANS.get(key)
    if plan is None:
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        plan = _PLANS[key] = _plan(*key)
    call, how, (gx, gy), threads = plan
    codes = _scratch.filled(x, how, reader) if quantized is None else quantized.data_ptr()
    added = 0 if bias is None else bias.data_ptr()
    call(
        codes + how.scales, codes, panels.data_ptr(), scale.data_ptr(), added, y.data_ptr(),
        n, m, n, how.padded_k, gx, gy, 1, threads,
    )  # fmt: skip
    if quantized is None:
        _scratch.release()
    return y


def quantized_rows(x: Tensor) -> Tensor:
    """The rows of ``x [..., K]`` for linears that share it, as `packed_linear` reads them: int8, `quantized_size`."""
    k = x.shape[-1]
    m = x.numel() // k
    to = torch.empty(quantized_size(m, k), dtype=torch.int8)
    if m:
        choice = choose(m, 1, k, layout(), torch.get_num_threads())
        _rows(m, k, x.dtype, choice).run(x.contiguous(), to.data_ptr())
    return to


def quantized_size(m: int, k: int) -> int:
    """Bytes of room for the codes and scales of ``[m, k]`` on any target."""
    return (m + MOST_ROWS) * (-(-k // QUANTIZED_BLOCK) * QUANTIZED_BLOCK + 4) + activations.ALIGNMENT
