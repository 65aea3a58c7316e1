"""Two tensors as one, and one half of a tensor."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hf_tle_int8.backend.ir import IRType, Operand, constant
from hf_tle_int8.backend.tensors.index import Index, Lane
from hf_tle_int8.backend.tensors.shuffles import pick
from hf_tle_int8.backend.tensors.values import Evaluator, Tensor


@dataclass(eq=False)
class Joined(Tensor):
    """Two tensors of one type; bit ``bit`` of an element's number says which one it is in, the others where."""

    sources: tuple[Tensor, Tensor]
    bit: int

    @property
    def element(self) -> IRType:  # type: ignore[override]
        """The type of both sources' elements."""
        return self.sources[0].element

    @property
    def bits(self) -> int:  # type: ignore[override]
        """One more than the sources have."""
        return self.sources[0].bits + 1

    @property
    def parts(self) -> Sequence[Tensor]:
        """The two."""
        return self.sources

    def inputs(self, index: Index) -> Iterable[tuple[Tensor, Index]]:
        """Both sources, wherever the bit that chooses comes from."""
        inner, _ = index.mapped(bit for bit in range(self.bits) if bit != self.bit)
        return [(source, inner) for source in self.sources]

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``; where a loop variable chooses, both sources are read."""
        f, chooser = e.f, index.sources[self.bit]
        if isinstance(chooser, Lane):
            inner, lanes = index.mapped(bit for bit in range(self.bits) if bit != self.bit)
            assert lanes is not None
            vectors = [e.at(source, inner) for source in self.sources]
            return pick(f, vectors, [(lane >> chooser.number & 1) * inner.lanes + at for lane, at in enumerate(lanes)])
        inner = Index(index.sources[: self.bit] + index.sources[self.bit + 1 :], index.lane_bits)
        if isinstance(chooser, int):
            return e.at(self.sources[chooser], inner)
        number = index.loop_part(f, [int(bit == self.bit) for bit in range(self.bits)])
        assert number is not None
        return f.select(
            f.compare("eq", number, constant(number.type, 0)), *(e.at(source, inner) for source in self.sources)
        )


@dataclass(eq=False)
class Half(Tensor):
    """The elements of another tensor whose number has ``number`` as its lowest bit."""

    source: Tensor
    number: int

    @property
    def element(self) -> IRType:  # type: ignore[override]
        """The type of the source's elements."""
        return self.source.element

    @property
    def bits(self) -> int:  # type: ignore[override]
        """One less than the source has."""
        return self.source.bits - 1

    @property
    def parts(self) -> Sequence[Tensor]:
        """The source."""
        return (self.source,)

    def inputs(self, index: Index) -> Iterable[tuple[Tensor, Index]]:
        """The source."""
        return [(self.source, self._inner(index))]

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        return e.at(self.source, self._inner(index))

    def varies(self, index: Index) -> bool:
        """Where the source does."""
        return self.source.varies(self._inner(index))

    def _inner(self, index: Index) -> Index:
        return Index((self.number, *index.sources), index.lane_bits)
