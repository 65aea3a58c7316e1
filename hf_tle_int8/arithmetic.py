"""The arithmetic of W8A8 in plain torch: the reference that every kernel is tested against.

Weights are int8, symmetric, one scale per output channel: ``w ≈ q_w * scale_w[:, None]``.
Activations are int8, symmetric, one scale per token (row), computed for each call: ``x ≈ q_x * scale_x[:, None]``.
The product ``q_x @ q_w.T`` is exact in int32 whatever M, N, K, thread count or BLAS, so a row gives the same bits in
every batch. The scheme is the ``int-quantized`` W8A8 of compressed-tensors.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hf_tle_int8.errors import InputTypeError, InputValueError
from hf_tle_int8.kernels.scheme import ABSMAX_FLOOR, ACTIVATION_QMIN, MAX_IN_FEATURES, QMAX, WEIGHT_QMIN

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# 512 KiB of fp32; the longest row that is served fits.
_CHUNK_ELEMENTS = 128 * 1024

# |q| <= 128, so the partial sums of 1024 products are integers of at most 2**24: fp32 holds them exactly in any order
# of summation, with or without FMA, and also where matmul rounds its inputs to bf16 or tf32 (8 bits suffice for int8).
_EXACT_K = 1024
_BLOCK_N = 512


def _row_chunks(rows: int, columns: int) -> range:
    return range(0, rows, max(1, _CHUNK_ELEMENTS // columns))


def _channel_absmax(rows: Tensor) -> Tensor:
    """``[n, K]`` fp32 -> ``[n, 1]``, the largest magnitude of each row, NaN where the row holds one."""
    # Two vectorized passes: torch.aminmax is one, of scalars, 20 times as long.
    return torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())


def check_weight_shape(weight: Tensor, name: str = "weight") -> None:
    """Raise `InputValueError` unless ``weight`` is ``[N, K]`` with ``1 <= K <= 131072``."""
    if weight.ndim != 2 or not 1 <= weight.shape[1] <= MAX_IN_FEATURES:
        raise InputValueError(
            f"{name} has shape {tuple(weight.shape)}: a [N, K] matrix with 1 <= K <= {MAX_IN_FEATURES} is needed, "
            f"beyond which an int32 accumulator could overflow. Keep this layer in floating point."
        )


def _check_float_weight(weight: Tensor, name: str) -> None:
    if not weight.is_floating_point():
        raise InputTypeError(
            f"{name} has dtype {weight.dtype}: only a floating-point weight can be quantized. Convert it, "
            f"or, if it holds int8 codes already, give it to TLEInt8Linear with its scale."
        )
    check_weight_shape(weight, name)


def check_weight(weight: Tensor, name: str = "weight") -> None:
    """Raise unless ``weight`` can be quantized: floating, ``[N, K]`` with ``1 <= K <= 131072``, no NaN or Inf.

    Raises:
        InputTypeError: not a floating-point tensor.
        InputValueError: not 2-D, K out of range, or a row holds NaN or Inf.
    """
    _check_float_weight(weight, name)
    chunks = _row_chunks(*weight.shape)
    for start in chunks:
        _check_finite(_channel_absmax(weight[start : start + chunks.step].detach().float()), start, name)


def _check_finite(absmax: Tensor, first_row: int, name: str) -> None:
    if not torch.isfinite(absmax).all():
        row = first_row + int(torch.nonzero(~torch.isfinite(absmax.flatten()))[0])
        raise InputValueError(
            f"{name} holds NaN or Inf in output channel {row}: it has no int8 scale. "
            f"Repair the checkpoint, or keep this layer in floating point."
        )


def quantize_weight(weight: Tensor, name: str = "weight") -> tuple[Tensor, Tensor]:
    """Quantize a weight per output channel, in chunks of rows: at most 1 MB of scratch beside the result.

    Args:
        weight: ``[N, K]``, floating point.
        name: what an error calls the tensor.

    Returns:
        ``(q, scale)``: int8 ``[N, K]`` and fp32 ``[N, 1]`` with ``weight ≈ q * scale``.

    Raises:
        InputTypeError, InputValueError: see `check_weight`.
    """
    _check_float_weight(weight, name)
    q = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty((weight.shape[0], 1), dtype=torch.float32, device=weight.device)
    chunks = _row_chunks(*weight.shape)
    scratch = torch.empty(
        (min(chunks.step, weight.shape[0]), weight.shape[1]), dtype=torch.float32, device=weight.device
    )
    for start in chunks:
        source = weight[start : start + chunks.step].detach()
        rows = scratch[: source.shape[0]].copy_(source)
        absmax = _channel_absmax(rows)
        _check_finite(absmax, start, name)
        chunk_scale = absmax.clamp_(min=ABSMAX_FLOOR).div_(QMAX)
        scale[start : start + chunks.step] = chunk_scale
        q[start : start + chunks.step] = rows.div_(chunk_scale).round_().clamp_(WEIGHT_QMIN, QMAX)
    return q, scale


def dequantize_weight(q: Tensor, scale: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """``[N, K]`` int8 and ``[N, 1]`` fp32 -> ``q * scale`` ``[N, K]``, in fp32 and rounded once to ``dtype``."""
    weight = torch.empty(q.shape, dtype=dtype, device=q.device)
    chunks = _row_chunks(*q.shape)
    for start in chunks:
        rows = slice(start, start + chunks.step)
        weight[rows] = q[rows].float().mul_(scale[rows])
    return weight


def quantize_activation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize activations per token (row).

    Args:
        x: ``[M, K]``, fp32, fp16 or bf16.

    Returns:
        ``(q, scale)``: int8 ``[M, K]`` and fp32 ``[M, 1]`` with ``x ≈ q * scale``. A row that holds NaN or Inf has
        codes of 0 and a scale of NaN, so that its output, and no other row's, is NaN.
    """
    x32 = x.float()
    absmax = x32.abs().amax(dim=1, keepdim=True).clamp_(min=ABSMAX_FLOOR)
    finite = torch.isfinite(absmax)
    # `QMAX / absmax` would be `absmax.reciprocal() * QMAX`, which rounds twice.
    inverse = torch.div(torch.full_like(absmax, QMAX), absmax)
    codes = (x32 * inverse).round_().clamp_(ACTIVATION_QMIN, QMAX)
    q = torch.where(finite, codes, 0.0).to(torch.int8)
    return q, torch.where(finite, absmax / QMAX, torch.nan)


