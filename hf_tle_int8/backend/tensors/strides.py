"""How far elements are from each other in memory where that is the same for all neighbours, though perhaps unknown."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_tle_int8.backend.ir import Operand
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.affine import Affine
from hf_tle_int8.backend.tensors.arithmetic import Extension
from hf_tle_int8.backend.tensors.index import Index, Lane
from hf_tle_int8.backend.tensors.values import Tensor


@dataclass(frozen=True)
class Stride:
    """``factor`` times ``unit``, a scalar integer; a unit of None is 1."""

    unit: Operand | None
    factor: int


def strides(address: Address, index: Index, first: int) -> Sequence[Stride] | None:
    """What lies between neighbours if lanes are numbered from their bit ``first`` on: the sum of these, in elements.

    None where neighbours are not known to be equally far from each other.
    """
    if isinstance(address.base, Tensor) and address.base.varies(index):
        return None
    found: list[Stride] = []
    for offset in address.offsets:
        inner = _affine(offset)
        if inner is None:
            if offset.varies(index):
                return None
            continue
        for term in inner.terms:
            steps = _steps(term.coefficients, index, first)
            if steps is None:
                return None
            found += [Stride(term.stride, steps)] if steps else []
    return found


def _affine(offset: Tensor) -> Affine | None:
    """An offset as an affine one: within a tensor, offsets are taken not to wrap between lanes, see `Address`."""
    while isinstance(offset, Extension):
        offset = offset.operands[0]
    return offset if isinstance(offset, Affine) else None


def _steps(coefficients: Sequence[int], index: Index, first: int) -> int | None:
    """By how much a sum grows from a lane to the next one; None where not always by as much."""
    by_lane = dict.fromkeys(range(first, index.lane_bits), 0)
    for source, coefficient in zip(index.sources, coefficients, strict=True):
        if isinstance(source, Lane) and source.number >= first:
            by_lane[source.number] += coefficient
    step = by_lane[first]
    return step if all(value == step << (lane - first) for lane, value in by_lane.items()) else None
