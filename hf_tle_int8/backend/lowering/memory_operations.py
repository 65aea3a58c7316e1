"""Pointer arithmetic, loads and stores."""

from collections.abc import Sequence
from dataclasses import replace

from hf_tle_int8.backend.ir import Operand
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering, last_dimension_bits
from hf_tle_int8.backend.lowering.tensor_operations import TENSOR_OPERATIONS
from hf_tle_int8.backend.lowering.types import pointee_type
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.aliasing import may_interleave
from hf_tle_int8.backend.tensors.branches import choose
from hf_tle_int8.backend.tensors.chunks import (
    Chunks,
    fits_registers,
    for_each_chunk,
    in_memory,
    lane_bits,
    make_indexable,
)
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.memory import Loaded, store
from hf_tle_int8.backend.tensors.orders import Order, order_for
from hf_tle_int8.backend.tensors.stored import stored_type
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


def _bitcast(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    """``tt.bitcast``; neighbours in memory stay neighbours where the pointee keeps its size."""
    (source,), result = operation.operands, operation.result
    address = lowering.lowered(source)
    if not isinstance(address, Address):
        return TENSOR_OPERATIONS["tt.bitcast"](lowering, operation)
    pointee = pointee_type(result.type)
    if stored_type(pointee).bits == stored_type(address.pointee).bits:
        return [replace(address, pointee=pointee)]
    return [Address(address, (), pointee, address.bits)]


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
        _Store(lowering, pointer, lowering.tensor(value), mask).write()
    else:
        store(lowering.e, _scalar_address(lowering, pointer), Index(()), lowering.scalar(value), mask)
    return []


class _Store:
    """A store of a tensor."""

    def __init__(self, lowering: Lowering, pointer: Value, value: Tensor, mask: Tensor | None):
        self.lowering, self.e = lowering, lowering.e
        self.address, self.value, self.mask = _address(lowering, pointer), value, mask
        self.bits, self.inner = value.bits, last_dimension_bits(pointer)
        self.lanes = lane_bits(lowering.target, value.element, self.bits)

    def write(self) -> None:
        """Write the code, which loads what is to be stored as it goes where that gives the same."""
        if fits_registers(self.lowering.target, self.value.element, self.bits):
            with self.e.scope():
                order = Order(range(self.bits), self.lanes, self.bits, self.bits)
                self._chunks(self.value).write_together(self.e, order, (), self._staged)
            return
        condition = may_interleave(self.e, self.address, self.value)
        if condition is True:
            self._loop(self.value)
        elif condition is False:
            self._staged()
        else:
            choose(self.e, condition, lambda: self._loop(self.value), self._staged, likely=True)

    def _staged(self) -> Sequence[Operand]:
        """Compute all that is stored before any of it is."""
        return self._loop(in_memory(self.e, self.lowering.target, self.value, self.inner))

    def _loop(self, value: Tensor) -> Sequence[Operand]:
        chunks = self._chunks(value)
        with self.e.scope():
            make_indexable(self.e, [*chunks.tensors, *chunks.masks])
            order = order_for(self.e, [value], self.address, self.bits, self.lanes, self.inner)
            for_each_chunk(self.e, order, chunks)
        return ()

    def _chunks(self, value: Tensor) -> Chunks:
        def body(indices: Sequence[Index]) -> None:
            vectors = [self.e.at(value, index) for index in indices]
            for index, vector in zip(indices, vectors, strict=True):
                store(self.e, self.address, index, vector, self.mask)

        return Chunks([self.address, value], body, () if self.mask is None else (self.mask,))


MEMORY_OPERATIONS: dict[str, Handler] = {
    "tt.addptr": _add_pointer,
    "tt.bitcast": _bitcast,
    "tt.load": _load,
    "tt.store": _store,
}
