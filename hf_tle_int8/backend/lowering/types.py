"""Types of TTIR as types of LLVM IR."""

from hf_tle_int8.backend.ir import PTR, IRType
from hf_tle_int8.backend.ttir import FloatType, IntegerType, PointerType, TensorType, Type

_FLOATS = {"f16": "half", "bf16": "bfloat", "f32": "float", "f64": "double"}


def ir_type(kind: Type) -> IRType:
    """The scalar LLVM type of ``kind``, or of its elements where it is a tensor.

    Raises:
        TypeError: nothing computes with such a value.
    """
    element = kind.element if isinstance(kind, TensorType) else kind
    if isinstance(element, IntegerType):
        return IRType(f"i{element.bits}")
    if isinstance(element, FloatType):
        return IRType(_FLOATS[element.name])
    if isinstance(element, PointerType):
        return PTR
    raise TypeError(f"values of type {kind} are not supported on CPUs.")


def pointee_type(kind: Type) -> IRType:
    """The scalar LLVM type of what a pointer, or each of a tensor of pointers, points to."""
    element = kind.element if isinstance(kind, TensorType) else kind
    assert isinstance(element, PointerType)
    return ir_type(element.pointee)
