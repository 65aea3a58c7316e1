"""Tensors of a kernel while it is lowered: how each can give the elements that an index asks for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from hf_tle_int8.backend.ir import I1, FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.shuffles import expand


class Tensor(ABC):
    """A tensor; ``bits`` is log2 of its number of elements, which have the type ``element``.

    A tensor of truth values is regular where they are all true, one of remainders where they are consecutive. What
    reads memory through regular masks and offsets is a plain vector load: see `guards`.
    """

    element: IRType
    bits: int

    @property
    def parts(self) -> Sequence["Tensor"]:
        """The tensors that this one is computed from."""
        return ()

    @abstractmethod
    def compute(self, e: "Evaluator", index: Index) -> Operand:
        """Write the instructions that give the elements of ``index``: a vector, or a scalar for one lane."""

    def varies(self, index: Index) -> bool:
        """Whether the lanes of ``index`` may hold different elements; False must be certain."""
        return index.lane_bits > 0

    def inputs(self, index: Index) -> Iterable[tuple["Tensor", Index]]:
        """The parts, each with the index that it is asked for to compute the elements at ``index``."""
        return [(part, index) for part in self.parts]

    def distances(self, e: "Evaluator", index: Index) -> np.ndarray | None:
        """How far each lane is from lane 0, int64 ``[lanes]``, where that is known and lanes do not wrap; else None."""
        return None if self.varies(index) else np.zeros(index.lanes, np.int64)

    def test(self, e: "Evaluator", index: Index, wanted: bool) -> Operand | None:
        """A scalar that is true only where all elements at ``index`` are regular, or else, are false.

        Args:
            e: where the code goes.
            index: which elements.
            wanted: whether to test for regular ones.

        Returns:
            It, or None where there is no test that is cheaper than a look at each element.
        """
        if self.element != I1 or self.varies(index):
            return None
        value = e.at(self, index.first_lane)
        return value if wanted else e.f.binary("xor", value, constant(I1, 1))

    @property
    def assumption(self) -> "Tensor | None":
        """The tensor that must be regular for this one to be read from memory without masks and gathers."""
        return None


class Evaluator:
    """Writes elements of tensors into a function, each at most once while what was written can be reached.

    Args:
        f: the function.
        masked_memory: whether the target has instructions for masked loads and stores, and for gathers and scatters.
        vector_bytes: bytes of a vector register.
    """

    def __init__(self, f: FunctionBuilder, masked_memory: bool, vector_bytes: int):
        self.f = f
        self.masked_memory, self.vector_bytes = masked_memory, vector_bytes
        self._known: list[dict[tuple[Tensor, Index], Operand]] = [{}]
        self._in_memory: list[dict[Tensor, Tensor]] = [{}]
        self._assumed: list[Mapping[tuple[Tensor, Index], bool]] = [{}]

    def at(self, tensor: Tensor, index: Index) -> Operand:
        """The elements of ``tensor`` at ``index``."""
        key = (tensor, index)
        for scope in reversed(self._known):
            if key in scope:
                return scope[key]
        if index.lane_bits and not tensor.varies(index):
            value = self.f.splat(self.at(tensor, index.first_lane), index.lanes)
        else:
            value = tensor.compute(self, index)
        self._known[-1][key] = value
        return value

    def in_memory(self, tensor: Tensor, make: Callable[["Evaluator"], Tensor]) -> Tensor:
        """A copy of ``tensor`` that loop variables can index: one that can be reached from here, or a new one."""
        for scope in reversed(self._in_memory):
            if tensor in scope:
                return scope[tensor]
        copy = self._in_memory[-1][tensor] = make(self)
        return copy

    def remember(self, tensor: Tensor, index: Index, value: Operand) -> None:
        """Say what `at` gives for elements that have been computed beside others."""
        self._known[-1][tensor, index] = value

    def assumed(self, tensor: Tensor) -> bool | None:
        """Whether this code only runs where the elements of ``tensor`` that it asks for are regular, or are false.

        Returns:
            True, False or, where neither is known, None.
        """
        return next((value for scope in self._assumed for (other, _), value in scope.items() if other is tensor), None)

    def is_regular(self, tensor: Tensor, index: Index) -> bool:
        """Whether the elements of ``tensor`` at ``index`` are assumed to be regular, even if nothing asks for them."""
        pairs = (pair for scope in self._assumed for pair, value in scope.items() if value)
        return any(other is tensor and whole.covers(index) for other, whole in pairs)

    @contextmanager
    def scope(self, assumed: Mapping[tuple[Tensor, Index], bool] | None = None) -> Iterator[None]:
        """Around code that may not be run, or be run again: what it computes is forgotten behind it.

        Args:
            assumed: whether the elements of tensors at some indices are regular (or false) wherever that code is run.
        """
        self._known.append({})
        self._in_memory.append({})
        self._assumed.append(assumed or {})
        try:
            yield
        finally:
            self._known.pop()
            self._in_memory.pop()
            self._assumed.pop()


@dataclass(eq=False)
class Splat(Tensor):
    """The same scalar everywhere."""

    scalar: Operand
    bits: int

    @property
    def element(self) -> IRType:  # type: ignore[override]
        """The type of the scalar."""
        return self.scalar.type

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        return e.f.splat(self.scalar, index.lanes) if index.lane_bits else self.scalar

    def varies(self, index: Index) -> bool:
        """Never."""
        return False


@dataclass(eq=False)
class Elementwise(Tensor):
    """A function of the same elements of other tensors."""

    element: IRType
    bits: int
    operands: Sequence[Tensor]
    emit: Callable[[FunctionBuilder, Sequence[Operand]], Operand]

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        return self.emit(e.f, [e.at(operand, index) for operand in self.operands])

    @property
    def parts(self) -> Sequence[Tensor]:
        """The operands."""
        return self.operands

    def varies(self, index: Index) -> bool:
        """Where an operand does."""
        return any(operand.varies(index) for operand in self.operands)


@dataclass(eq=False)
class View(Tensor):
    """Elements of another tensor: bit i of an element's number there is bit ``source_bits[i]`` here; None is zero."""

    source: Tensor
    source_bits: Sequence[int | None]
    bits: int

    @property
    def element(self) -> IRType:  # type: ignore[override]
        """The type of the source's elements."""
        return self.source.element

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        inner, lanes = index.mapped(self.source_bits)
        value = e.at(self.source, inner)
        return value if lanes is None else expand(e.f, value, lanes)

    @property
    def parts(self) -> Sequence[Tensor]:
        """The source."""
        return (self.source,)

    def varies(self, index: Index) -> bool:
        """Where the source does, at the lanes that are left."""
        return self.source.varies(index.mapped(self.source_bits)[0])

    def inputs(self, index: Index) -> Iterable[tuple[Tensor, Index]]:
        """The source, at the lanes that are left."""
        return [(self.source, index.mapped(self.source_bits)[0])]

    def distances(self, e: Evaluator, index: Index) -> np.ndarray | None:
        """Those of the source."""
        inner, lanes = index.mapped(self.source_bits)
        found = self.source.distances(e, inner)
        return found if found is None or lanes is None else found[lanes]

    def test(self, e: Evaluator, index: Index, wanted: bool) -> Operand | None:
        """The source's."""
        return self.source.test(e, index.mapped(self.source_bits)[0], wanted)
