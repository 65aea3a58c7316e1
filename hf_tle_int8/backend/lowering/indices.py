"""Elementwise operations as tensors, which for arithmetic of indices know what that means for memory."""

from collections.abc import Callable, Sequence

from hf_tle_int8.backend.ir import FunctionBuilder, IRType, Operand
from hf_tle_int8.backend.lowering.elementwise import INTEGER_PREDICATES
from hf_tle_int8.backend.tensors.arithmetic import Comparison, Conjunction, ExclusiveOr, Extension, Remainder, Sum
from hf_tle_int8.backend.tensors.values import Elementwise, Tensor
from hf_tle_int8.backend.ttir import Operation

_KINDS: dict[str, type[Elementwise]] = {
    "arith.addi": Sum,
    "arith.andi": Conjunction,
    "arith.xori": ExclusiveOr,
    "arith.extsi": Extension,
    "arith.extui": Extension,
    "arith.remsi": Remainder,
    "arith.remui": Remainder,
}


def index_tensor(
    operation: Operation,
    element: IRType,
    bits: int,
    operands: Sequence[Tensor],
    emit: Callable[[FunctionBuilder, Sequence[Operand]], Operand],
) -> Elementwise:
    """The result of an elementwise operation, see `Elementwise`."""
    if operation.name == "arith.cmpi":
        return Comparison(element, bits, operands, emit, INTEGER_PREDICATES[operation.attributes["predicate"]])
    return _KINDS.get(operation.name, Elementwise)(element, bits, operands, emit)
