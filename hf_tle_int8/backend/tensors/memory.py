"""Loads and stores through tensors of pointers: whole vectors where lanes are neighbours in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_tle_int8.backend.casts import NARROW, integer_cast
from hf_tle_int8.backend.ir import I1, I16, I64, PTR, FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.tensors.affine import as_affine, make_range
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.shuffles import concatenate
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor


@dataclass(eq=False)
class Address(Tensor):
    """Pointers: a scalar or a tensor of them, and offsets in elements of ``pointee``, extended by sign and added.

    Within one tensor, an affine offset is taken not to wrap between lanes, as Triton's own analysis of contiguity does.
    """

    base: Operand | Tensor
    offsets: tuple[Tensor, ...]
    pointee: IRType
    bits: int
    element: IRType = PTR

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The pointers at ``index``."""
        f = e.f
        pointer = self.base if isinstance(self.base, Operand) else e.at(self.base, index)
        for offset in self.offsets:
            pointer = f.offset(pointer, integer_cast(f, True, e.at(offset, index), I64), self.pointee)
        return pointer

    def varies(self, index: Index) -> bool:
        """Where the base or an offset does."""
        base_varies = isinstance(self.base, Tensor) and self.base.varies(index)
        return base_varies or any(offset.varies(index) for offset in self.offsets)

    @property
    def parts(self) -> Sequence[Tensor]:
        """Base and offsets."""
        return (*((self.base,) if isinstance(self.base, Tensor) else ()), *self.offsets)

    def neighbours(self, e: Evaluator, index: Index) -> tuple[Operand, list[int]] | None:
        """The pointer of lane 0 and the distance of each lane to it in elements; None where these are not literals."""
        distances = self.distances(index)
        if distances is None:
            return None
        f, first = e.f, index.first_lane
        pointer = self.base if isinstance(self.base, Operand) else e.at(self.base, first)
        for offset in self.offsets:
            pointer = f.offset(pointer, integer_cast(f, True, e.at(offset, first), I64), self.pointee)
        return pointer, distances

    def distances(self, index: Index) -> list[int] | None:
        """The distance of each lane to lane 0 in elements; None where these are not literals."""
        if isinstance(self.base, Tensor) and self.base.varies(index):
            return None
        distances = np.zeros(index.lanes, np.int64)
        for offset in self.offsets:
            literal = _literal_lanes(offset, index)
            if literal is None:
                return None
            distances += literal
        return distances.tolist()


def _literal_lanes(offset: Tensor, index: Index) -> np.ndarray | None:
    """The distance of each lane's offset to that of lane 0, where it is literal."""
    if not offset.varies(index):
        return np.zeros(index.lanes, np.int64)
    affine = as_affine(offset)
    if affine is None:
        return None
    total = np.zeros(index.lanes, np.int64)
    for term in affine.terms:
        literal = index.weighted(term.coefficients)
        if term.stride is None:
            total += literal - literal[0]
        elif np.ptp(literal):
            return None
    return total


