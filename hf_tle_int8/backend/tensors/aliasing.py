"""Whether a store leaves alone what is loaded while it goes on: the memory of both, compared when the kernel runs."""

from collections.abc import Sequence

import numpy as np

from hf_tle_int8.backend.casts import integer_cast
from hf_tle_int8.backend.ir import I64, Operand, constant
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.affine import Affine, as_affine
from hf_tle_int8.backend.tensors.guards import reached
from hf_tle_int8.backend.tensors.index import Index, Lane
from hf_tle_int8.backend.tensors.memory import Loaded
from hf_tle_int8.backend.tensors.values import Evaluator, Tensor


def foreign_loads(tensor: Tensor) -> list[tuple[Loaded, Index]]:
    """What would be loaded through pointers of the kernel to compute ``tensor``, as `reached` gives it."""
    whole = Index(tuple(map(Lane, range(tensor.bits))), tensor.bits)
    return [(part, place) for part, place in reached([tensor], whole) if isinstance(part, Loaded) and not part.own]


def may_interleave(e: Evaluator, address: Address, value: Tensor) -> Operand | bool:
    """Whether ``value`` may be loaded element by element while it is stored to ``address``.

    It may where all that it loads is apart from what is written, or each element is written where it was loaded from.

    Returns:
        A scalar truth value, or one that is known when the kernel is compiled.
    """
    conditions = [_apart(e, address, load, place) for load, place in foreign_loads(value)]
    if None in conditions:
        return False
    result: Operand | bool = True
    for condition in conditions:
        assert condition is not None
        result = e.f.binary("and", result, condition) if isinstance(result, Operand) else condition
    return result


def _apart(e: Evaluator, address: Address, load: Loaded, place: Index) -> Operand | None:
    f, written, read = e.f, _range(e, address), _range(e, load.address)
    if written is None or read is None:
        return None
    (low, high), (first, last) = written, read
    apart = f.binary("or", f.compare("ult", high, first), f.compare("ult", last, low))
    if _same_elements(address, load.address, place):
        return f.binary("or", apart, f.compare("eq", low, first))
    return apart


def _range(e: Evaluator, address: Address) -> tuple[Operand, Operand] | None:
    """The numbers of the first and the last byte of all elements, masked ones too; None where that is not known."""
    f, offsets = e.f, _offsets(address)
    if offsets is None or isinstance(address.base, Tensor):
        return None
    start = e.at(address, Index((0,) * address.bits))
    low, high = constant(I64, 0), constant(I64, 0)
    for offset in offsets:
        for term in offset.terms:
            ends = (sum(c for c in term.coefficients if c < 0), sum(c for c in term.coefficients if c > 0))
            a, b = (constant(I64, end) for end in ends)
            if term.stride is not None:
                stride = integer_cast(f, True, term.stride, I64)
                a, b = f.binary("mul", a, stride), f.binary("mul", b, stride)
                a, b = f.intrinsic("smin", a, b), f.intrinsic("smax", a, b)
            low, high = f.binary("add", low, a), f.binary("add", high, b)
    first, last = (f.cast("ptrtoint", f.offset(start, end, address.pointee), I64) for end in (low, high))
    size = max(address.pointee.bits, 8) // 8
    return first, f.binary("add", last, constant(I64, size - 1))


def _offsets(address: Address) -> Sequence[Affine] | None:
    found = [as_affine(offset) for offset in address.offsets]
    return None if None in found else [offset for offset in found if offset is not None]


def _same_elements(a: Address, b: Address, place: Index) -> bool:
    """Whether the pointers of ``a``, and those of ``b`` at ``place``, are all different and as far from each other."""
    literals = [_literal(address) for address in (a, b)]
    if literals[0] is None or literals[0] != literals[1] or a.pointee != b.pointee:
        return False
    if place != Index(tuple(map(Lane, range(a.bits))), a.bits):
        return False
    return len(np.unique(place.weighted(literals[0]))) == place.lanes


def _literal(address: Address) -> list[int] | None:
    """The distance in elements that each bit of the element's number adds, where all are literals."""
    total = [0] * address.bits
    for offset in _offsets(address) or ():
        for term in offset.terms:
            if term.stride is not None:
                return None
            total = [old + new for old, new in zip(total, term.coefficients, strict=True)]
    return total
