"""Tile registers of AMX: matrices of 16 rows of 64 bytes, which go to and from memory at any distance of rows.

Intel 64 and IA-32 Architectures Optimization Reference Manual, chapter on AMX. LLVM configures the registers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_tle_int8.backend.casts import integer_cast
from hf_tle_int8.backend.ir import I16, I32, I64, FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.tensors.index import Index, Lane, Source
from hf_tle_int8.backend.tensors.memory import Loaded, store
from hf_tle_int8.backend.tensors.reordered import Reordered
from hf_tle_int8.backend.tensors.stored import Spillable, literal_chunks
from hf_tle_int8.backend.tensors.strides import Stride, strides
from hf_tle_int8.backend.tensors.values import Evaluator, Splat, Tensor, View

TILE = IRType("x86_amx")
ROW_BITS = 4
_ROW_BYTES = 64
_SHAPE = (constant(I16, 1 << ROW_BITS), constant(I16, _ROW_BYTES))


def multiply_add(f: FunctionBuilder, sums: Operand, rows: Operand, columns: Operand) -> Operand:
    """TDPBSSD: int32 ``sums [16, 16]`` and the products of int8 ``rows [16, 64]`` and ``columns [64 / 4, 16, 4]``."""
    return f.call("llvm.x86.tdpbssd.internal", TILE, *_SHAPE, _SHAPE[1], sums, rows, columns)


def is_tile(e: Evaluator, tensor: Tensor, index: Index) -> bool:
    """Whether the elements at ``index`` are rows of 64 bytes of memory, all as far from each other."""
    return _place(e, tensor, index) is not None


def load_tile(e: Evaluator, tensor: Tensor, index: Index) -> Operand:
    """The elements at ``index``, for which `is_tile` holds; the upper bits of the lane's number are that of the row."""
    found = _place(e, tensor, index)
    assert found is not None
    loaded, inner, distance = found
    pointer = e.at(loaded.address, inner.first_lane)
    bytes_apart = _bytes(e.f, distance, loaded.element.bits // 8)
    return e.f.call("llvm.x86.tileloadd64.internal", TILE, *_SHAPE, pointer, bytes_apart)


def zero_tile(f: FunctionBuilder) -> Operand:
    """Zeros."""
    return f.call("llvm.x86.tilezero.internal", TILE, *_SHAPE)


def store_tile(f: FunctionBuilder, tile: Operand, pointer: Operand) -> None:
    """Write the rows of a tile behind each other."""
    f.call_procedure("llvm.x86.tilestored64.internal", *_SHAPE, pointer, constant(I64, _ROW_BYTES), tile)


@dataclass(eq=False)
class TileSums(Spillable):
    """int32 in tile registers.

    Attributes:
        tiles: their registers.
        layout: bits of the element number: those of the lane's number first, then those of the tile's.
    """

    tiles: Sequence[Operand]
    layout: Sequence[int]
    element: IRType = I32
    bits: int = field(init=False)

    def __post_init__(self) -> None:
        self.bits = len(self.layout)

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        return e.at(e.in_memory(self, self.spilled), index)

    def spilled(self, e: Evaluator) -> Tensor:
        """A copy in memory."""
        place = e.f.allocate(I32, 1 << self.bits)
        for number, tile in enumerate(self.tiles):
            store_tile(e.f, tile, _part(e.f, place, number))
        return Reordered(place, I32, self.layout)


def sums_of(e: Evaluator, tensor: Tensor, layout: Sequence[int], count: int) -> list[Operand]:
    """A tensor of int32 in ``count`` tiles; ``layout`` as in `TileSums`."""
    if is_zero(tensor):
        return [zero_tile(e.f) for _ in range(count)]
    place = Reordered(e.f.allocate(I32, 1 << tensor.bits), I32, layout)
    rows = literal_chunks(tensor.bits, ROW_BITS, layout), literal_chunks(tensor.bits, ROW_BITS)
    for index, to in zip(*rows, strict=True):
        store(e, place.address, to, e.at(tensor, index), None)
    step = constant(I64, _ROW_BYTES)
    parts = [_part(e.f, place.place, number) for number in range(count)]
    return [e.f.call("llvm.x86.tileloadd64.internal", TILE, *_SHAPE, part, step) for part in parts]


def is_zero(tensor: Tensor) -> bool:
    """Whether the tensor is known to be zeros."""
    return isinstance(tensor, Splat) and tensor.scalar.text == "0"


def _part(f: FunctionBuilder, place: Operand, number: int) -> Operand:
    return f.offset(place, constant(I64, number << (ROW_BITS + ROW_BITS)), I32)


def _place(e: Evaluator, tensor: Tensor, index: Index) -> tuple[Loaded, Index, Sequence[Stride]] | None:
    """What is loaded, at which index, and how far rows are from each other in elements."""
    while not isinstance(tensor, Loaded):
        view = tensor.view if isinstance(tensor, Reordered) else tensor
        if not isinstance(view, View):
            return None
        index, lanes = index.mapped(view.source_bits)
        if lanes is not None:
            return None
        tensor = view.source
    if tensor.mask is not None:
        return None
    in_row = index.lane_bits - ROW_BITS
    within = Index(_without_rows(index.sources, in_row), in_row)
    distance = strides(tensor.address, index, in_row)
    return None if distance is None or not tensor.address.is_contiguous(e, within) else (tensor, index, distance)


def _without_rows(sources: Sequence[Source], in_row: int) -> tuple[Source, ...]:
    return tuple(0 if isinstance(source, Lane) and source.number >= in_row else source for source in sources)


def _bytes(f: FunctionBuilder, distance: Sequence[Stride], element_bytes: int) -> Operand:
    total = constant(I64, sum(s.factor for s in distance if s.unit is None) * element_bytes)
    for stride in distance:
        if stride.unit is not None:
            wide = integer_cast(f, True, stride.unit, I64)
            scaled = f.binary("mul", wide, constant(I64, stride.factor * element_bytes))
            total = f.binary("add", total, scaled)
    return total
