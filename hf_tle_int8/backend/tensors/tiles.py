"""Loads whose lanes are far apart, while other bits of the element's number run along memory: tiles, transposed."""

from collections.abc import Sequence

import numpy as np

from hf_tle_int8.backend.ir import FunctionBuilder, Operand
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.guards import assumptions
from hf_tle_int8.backend.tensors.index import Index, Lane, Source
from hf_tle_int8.backend.tensors.values import Evaluator, Tensor


def read_tile(e: Evaluator, tensor: Tensor, address: Address, index: Index) -> Operand | None:
    """The elements of ``tensor`` at ``index``, of a tile that is loaded by vectors and transposed.

    The rest of the tile, as many vectors as there are lanes, is remembered for those who ask for it.

    Args:
        e: where the code goes.
        tensor: what is loaded.
        address: from where.
        index: has literal sources for the bits of the tile, as indices of a tile that is computed together do.

    Returns:
        None where there is no such tile, or where some of it might not be allowed to be read.
    """
    along = _bits_along_memory(e, tensor, address, index) if _is_scattered(e, address, index) else None
    if along is None:
        return None
    lanes = {source: bit for bit, source in enumerate(index.sources) if isinstance(source, Lane)}
    across = [lanes[Lane(number)] for number in range(index.lane_bits)]
    rows = [_replaced(_row(index, along), across, _bits(number, index)) for number in range(index.lanes)]
    columns = transposed(e.f, [e.at(tensor, row) for row in rows])
    for number, column in enumerate(columns):
        e.remember(tensor, _replaced(index, along, _bits(number, index)), column)
    return e.at(tensor, index)


def transposed(f: FunctionBuilder, vectors: Sequence[Operand]) -> list[Operand]:
    """Vector i of lanes i of ``vectors``, of which there are as many as lanes: a step for each bit of i.

    Each step swaps one bit of the vector's number with one of the lane's (J. O. Eklundh, "A Fast Computer Method for
    Matrix Transposing", 1972).
    """
    rows = list(vectors)
    lanes = range(len(rows))
    for step in (1 << bit for bit in range(len(rows).bit_length() - 1)):
        for first in (row for row in lanes if not row & step):
            a, b = rows[first], rows[first | step]
            rows[first] = f.shuffle(a, b, [lane ^ step | len(rows) if lane & step else lane for lane in lanes])
            rows[first | step] = f.shuffle(a, b, [lane | len(rows) if lane & step else lane | step for lane in lanes])
    return rows


def _is_scattered(e: Evaluator, address: Address, index: Index) -> bool:
    """Whether no two lanes in a row could be in one vector."""
    place = address.distances(e, index)
    if place is None:
        return address.varies(index)
    return index.lanes > 1 and bool(np.all(np.abs(np.diff(place)) >= index.lanes))


def _bits_along_memory(e: Evaluator, tensor: Tensor, address: Address, index: Index) -> range | None:
    for low in range(len(index.sources) - index.lane_bits + 1):
        along = range(low, low + index.lane_bits)
        if not all(isinstance(index.sources[bit], int) for bit in along):
            continue
        if address.is_contiguous(e, _row(index, along)):
            return along if _may_be_read(e, tensor, index, along) else None
    return None


def _may_be_read(e: Evaluator, tensor: Tensor, index: Index, along: Sequence[int]) -> bool:
    """Whether masks and offsets are regular in all of the tile."""
    both = _replaced(index, along, [Lane(index.lane_bits + lane) for lane in range(index.lane_bits)])
    whole = Index(both.sources, 2 * index.lane_bits)
    return all(e.is_regular(part, place) for part, place in assumptions([tensor], whole))


def _row(index: Index, along: Sequence[int]) -> Index:
    """The first vector of the tile as memory has it."""
    return Index(_replaced(index.first_lane, along, list(map(Lane, range(index.lane_bits)))).sources, index.lane_bits)


def _bits(number: int, index: Index) -> list[Source]:
    return [number >> lane & 1 for lane in range(index.lane_bits)]


def _replaced(index: Index, bits: Sequence[int], sources: Sequence[Source]) -> Index:
    chosen = dict(zip(bits, sources, strict=True))
    return Index(tuple(chosen.get(bit, source) for bit, source in enumerate(index.sources)), index.lane_bits)
