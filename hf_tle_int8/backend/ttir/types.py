"""The types of TTIR."""

from dataclasses import dataclass

FLOAT_BITS = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}


@dataclass(frozen=True)
class IntegerType:
    """``i1`` … ``i64``; ``index`` is read as 64 bits. Without sign, as in MLIR: the operations decide."""

    bits: int

    def __str__(self) -> str:
        return f"i{self.bits}"


@dataclass(frozen=True)
class FloatType:
    """``f16``, ``bf16``, ``f32`` or ``f64``."""

    name: str

    @property
    def bits(self) -> int:
        """The width of the type."""
        return FLOAT_BITS[self.name]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class PointerType:
    """``!tt.ptr<pointee>``."""

    pointee: "Type"

    @property
    def bits(self) -> int:
        """The width of an address."""
        return 64

    def __str__(self) -> str:
        return f"!tt.ptr<{self.pointee}>"


@dataclass(frozen=True)
class TensorType:
    """``tensor<16x32xf32>``; every extent is known."""

    shape: tuple[int, ...]
    element: "ScalarType"

    @property
    def size(self) -> int:
        """The number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    def __str__(self) -> str:
        return f"tensor<{''.join(f'{extent}x' for extent in self.shape)}{self.element}>"


@dataclass(frozen=True)
class FunctionType:
    """``(inputs) -> outputs``."""

    inputs: tuple["Type", ...]
    outputs: tuple["Type", ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"


@dataclass(frozen=True)
class OpaqueType:
    """A type that nothing here computes with, kept as text so that an error can name it."""

    text: str

    def __str__(self) -> str:
        return self.text


ScalarType = IntegerType | FloatType | PointerType | OpaqueType
Type = ScalarType | TensorType | FunctionType
