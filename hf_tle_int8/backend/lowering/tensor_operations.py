"""Constants, ranges, views and elementwise operations, on scalars and tensors."""

from collections.abc import Sequence

from hf_tle_int8.backend.ir import FunctionBuilder, Operand, constant
from hf_tle_int8.backend.lowering.elementwise import ELEMENTWISE, lower_elementwise
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering, tensor_bits
from hf_tle_int8.backend.lowering.indices import index_tensor
from hf_tle_int8.backend.lowering.types import ir_type, pointee_type
from hf_tle_int8.backend.tensors import affine
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.index import Index, bits_of, dimension_bits
from hf_tle_int8.backend.tensors.joined import Half, Joined
from hf_tle_int8.backend.tensors.stored import Literal
from hf_tle_int8.backend.tensors.values import Splat, Tensor, View
from hf_tle_int8.backend.ttir import DenseElements, Operation, TensorType


def _constant(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    value, kind = operation.attributes["value"], ir_type(operation.result.type)
    if not isinstance(value, DenseElements):
        return [constant(kind, value)]
    bits = tensor_bits(operation.result)
    if value.is_splat:
        return [Splat(constant(kind, value.values[0]), bits)]
    return [Literal(kind, value.values, bits)]


def _make_range(_: Lowering, operation: Operation) -> Sequence[Lowered]:
    bits = tensor_bits(operation.result)
    return [affine.make_range(operation.attributes["start"], bits, ir_type(operation.result.type))]


def _splat(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    scalar, bits = lowering.scalar(operation.operands[0]), tensor_bits(operation.result)
    if scalar.type.base == "ptr":
        return [Address(scalar, (), pointee_type(operation.operands[0].type), bits)]
    return [Splat(scalar, bits)]


def _program(offset: int) -> Handler:
    return lambda lowering, operation: [lowering.grid[offset + operation.attributes["axis"]]]


def _view(source_bits: Sequence[int | None], source: Tensor, bits: int) -> Tensor:
    if isinstance(source, Splat):
        return Splat(source.scalar, bits)
    if isinstance(source, affine.Affine):
        return affine.viewed(source, source_bits, bits)
    if isinstance(source, Address):
        base = source.base if isinstance(source.base, Operand) else _view(source_bits, source.base, bits)
        offsets = tuple(_view(source_bits, offset, bits) for offset in source.offsets)
        return Address(base, offsets, source.pointee, bits)
    return View(source, source_bits, bits)


def _same_elements(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    """``tt.expand_dims`` and ``tt.reshape``: row-major element numbers stay."""
    bits = tensor_bits(operation.result)
    return [_view(range(bits), lowering.tensor(operation.operands[0]), bits)]


def _broadcast(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    source_type, result_type = operation.operands[0].type, operation.result.type
    assert isinstance(source_type, TensorType)
    assert isinstance(result_type, TensorType)
    bits: list[int] = []
    for extent, target in reversed([*zip(source_type.shape, dimension_bits(result_type.shape), strict=True)]):
        bits += target if bits_of(extent) else ()
    return [_view(bits, lowering.tensor(operation.operands[0]), tensor_bits(operation.result))]


def _transpose(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    """Dimension ``order[i]`` of the source is dimension i of the result."""
    result_type, order = operation.result.type, operation.attributes["order"]
    assert isinstance(result_type, TensorType)
    dimensions = dimension_bits(result_type.shape)
    source_bits: list[int] = []
    for dimension in reversed(range(len(order))):
        source_bits += dimensions[order.index(dimension)]
    return [_view(source_bits, lowering.tensor(operation.operands[0]), tensor_bits(operation.result))]


def _join(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    """``tt.join``: the new last dimension chooses."""
    first, second = (lowering.tensor(value) for value in operation.operands)
    return [Joined((first, second), 0)]


def _concatenate(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    """``tt.cat``: the upper half of the first dimension is the second tensor."""
    first, second = (lowering.tensor(value) for value in operation.operands)
    return [Joined((first, second), first.bits)]


def _split(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    source = lowering.tensor(operation.operands[0])
    return [_half(lowering, source, number) for number in range(2)]


def _half(lowering: Lowering, source: Tensor, number: int) -> Tensor:
    bits = source.bits - 1
    if isinstance(source, Splat):
        return Splat(source.scalar, bits)
    if isinstance(source, affine.Affine):
        base = lowering.e.at(source, Index((number, *[0] * bits)))
        return affine.viewed(affine.Affine(base, source.terms, source.bits), [None, *range(bits)], bits)
    if isinstance(source, Address):
        base_half = source.base if isinstance(source.base, Operand) else _half(lowering, source.base, number)
        offsets = tuple(_half(lowering, offset, number) for offset in source.offsets)
        return Address(base_half, offsets, source.pointee, bits)
    return Half(source, number)


def _elementwise(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    operands = [lowering.lowered(value) for value in operation.operands]
    if not isinstance(operation.result.type, TensorType):
        return [lower_elementwise(lowering.f, operation, [o for o in operands if isinstance(o, Operand)])]
    bits = tensor_bits(operation.result)
    tensors = [Splat(operand, bits) if isinstance(operand, Operand) else operand for operand in operands]
    if all(isinstance(tensor, Splat) for tensor in tensors):
        scalars = [tensor.scalar for tensor in tensors if isinstance(tensor, Splat)]
        return [Splat(lower_elementwise(lowering.f, operation, scalars), bits)]
    folded = _folded(lowering.f, operation, tensors)
    if folded is not None:
        return [folded]

    def emit(f: FunctionBuilder, vectors: Sequence[Operand]) -> Operand:
        return lower_elementwise(f, operation, vectors)

    return [index_tensor(operation, ir_type(operation.result.type), bits, tensors, emit)]


def _folded(f: FunctionBuilder, operation: Operation, operands: Sequence[Tensor]) -> Tensor | None:
    """Sums and products of integers that are affine in the indices are so themselves."""
    if operation.name not in ("arith.addi", "arith.subi", "arith.muli"):
        return None
    a, b = (affine.as_affine(operand) for operand in operands)
    if a is None or b is None or a.element.bits == 1:
        return None
    if operation.name == "arith.addi":
        return affine.add(f, a, b)
    if operation.name == "arith.subi":
        return affine.add(f, a, affine.multiply(f, b, constant(b.element, -1)))
    if a.terms and b.terms:
        return None
    return affine.multiply(f, *((a, b.base) if a.terms else (b, a.base)))


TENSOR_OPERATIONS: dict[str, Handler] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "arith.constant": _constant,
    "tt.make_range": _make_range,
    "tt.splat": _splat,
    "tt.get_program_id": _program(0),
    "tt.get_num_programs": _program(3),
    "tt.expand_dims": _same_elements,
    "tt.reshape": _same_elements,
    "tt.broadcast": _broadcast,
    "tt.trans": _transpose,
    "tt.join": _join,
    "tt.cat": _concatenate,
    "tt.split": _split,
}
