"""Pointer arithmetic, loads and stores."""

from collections.abc import Sequence

from hf_tle_int8.backend.ir import Operand
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering, last_dimension_bits, tensor_bits
from hf_tle_int8.backend.lowering.types import pointee_type
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.chunks import Chunks, fits_registers, for_each_chunk, lane_bits, make_indexable
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.memory import Loaded, store
from hf_tle_int8.backend.tensors.values import Splat, Tensor
from hf_tle_int8.backend.ttir import Operation, TensorType, Value


def _address(lowering: Lowering, pointer: Value) -> Address:
    tensor = lowering.tensor(pointer)
    return tensor if isinstance(tensor, Address) else Address(tensor, (), pointee_type(pointer.type), tensor.bits)


def _add_pointer(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    pointer, offset = operation.operands
    if not isinstance(pointer.type, TensorType):
        return [lowering.f.offset(lowering.scalar(pointer), lowering.scalar(offset), pointee_type(pointer.type))]
    address, count = _address(lowering, pointer), lowering.tensor(offset)
    if isinstance(count, Splat) and isinstance(address.base, Operand):
        base = lowering.f.offset(address.base, count.scalar, address.pointee)
        return [Address(base, address.offsets, address.pointee, address.bits)]
    return [Address(address.base, (*address.offsets, count), address.pointee, address.bits)]


def _scalar_address(lowering: Lowering, pointer: Value) -> Address:
    return Address(lowering.scalar(pointer), (), pointee_type(pointer.type), 0)


def _tensor_or_splat(lowering: Lowering, values: Sequence[Value]) -> Tensor | None:
    if not values:
        return None
    lowered = lowering.lowered(values[0])
    return Splat(lowered, 0) if isinstance(lowered, Operand) else lowered


def _load(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    (pointer,), masks, others = operation.operand_segments()
    mask, other = _tensor_or_splat(lowering, masks), _tensor_or_splat(lowering, others)
    if isinstance(pointer.type, TensorType):
        return [Loaded(_address(lowering, pointer), mask, other)]
    return [lowering.e.at(Loaded(_scalar_address(lowering, pointer), mask, other), Index(()))]


def _store(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    pointer, value, *masks = operation.operands
    mask = _tensor_or_splat(lowering, masks)
    if isinstance(pointer.type, TensorType):
        _store_tensor(lowering, pointer, lowering.tensor(value), mask)
    else:
        store(lowering.e, _scalar_address(lowering, pointer), Index(()), lowering.scalar(value), mask)
    return []


def _store_tensor(lowering: Lowering, pointer: Value, value: Tensor, mask: Tensor | None) -> None:
    address, bits = _address(lowering, pointer), tensor_bits(pointer)
    lanes = lane_bits(lowering.target, value.element, bits)
    e = lowering.e

    def write(indices: Sequence[Index]) -> None:
        vectors = [e.at(value, index) for index in indices]
        for index, vector in zip(indices, vectors, strict=True):
            store(e, address, index, vector, mask)

    masks = () if mask is None else (mask,)
    chunks = Chunks([address, value], write, masks)
    with e.scope():
        if fits_registers(lowering.target, value.element, bits):
            chunks.write(e, (0,) * bits, lanes, bits)
        else:
            make_indexable(e, [address, value, *masks])
            for_each_chunk(e, bits, lanes, last_dimension_bits(pointer), chunks)


MEMORY_OPERATIONS: dict[str, Handler] = {
    "tt.addptr": _add_pointer,
    "tt.load": _load,
    "tt.store": _store,
}
