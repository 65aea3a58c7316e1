"""Tensors of a kernel while it is lowered: how each can give the elements that an index asks for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hf_tle_int8.backend.ir import FunctionBuilder, IRType, Operand
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.shuffles import expand


class Tensor(ABC):
    """A tensor; ``bits`` is log2 of its number of elements, which have the type ``element``."""

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


class Evaluator:
    """Writes elements of tensors into a function, each at most once while what was written can be reached."""

    def __init__(self, f: FunctionBuilder):
        self.f = f
        self._known: list[dict[tuple[Tensor, Index], Operand]] = [{}]
        self._in_memory: list[dict[Tensor, Tensor]] = [{}]

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

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Around code that may not be run, or be run again: what it computes is forgotten behind it."""
        self._known.append({})
        self._in_memory.append({})
        try:
            yield
        finally:
            self._known.pop()
            self._in_memory.pop()


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
    """A function of the same elements of other tensors; ``name`` is that of the operation of TTIR, if it is one."""

    element: IRType
    bits: int
    operands: Sequence[Tensor]
    emit: Callable[[FunctionBuilder, Sequence[Operand]], Operand]
    name: str = ""

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
