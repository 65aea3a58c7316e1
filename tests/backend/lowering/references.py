"""What operations of TTIR give, by torch, numpy and Python's integers."""

from collections.abc import Callable

import numpy as np
import torch
from elementwise_case import COUNT, TORCH


def unsigned(kind: str, tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().view(f"u{int(kind[1:]) // 8}")


def by_numpy(kind: str, function: Callable[..., np.ndarray]) -> Callable[..., torch.Tensor]:
    """A reference on unsigned integers, which torch lacks."""

    def reference(*tensors: torch.Tensor) -> torch.Tensor:
        with np.errstate(all="ignore"):
            result = function(*(unsigned(kind, tensor) for tensor in tensors))
        if result.dtype == bool:
            return torch.from_numpy(result)
        return torch.from_numpy(result.astype(result.dtype).view(f"i{result.dtype.itemsize}"))

    return reference


def divisor_is_not_zero(_: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return b != 0


def truncated_quotient(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    safe = torch.where(b == 0, 1, b)
    overflow = (safe == -1) & (a == torch.iinfo(a.dtype).min)
    return torch.where(overflow, a, torch.div(a, torch.where(overflow, 1, safe), rounding_mode="trunc"))


def truncated_remainder(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a - truncated_quotient(a, b) * torch.where(b == 0, 1, b)


def shift_reference(kind: str, op: str) -> Callable[..., torch.Tensor]:
    bits = int(kind[1:])

    def reference(a: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        counts = unsigned(kind, count).astype(np.uint64)
        inside = torch.from_numpy(counts < bits)
        small = torch.where(inside, count, 0)
        if op == "shrsi":
            return a >> torch.where(inside, count, bits - 1).to(a.dtype)
        shifted = a << small if op == "shli" else by_numpy(kind, np.right_shift)(a, small)
        return torch.where(inside, shifted, 0).to(a.dtype)

    return reference


def in_double(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """16-bit floats through fp64, which rounds once where torch may round twice."""
    return lambda *t: function(*(x.double() for x in t)).to(t[0].dtype) if t[0].element_size() == 2 else function(*t)


def correct_sqrt(x: torch.Tensor) -> torch.Tensor:
    """Rounded correctly, which torch's own may not be."""
    wide = x if x.element_size() > 2 else x.double()
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.sqrt(wide.numpy())).to(x.dtype)


def not_both_zero(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """maxnum and minnum may return either zero of two that differ in sign."""
    return ~((a == 0) & (b == 0))


def saturated(dtype: torch.dtype, signed: bool = True) -> Callable[[torch.Tensor], torch.Tensor]:
    """Toward zero, to the nearest integer that fits; NaN to 0. Unsigned results come as signed ones of their bits."""
    bits = torch.iinfo(dtype).bits
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)

    def convert(value: float) -> int:
        if value != value:
            return 0
        if abs(value) == float("inf"):
            return high if value > 0 else low
        return min(max(int(value), low), high)

    def wrap(value: int) -> int:
        return value - (1 << bits) if value >> (bits - 1) == 1 else value

    return lambda x: torch.tensor([wrap(convert(value)) for value in x.double().tolist()], dtype=dtype)


def integer_to_float_reference(dtype: torch.dtype, signed: bool = True) -> Callable[[torch.Tensor], torch.Tensor]:
    """Integers rounded to a float type by integer arithmetic."""
    digits = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}[dtype]

    def reference(a: torch.Tensor) -> torch.Tensor:
        values = a.tolist() if signed else [int(value) % (1 << torch.iinfo(a.dtype).bits) for value in a.tolist()]
        return torch.tensor([_round_integer(int(v), digits) for v in values], dtype=torch.float64).to(dtype)

    return reference


def _round_integer(value: int, digits: int) -> float:
    magnitude, sign = abs(value), -1 if value < 0 else 1
    shift = max(magnitude.bit_length() - digits, 0)
    quotient, rest = magnitude >> shift, magnitude & ((1 << shift) - 1)
    half = 1 << (shift - 1) if shift else 0
    quotient += bool(shift and (rest > half or (rest == half and quotient & 1)))
    return float(sign * (quotient << shift))


def quarters(kind: str, seed: int) -> torch.Tensor:
    """Multiples of 1/4 below 250: products and sums of them are exact in every float of 32 bits or more."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-999, 999, (COUNT,), generator=generator).to(TORCH[kind]) / 4


def clamped(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.fmin(torch.fmax(x, low), high)


def no_zero(*tensors: torch.Tensor) -> torch.Tensor:
    return torch.stack([tensor != 0 for tensor in tensors]).all(0)


def extended(kind: str, result: str, signed: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """An integer in a wider type, by its sign or by zeros."""

    def extend(a: torch.Tensor) -> torch.Tensor:
        wide = a.to(TORCH[result])
        if signed:
            return -wide if kind == "i1" else wide
        return wide if kind == "i1" else by_numpy(kind, lambda x: x.astype(f"u{int(result[1:]) // 8}"))(a)

    return extend


def low_bits(result: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """An integer in a narrower type."""
    return lambda a: (a & 1).bool() if result == "i1" else a.to(TORCH[result])


def upper_half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The upper 32 bits of the product of unsigned 32-bit integers."""
    return ((a.astype(np.uint64) * b) >> np.uint64(32)).astype(np.uint32)


def either_nan(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.isnan() | b.isnan()


# By the number of the predicate.
FLOAT_COMPARISONS: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
    lambda a, b: torch.zeros(COUNT, dtype=torch.bool),
    torch.eq,
    torch.gt,
    torch.ge,
    torch.lt,
    torch.le,
    lambda a, b: (a != b) & ~either_nan(a, b),
    lambda a, b: ~either_nan(a, b),
    lambda a, b: (a == b) | either_nan(a, b),
    lambda a, b: ~(a <= b),
    lambda a, b: ~(a < b),
    lambda a, b: ~(a >= b),
    lambda a, b: ~(a > b),
    torch.ne,
    either_nan,
    lambda a, b: torch.ones(COUNT, dtype=torch.bool),
]

TRANSCENDENTAL = {
    "math.exp": torch.exp,
    "math.exp2": torch.exp2,
    "math.log": torch.log,
    "math.log2": torch.log2,
    "math.tanh": torch.tanh,
    "math.erf": torch.erf,
    "math.rsqrt": lambda x: 1 / torch.sqrt(x),
}


def exactly(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """An fp32 function in fp64, which is as good as exact."""
    return lambda x: function(x.double())
