"""Vectors made of the lanes of others."""

from collections.abc import Sequence

from hf_tle_int8.backend.ir import FunctionBuilder, Operand


def expand(f: FunctionBuilder, value: Operand, lanes: Sequence[int]) -> Operand:
    """A vector whose lane i is lane ``lanes[i]`` of ``value``, which may be a scalar."""
    if not value.type.lanes:
        return f.splat(value, len(lanes))
    return f.shuffle(value, None, lanes)


def concatenate(f: FunctionBuilder, a: Operand, b: Operand) -> Operand:
    """The lanes of ``a`` and then those of ``b``, of the same type; scalars become a vector of two."""
    if a.type.lanes:
        return f.shuffle(a, b, range(2 * a.type.lanes))
    return collect(f, [a, b])


def collect(f: FunctionBuilder, scalars: Sequence[Operand]) -> Operand:
    """A vector of scalars; a single one stays a scalar."""
    if len(scalars) == 1:
        return scalars[0]
    vector = Operand(scalars[0].type.vector(len(scalars)), "poison")
    for lane, scalar in enumerate(scalars):
        vector = f.insert(vector, scalar, lane)
    return vector


def pick(f: FunctionBuilder, vectors: Sequence[Operand], positions: Sequence[int]) -> Operand:
    """A vector (a scalar for one position) of lanes ``position % lanes`` of ``vectors[position // lanes]``.

    Args:
        f: where the instructions go.
        vectors: of one type; scalars count as vectors of one lane.
        positions: a power of two of them.
    """
    lanes = max(vectors[0].type.lanes, 1)
    if lanes == 1:
        return collect(f, [vectors[position] for position in positions])
    if len(positions) == 1:
        return f.extract(vectors[positions[0] // lanes], positions[0] % lanes)
    sources = sorted({position // lanes for position in positions})
    if len(sources) > 2:
        half = len(positions) // 2
        return concatenate(f, pick(f, vectors, positions[:half]), pick(f, vectors, positions[half:]))
    first = vectors[sources[0]]
    numbers = [position - sources[0] * lanes for position in positions]
    if len(sources) == 1:
        return first if numbers == list(range(lanes)) else f.shuffle(first, None, numbers)
    apart = (sources[1] - sources[0] - 1) * lanes
    return f.shuffle(first, vectors[sources[1]], [n if n < lanes else n - apart for n in numbers])