def int32_product(q_x: Tensor, q_w: Tensor) -> Tensor:
    """``[M, K]`` int8 times ``[N, K]`` int8 -> ``q_x @ q_w.T``, int32 ``[M, N]``, exact for all int8 values.

    Runs on the fp32 GEMM of torch over slices of K short enough for fp32 to be exact. ``torch._int_mm`` is not used:
    it is a scalar loop on AArch64 and up to 30 times slower than this on x86 without VNNI.
    """
    (m, k), n = q_x.shape, q_w.shape[0]
    product = torch.zeros((m, n), dtype=torch.int32, device=q_x.device)
    # Autocast would turn the matmul into one with a bf16 result.
    with torch.autocast(q_x.device.type, enabled=False):
        for k0 in range(0, k, _EXACT_K):
            x_slice = q_x[:, k0 : k0 + _EXACT_K].float()
            for n0 in range(0, n, _BLOCK_N):
                w_block = q_w[n0 : n0 + _BLOCK_N, k0 : k0 + _EXACT_K].float()
                product[:, n0 : n0 + _BLOCK_N] += (x_slice @ w_block.t()).to(torch.int32)
    return product


def epilogue(product: Tensor, scale_x: Tensor, scale_w: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Rescale the int32 product: ``product * (scale_x * scale_w) + bias`` in fp32, rounded once to ``dtype``.

    Args:
        product: int32 ``[M, N]``.
        scale_x: fp32 ``[M, 1]``, per token.
        scale_w: fp32 ``[N, 1]``, per output channel.
        bias: ``[N]`` of any floating dtype, or None.
        dtype: dtype of the result.
    """
    y = product.float().mul_(scale_x * scale_w.reshape(1, -1))
    if bias is not None:
        y.add_(bias.float())
    return y.to(dtype)


def int8_linear(x: Tensor, q_w: Tensor, scale_w: Tensor, bias: Tensor | None) -> Tensor:
    """Quantize ``x [M, K]``, multiply by int8 ``q_w [N, K]``, rescale: ``[M, N]`` in the dtype of ``x``."""
    q_x, scale_x = quantize_activation(x)
    return epilogue(int32_product(q_x, q_w), scale_x, scale_w, bias, x.dtype)


def int8_linear_grad_input(
    grad: Tensor, channels: Callable[[int, int], Tensor], scale_w: Tensor, in_features: int
) -> Tensor:
    """Gradient of `int8_linear` for ``x``: ``grad [M, N] @ (q_w * scale_w)`` -> ``[M, K]``.

    The rounding of the activations is passed straight through. Computed in fp32, in blocks of output channels, and
    rounded once to the dtype of ``grad``.

    Args:
        grad: ``[M, N]``.
        channels: gives int8 ``[stop - start, K]``, the output channels ``[start, stop)`` of ``q_w``.
        scale_w: fp32 ``[N, 1]``.
        in_features: K.
    """
    n = scale_w.shape[0]
    grad_x = torch.zeros((grad.shape[0], in_features), dtype=torch.float32, device=grad.device)
    with torch.autocast(grad.device.type, enabled=False):
        for start in range(0, n, _BLOCK_N):
            stop = min(start + _BLOCK_N, n)
            weight = dequantize_weight(channels(start, stop), scale_w[start:stop])
            grad_x += grad[:, start:stop].float() @ weight
    return grad_x.to(grad.dtype)