@dataclass(eq=False)
class Loaded(Tensor):
    """What memory holds, read whenever it is asked for; ``other`` where ``mask`` is false, or anything without it."""

    address: Address
    mask: Tensor | None = None
    other: Tensor | None = None

    @property
    def element(self) -> IRType:  # type: ignore[override]
        """The type that the pointers point to."""
        return self.address.pointee

    @property
    def bits(self) -> int:  # type: ignore[override]
        """log2 of the number of pointers."""
        return self.address.bits

    def varies(self, index: Index) -> bool:
        """Where pointers, mask or replacement do."""
        return any(part.varies(index) for part in self.parts)

    @property
    def parts(self) -> Sequence[Tensor]:
        """Pointers, mask and replacement."""
        return [part for part in (self.address, self.mask, self.other) if part is not None]

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``, loaded."""
        if self.element in NARROW:
            return e.f.cast("bitcast", self._as_integers().compute(e, index), self.element)
        kind = self.element.vector(index.lanes if index.lane_bits else 0)
        if self.mask is None:
            return self._plain(e, index)
        other = Operand(kind, "poison") if self.other is None else e.at(self.other, index)
        if not self.mask.varies(index):
            return self._all_or_none(e, index, e.at(self.mask, index.first_lane), other)
        mask = e.at(self.mask, index)
        place = self.address.neighbours(e, index)
        if place is not None and place[1] == list(range(index.lanes)):
            return e.f.call(f"llvm.masked.load.{kind.mangled}.p0", kind, place[0], mask, other)
        return _gather(e.f, kind, e.at(self.address, index), mask, other)

    def _as_integers(self) -> "Loaded":
        """16-bit floats as integers: where a CPU lacks them, LLVM would move them through calls that round."""
        address = Address(self.address.base, self.address.offsets, I16, self.bits)
        if self.other is None:
            return Loaded(address, self.mask)
        other = Elementwise(I16, self.bits, [self.other], lambda f, operands: f.cast("bitcast", operands[0], I16))
        return Loaded(address, self.mask, other)

    def _plain(self, e: Evaluator, index: Index) -> Operand:
        place = self.address.neighbours(e, index)
        if place is not None:
            return _load_lanes(e.f, self.element, *place)
        kind = self.element.vector(index.lanes)
        everything = constant(I1.vector(index.lanes), 1)
        return _gather(e.f, kind, e.at(self.address, index), everything, Operand(kind, "poison"))

    def _all_or_none(self, e: Evaluator, index: Index, condition: Operand, other: Operand) -> Operand:
        f = e.f
        inside, behind = f.label("load"), f.label("loaded")
        before = f.current
        f.branch(condition, inside, behind)
        f.place(inside)
        with e.scope():
            value = self._plain(e, index)
        after = f.current
        f.jump(behind)
        f.place(behind)
        result = f.phi(value.type)
        f.add_incoming(result, other, before)
        f.add_incoming(result, value, after)
        return result


def store(e: Evaluator, address: Address, index: Index, value: Operand, mask: Tensor | None) -> None:
    """Store a vector (or scalar) to the pointers at ``index``, where ``mask`` is true."""
    f = e.f
    if value.type.scalar in NARROW:
        value = f.cast("bitcast", value, I16)
    if mask is not None and not mask.varies(index):
        inside, behind = f.label("store"), f.label("stored")
        f.branch(e.at(mask, index.first_lane), inside, behind)
        f.place(inside)
        with e.scope():
            store(e, address, index, value, None)
        f.jump(behind)
        f.place(behind)
        return
    place = address.neighbours(e, index)
    if mask is None and place is not None:
        _store_lanes(f, value, *place)
        return
    lanes = constant(I1.vector(index.lanes), 1) if mask is None else e.at(mask, index)
    if place is not None and place[1] == list(range(index.lanes)):
        f.call_procedure(f"llvm.masked.store.{value.type.mangled}.p0", value, place[0], lanes)
        return
    pointers = e.at(address, index)
    f.call_procedure(f"llvm.masked.scatter.{value.type.mangled}.{pointers.type.mangled}", value, pointers, lanes)


def _gather(f: FunctionBuilder, kind: IRType, pointers: Operand, mask: Operand, other: Operand) -> Operand:
    name = f"llvm.masked.gather.{kind.mangled}.{pointers.type.mangled}"
    return f.call(name, kind, pointers, mask, other)


def _load_lanes(f: FunctionBuilder, element: IRType, pointer: Operand, distances: Sequence[int]) -> Operand:
    """Lane i from ``distances[i]`` elements behind ``pointer``; nothing else is read."""
    low, high = min(distances), max(distances)
    count = high - low + 1
    if len(set(distances)) < count:
        half = len(distances) // 2
        parts = (_load_lanes(f, element, pointer, part) for part in (distances[:half], distances[half:]))
        return concatenate(f, *parts)
    start = f.offset(pointer, constant(I64, low), element) if low else pointer
    if count == 1:
        scalar = f.load(element, start)
        return f.splat(scalar, len(distances)) if len(distances) > 1 else scalar
    vector = f.load(element.vector(count), start)
    lanes = [distance - low for distance in distances]
    return vector if lanes == list(range(count)) else f.shuffle(vector, None, lanes)


def _store_lanes(f: FunctionBuilder, value: Operand, pointer: Operand, distances: Sequence[int]) -> None:
    """Lane i to ``distances[i]`` elements behind ``pointer``; of lanes for one place, the last is kept."""
    element, count = value.type.scalar, len(distances)
    start = f.offset(pointer, constant(I64, distances[0]), element) if distances[0] else pointer
    if count == 1 or list(distances) == list(range(distances[0], distances[0] + count)):
        f.store(value, start)
        return
    half = count // 2
    for lanes in (range(half), range(half, count)):
        part = f.shuffle(value, None, lanes) if half > 1 else f.extract(value, lanes[0])
        _store_lanes(f, part, pointer, [distances[lane] for lane in lanes])


def row_major(pointer: Operand, element: IRType, bits: int) -> Loaded:
    """A tensor that lies in memory, its elements in order."""
    return Loaded(Address(pointer, (make_range(0, bits, I64),), element, bits))
