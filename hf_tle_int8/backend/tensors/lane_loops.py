"""Masked loads and stores where the CPU has no instructions for them: a loop over the lanes."""

from collections.abc import Callable

from hf_tle_int8.backend.ir import I1, I8, I64, PTR, FunctionBuilder, Operand, constant


def load_passing_lanes(f: FunctionBuilder, pointers: Operand, mask: Operand, other: Operand) -> Operand:
    """What ``pointers`` lead to where ``mask`` is true, and the lanes of ``other`` elsewhere.

    Args:
        f: where the code goes.
        pointers: one a lane, or that of lane 0, which the others follow.
        mask: a vector of truth values.
        other: a vector.
    """
    result = _stored(f, other)

    def load(lane: Operand, pointer: Operand) -> None:
        element = other.type.scalar
        f.store(f.load(element, pointer), f.offset(result, lane, element))

    _for_passing_lanes(f, pointers, mask, other, load)
    return f.load(other.type, result)


def store_passing_lanes(f: FunctionBuilder, value: Operand, pointers: Operand, mask: Operand) -> None:
    """Store the lanes of ``value`` whose ``mask`` is true, in order; see `load_passing_lanes`."""
    source = _stored(f, value)

    def store(lane: Operand, pointer: Operand) -> None:
        element = value.type.scalar
        f.store(f.load(element, f.offset(source, lane, element)), pointer)

    _for_passing_lanes(f, pointers, mask, value, store)


def _for_passing_lanes(
    f: FunctionBuilder, pointers: Operand, mask: Operand, like: Operand, body: Callable[[Operand, Operand], None]
) -> None:
    flags = _stored(f, f.cast("zext", mask, I8))
    places = _stored(f, pointers) if pointers.type.lanes else None
    loop = f.counted_loop(constant(I64, 0), constant(I64, like.type.lanes), constant(I64, 1))
    inside, behind = f.label("passing"), f.label("passed")
    f.branch(f.cast("trunc", f.load(I8, f.offset(flags, loop.index, I8)), I1), inside, behind)
    f.place(inside)
    if places is None:
        body(loop.index, f.offset(pointers, loop.index, like.type.scalar))
    else:
        body(loop.index, f.load(PTR, f.offset(places, loop.index, PTR)))
    f.jump(behind)
    f.place(behind)
    loop.close()


def _stored(f: FunctionBuilder, vector: Operand) -> Operand:
    place = f.allocate(vector.type.scalar, vector.type.lanes)
    f.store(vector, place)
    return place
