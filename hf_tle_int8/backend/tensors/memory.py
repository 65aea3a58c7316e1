"""Loads and stores through tensors of pointers: whole vectors where lanes are neighbours in memory."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_tle_int8.backend.casts import NARROW
from hf_tle_int8.backend.ir import I1, I16, I64, FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.affine import make_range
from hf_tle_int8.backend.tensors.branches import choose
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.lane_loops import load_passing_lanes, store_passing_lanes
from hf_tle_int8.backend.tensors.scattered import gather, scatter
from hf_tle_int8.backend.tensors.shuffles import concatenate
from hf_tle_int8.backend.tensors.tiles import read_tile
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor


@dataclass(eq=False)
class Loaded(Tensor):
    """What memory holds, read whenever it is asked for; ``other`` where ``mask`` is false, or anything without it.

    Attributes:
        own: whether the memory is the kernel's own, which no pointer of the kernel leads to.
    """

    address: Address
    mask: Tensor | None = None
    other: Tensor | None = None
    own: bool = False

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

    @property
    def assumption(self) -> Tensor | None:
        """The mask."""
        return self.mask

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``, loaded."""
        if self.element in NARROW:
            return e.f.cast("bitcast", self._as_integers.compute(e, index), self.element)
        kind = self.element.vector(index.lanes if index.lane_bits else 0)
        assumed = True if self.mask is None else e.assumed(self.mask)
        if assumed:
            tile = read_tile(e, self, self.address, index)
            return self._plain(e, index, kind) if tile is None else tile
        other = Operand(kind, "poison") if self.other is None else e.at(self.other, index)
        if assumed is False or self.mask is None:
            return other
        if not self.mask.varies(index):
            condition = e.at(self.mask, index.first_lane)
            return choose(e, condition, lambda: [self._plain(e, index, kind)], lambda: [other])[0]
        mask = e.at(self.mask, index)
        contiguous = self.address.is_contiguous(e, index)
        pointers = e.at(self.address, index.first_lane if contiguous else index)
        if not e.masked_memory:
            return load_passing_lanes(e.f, pointers, mask, other)
        if contiguous:
            return e.f.call(f"llvm.masked.load.{kind.mangled}.p0", kind, pointers, mask, other)
        return gather(e, kind, pointers, mask, other)

    def _plain(self, e: Evaluator, index: Index, kind: IRType) -> Operand:
        """The elements, and nothing else, whatever the mask."""
        place = self.address.neighbours(e, index)
        if place is not None:
            return _load_lanes(e.f, self.element, *place)
        everything = constant(I1.vector(index.lanes), 1)
        return gather(e, kind, e.at(self.address, index), everything, Operand(kind, "poison"))

    @functools.cached_property
    def _as_integers(self) -> "Loaded":
        """16-bit floats as integers: where a CPU lacks them, LLVM would move them through calls that round."""
        address = Address(self.address.base, self.address.offsets, I16, self.bits)
        if self.other is None:
            return Loaded(address, self.mask)
        other = Elementwise(I16, self.bits, [self.other], lambda f, operands: f.cast("bitcast", operands[0], I16))
        return Loaded(address, self.mask, other)


def store(e: Evaluator, address: Address, index: Index, value: Operand, mask: Tensor | None) -> None:
    """Store a vector (or scalar) to the pointers at ``index``, where ``mask`` is true."""
    f = e.f
    if value.type.scalar in NARROW:
        value = f.cast("bitcast", value, I16)
    assumed = True if mask is None else e.assumed(mask)
    if assumed is False:
        return
    if mask is None or assumed:
        place = address.neighbours(e, index)
        if place is not None:
            _store_lanes(f, value, *place)
        else:
            everything = constant(I1.vector(index.lanes), 1)
            scatter(e, value, e.at(address, index), everything)
        return
    if not mask.varies(index):
        _store_if(e, e.at(mask, index.first_lane), lambda: store(e, address, index, value, None))
        return
    passing = e.at(mask, index)
    some = f.call(f"llvm.vector.reduce.or.{passing.type.mangled}", I1, passing)
    _store_if(e, some, lambda: _store_masked(e, address, index, value, passing))


def _store_if(e: Evaluator, condition: Operand, write: Callable[[], None]) -> None:
    inside, behind = e.f.label("store"), e.f.label("stored")
    e.f.branch(condition, inside, behind)
    e.f.place(inside)
    with e.scope():
        write()
    e.f.jump(behind)
    e.f.place(behind)


def _store_masked(e: Evaluator, address: Address, index: Index, value: Operand, mask: Operand) -> None:
    contiguous = address.is_contiguous(e, index)
    pointers = e.at(address, index.first_lane if contiguous else index)
    if not e.masked_memory:
        store_passing_lanes(e.f, value, pointers, mask)
    elif contiguous:
        e.f.call_procedure(f"llvm.masked.store.{value.type.mangled}.p0", value, pointers, mask)
    else:
        scatter(e, value, pointers, mask)


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
    return Loaded(Address(pointer, (make_range(0, bits, I64),), element, bits), own=True)
