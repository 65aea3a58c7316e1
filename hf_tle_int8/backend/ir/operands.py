"""Types and operands of LLVM IR."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

_BITS = {
    "i1": 1,
    "i8": 8,
    "i16": 16,
    "i32": 32,
    "i64": 64,
    "half": 16,
    "bfloat": 16,
    "float": 32,
    "double": 64,
    "ptr": 64,
}
_MANGLED = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}


@dataclass(frozen=True)
class IRType:
    """A scalar type, or a vector of ``lanes`` of them (0 lanes: a scalar)."""

    base: str
    lanes: int = 0

    @property
    def bits(self) -> int:
        """The width of an element."""
        return _BITS[self.base]

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating point."""
        return self.base in ("half", "bfloat", "float", "double")

    @property
    def scalar(self) -> "IRType":
        """The type of an element."""
        return IRType(self.base)

    @property
    def mangled(self) -> str:
        """The type in the name of an overloaded intrinsic: ``v8f32``."""
        return (f"v{self.lanes}" if self.lanes else "") + _MANGLED.get(self.base, self.base)

    def vector(self, lanes: int) -> "IRType":
        """A vector of this type's elements."""
        return replace(self, lanes=lanes)

    def of(self, base: "IRType") -> "IRType":
        """The type with as many lanes and elements of ``base``."""
        return replace(base, lanes=self.lanes)

    def __str__(self) -> str:
        return f"<{self.lanes} x {self.base}>" if self.lanes else self.base


I1, I8, I16, I32, I64 = (IRType(f"i{bits}") for bits in (1, 8, 16, 32, 64))
HALF, BFLOAT, FLOAT, DOUBLE = (IRType(name) for name in ("half", "bfloat", "float", "double"))
PTR = IRType("ptr")


@dataclass(frozen=True)
class Operand:
    """A value in IR: a register such as ``%v7``, or a literal."""

    type: IRType
    text: str

    @property
    def typed(self) -> str:
        """Type and text, as most instructions want it."""
        return f"{self.type} {self.text}"

    @property
    def is_literal(self) -> bool:
        """Whether the value is known when the kernel is compiled."""
        return not self.text.startswith("%")


def constant(kind: IRType, value: int | float | Sequence[int | float]) -> Operand:
    """A literal: one value, which every lane has, or one value a lane.

    Floats are rounded to ``kind``, to nearest even; integers wrap.
    """
    if isinstance(value, Sequence):
        return Operand(kind, f"<{', '.join(f'{kind.base} {_literal(kind.scalar, item)}' for item in value)}>")
    if not kind.lanes:
        return Operand(kind, _literal(kind, value))
    if value == 0 and str(value)[0] != "-":
        return Operand(kind, "zeroinitializer")
    return Operand(kind, f"splat ({kind.base} {_literal(kind.scalar, value)})")


def _literal(kind: IRType, value: int | float) -> str:
    if kind.is_float:
        return _float_literal(kind, float(value))
    if kind.base == "ptr":
        if value:
            raise ValueError(f"a pointer literal can only be null, not {value}.")
        return "null"
    if kind.bits == 1:
        return "true" if value else "false"
    wrapped = int(value) & ((1 << kind.bits) - 1)
    return str(wrapped - (1 << kind.bits) if wrapped >> (kind.bits - 1) else wrapped)


def _float_literal(kind: IRType, value: float) -> str:
    """LLVM's hexadecimal forms: exact for every value, NaN and infinities included."""
    if kind.base == "half":
        return f"0xH{_bits('<e', '<H', value):04X}"
    if kind.base == "bfloat":
        return f"0xR{_bfloat_bits(value):04X}"
    if kind.base == "float":
        (value,) = struct.unpack("<f", struct.pack("<I", _bits("<f", "<I", value)))
    return f"0x{_bits('<d', '<Q', value):016X}"


def _bits(code: str, integer: str, value: float) -> int:
    try:
        packed = struct.pack(code, value)
    except OverflowError:
        packed = struct.pack(code, float("inf") if value > 0 else float("-inf"))
    return struct.unpack(integer, packed)[0]


def _bfloat_bits(value: float) -> int:
    """The upper half of the fp32 bits, rounded to nearest even once from the double."""
    bits = _bits("<f", "<I", value)
    if value != value:
        return (bits >> 16) | 0x40
    (single,) = struct.unpack("<f", struct.pack("<I", bits))
    # A double that fp32 rounded onto a tie of bf16 breaks that tie by the side that it came from.
    sticky = 0 if single == value else (1 if abs(value) > abs(single) else -1)
    upper, lower = bits >> 16, (bits & 0xFFFF) * 2 + sticky
    return upper + (lower > 0x10000 or (lower == 0x10000 and upper & 1))
