"""In which order the elements of a tensor are gone through, so that memory is read and written by whole vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.guards import reached
from hf_tle_int8.backend.tensors.index import Index, Lane, Source
from hf_tle_int8.backend.tensors.memory import Loaded
from hf_tle_int8.backend.tensors.values import Evaluator, Tensor

# Vectors that are computed together, as a power of two: independent work for the CPU.
_TOGETHER_BITS = 2
# Vectors of a tile, as a power of two: no more than there are registers.
_TILE_BITS = 4


@dataclass(frozen=True)
class Order:
    """An order of elements.

    Attributes:
        bits: those of the element's number, in the order of: the lane's number, the vectors that are computed together,
            the innermost loop, the loop around it.
        lanes: how many of them are the lane's.
        together: how many are the lane's and those of vectors computed together.
        split: how many come before those of the outer loop.
    """

    bits: Sequence[int]
    lanes: int
    together: int
    split: int

    def index(self, sources: Sequence[Source], lanes: int) -> Index:
        """The index whose sources are given in this order."""
        return Index(tuple(source for _, source in sorted(zip(self.bits, sources, strict=True), key=_bit)), lanes)


def row_major_order(bits: int, lanes: int, inner: int) -> Order:
    """Row-major, with a loop of its own for the ``inner`` bits of the last dimension."""
    together = min(lanes + _TOGETHER_BITS, bits)
    return Order(range(bits), lanes, together, min(max(inner, together), bits))


def order_for(
    e: Evaluator, tensors: Sequence[Tensor], written: Address | None, bits: int, lanes: int, inner: int
) -> Order:
    """The order in which to compute ``tensors`` and write to ``written`` (None: memory that is row-major).

    Lanes follow what is written. Where something is read that is contiguous along other bits, these are the vectors
    that are computed together: `Loaded` reads and transposes tiles.
    """
    low = next((low for low in _places(bits, lanes) if written is None or _follows(e, written, low, bits, lanes)), 0)
    other = _tile(e, tensors, low, bits, min(lanes, _TILE_BITS))
    if other is not None:
        size = len(other)
        first = [*range(low, low + size), *other]
        return Order(first + [bit for bit in range(bits) if bit not in first], size, 2 * size, bits)
    if low == 0:
        return row_major_order(bits, lanes, inner)
    first = list(range(low, low + lanes))
    rest = [bit for bit in range(bits) if bit not in first]
    return Order(first + rest, lanes, min(lanes + _TOGETHER_BITS, bits), bits)


def _tile(e: Evaluator, tensors: Sequence[Tensor], low: int, bits: int, size: int) -> range | None:
    """The bits along which something is read by vectors that is not so along those from ``low``."""
    scattered = {load for load, index in _loads(tensors, _run(low, size, bits)) if not _is_vector(e, load, index)}
    for other in _places(bits, size):
        if other < low + size and low < other + size:
            continue
        if any(load in scattered and _is_vector(e, load, at) for load, at in _loads(tensors, _run(other, size, bits))):
            return range(other, other + size)
    return None


def _places(bits: int, lanes: int) -> range:
    return range(bits - lanes + 1)


def _run(low: int, lanes: int, bits: int) -> Index:
    """Lanes along the bits from ``low``, for the first of the other elements."""
    return Index(tuple(Lane(bit - low) if low <= bit < low + lanes else 0 for bit in range(bits)), lanes)


def _follows(e: Evaluator, address: Address, low: int, bits: int, lanes: int) -> bool:
    return address.is_contiguous(e, _run(low, lanes, bits))


def _loads(tensors: Sequence[Tensor], index: Index) -> list[tuple[Loaded, Index]]:
    return [(tensor, place) for tensor, place in reached(tensors, index) if isinstance(tensor, Loaded)]


def _is_vector(e: Evaluator, load: Loaded, index: Index) -> bool:
    return not load.address.varies(index) or load.address.is_contiguous(e, index)


def _bit(pair: tuple[int, Source]) -> int:
    return pair[0]
