"""Vectors whose lanes lie anywhere in memory."""

from collections.abc import Iterator, Sequence

from hf_tle_int8.backend.ir import I64, FunctionBuilder, IRType, Operand
from hf_tle_int8.backend.tensors.shuffles import concatenate
from hf_tle_int8.backend.tensors.values import Evaluator


def scatter(e: Evaluator, value: Operand, pointers: Operand, mask: Operand) -> None:
    """Store each lane to its pointer, where ``mask`` is true."""
    for places, *parts in _parts(e, pointers, value, mask):
        name = f"llvm.masked.scatter.{parts[0].type.mangled}.{places.type.mangled}"
        e.f.call_procedure(name, parts[0], places, parts[1])


def gather(e: Evaluator, kind: IRType, pointers: Operand, mask: Operand, other: Operand) -> Operand:
    """Load each lane of ``kind`` from its pointer, where ``mask`` is true; else that of ``other``."""
    found = []
    for places, *parts in _parts(e, pointers, mask, other):
        part = kind.vector(places.type.lanes)
        name = f"llvm.masked.gather.{part.mangled}.{places.type.mangled}"
        found.append(e.f.call(name, part, places, *parts))
    while len(found) > 1:
        found = [concatenate(e.f, *pair) for pair in zip(found[::2], found[1::2], strict=True)]
    return found[0]


def _parts(e: Evaluator, pointers: Operand, *vectors: Operand) -> Iterator[Sequence[Operand]]:
    """As many lanes as an instruction takes, all that there are where there is none.

    LLVM 22 divides longer vectors of pointers itself, and takes the base of the first part for that of all where each
    part has one of its own (x86, tuned for Intel's): it must not see what they are made of.
    """
    count, most = pointers.type.lanes, e.vector_bytes * 8 // I64.bits
    if not e.masked_memory:
        yield (pointers, *vectors)
        return
    for first in range(0, count, most):
        lanes = range(first, min(first + most, count))
        places, *others = (_lanes(e.f, vector, lanes) for vector in (pointers, *vectors))
        yield (_opaque(e.f, places), *others)


def _lanes(f: FunctionBuilder, vector: Operand, lanes: Sequence[int]) -> Operand:
    return vector if len(lanes) == vector.type.lanes else f.shuffle(vector, None, lanes)


def _opaque(f: FunctionBuilder, pointers: Operand) -> Operand:
    numbers = f.cast("ptrtoint", pointers, I64)
    numbers = f.emit(numbers.type, f'call {numbers.type} asm "", "=v,0"({numbers.typed})')
    return f.cast("inttoptr", numbers, pointers.type.scalar)
