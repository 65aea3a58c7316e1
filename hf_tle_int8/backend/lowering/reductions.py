"""``tt.reduce``: elements along one dimension combined by a function of the kernel."""

from collections.abc import Sequence

from hf_tle_int8.backend.ir import I64, constant
from hf_tle_int8.backend.lowering.combines import Vectors, combine
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering
from hf_tle_int8.backend.tensors.chunks import bit_loop, fits_registers, in_registers, lane_bits, make_indexable
from hf_tle_int8.backend.tensors.guards import versioned
from hf_tle_int8.backend.tensors.index import Index, Lane, LoopBit, LoopVariable, Source, dimension_bits
from hf_tle_int8.backend.tensors.memory import row_major, store
from hf_tle_int8.backend.tensors.stored import Registers, as_element, as_stored, stored_type
from hf_tle_int8.backend.tensors.values import Splat, Tensor
from hf_tle_int8.backend.ttir import Operation, TensorType

# Along the axis, this many vectors (as a power of two) are combined independently of each other.
_CHAINS_BITS = 2


def _reduce(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    return _Reduction(lowering, operation).lower()


class _Reduction:
    """One reduction: the sources' bits are those of the axis, and the rest, which is the result's element number."""

    def __init__(self, lowering: Lowering, operation: Operation):
        kind = operation.operands[0].type
        assert isinstance(kind, TensorType)
        self.lowering, self.operation = lowering, operation
        self.sources: list[Tensor] = [lowering.tensor(operand) for operand in operation.operands]
        self.bits = self.sources[0].bits
        self.axis = dimension_bits(kind.shape)[operation.attributes["axis"]]
        self.rest = [bit for bit in range(self.bits) if bit not in self.axis]
        widest = max((source.element for source in self.sources), key=lambda element: element.bits)
        self.lane_bits = lane_bits(lowering.target, widest, self.bits)
        self.outer_axis = [bit for bit in self.axis if bit >= self.lane_bits]
        self.outer_rest = [bit for bit in self.rest if bit >= self.lane_bits]
        self.written_out = fits_registers(lowering.target, widest, self.bits)

    def lower(self) -> list[Lowered]:
        """The results: scalars where no dimension is left, else registers or memory."""
        if self.written_out:
            self.sources = [in_registers(self.lowering.e, self.lowering.target, source) for source in self.sources]
        else:
            make_indexable(self.lowering.e, self.sources)
        if not self.rest:
            scalars = self._one({})
            of_tensor = isinstance(self.operation.results[0].type, TensorType)
            return [Splat(scalar, 0) for scalar in scalars] if of_tensor else list(scalars)
        if self.written_out:
            return list(self._in_registers())
        return list(self._in_memory())

    def _in_registers(self) -> list[Registers]:
        parts = []
        for number in range(1 << len(self.outer_rest)):
            parts.append(self._one({bit: number >> place & 1 for place, bit in enumerate(self.outer_rest)}))
        return [Registers(vectors, range(len(self.rest))) for vectors in zip(*parts, strict=True)]

    def _in_memory(self) -> list[Tensor]:
        e, f = self.lowering.e, self.lowering.f
        lanes = len(self.rest) - len(self.outer_rest)
        kinds = [stored_type(source.element) for source in self.sources]
        results = [row_major(f.allocate(kind, 1 << len(self.rest)), kind, len(self.rest)) for kind in kinds]
        loop, variable = bit_loop(f, lanes, len(self.rest))
        chosen: dict[int, Source] = {bit: LoopBit(variable, self.rest.index(bit)) for bit in self.outer_rest}
        with e.scope():
            place = Index((*map(Lane, range(lanes)), *(chosen[bit] for bit in self.outer_rest)), lanes)
            for result, vector in zip(results, self._one(chosen), strict=True):
                store(e, result.address, place, as_stored(f, vector), None)
        loop.close()
        return [as_element(result, source.element) for result, source in zip(results, self.sources, strict=True)]

    def _one(self, chosen: dict[int, Source]) -> Vectors:
        """The results for ``chosen`` outer bits of the rest, a lane for each inner one."""
        vectors = self._along_axis(chosen)
        for bit in self.axis:
            if bit < self.lane_bits:
                vectors = self._fold_lanes(vectors)
        return vectors

    def _along_axis(self, chosen: dict[int, Source]) -> Vectors:
        chains = self.outer_axis if self.written_out else self.outer_axis[:_CHAINS_BITS]
        looped = self.outer_axis[len(chains) :]
        width = len(self.sources)
        vectors = self._chunk({**chosen, **dict.fromkeys(looped, 0)}, chains, None)
        if looped:
            low, high = looped[0], looped[-1] + 1
            step = constant(I64, 1 << low)
            loop = self.lowering.f.counted_loop(step, constant(I64, 1 << high), step, vectors)
            variable = LoopVariable(loop.index, (1 << high) - (1 << low))
            with self.lowering.e.scope():
                here = {**chosen, **{bit: LoopBit(variable, bit) for bit in looped}}
                following = self._chunk(here, chains, loop.carried)
            loop.close(following)
            vectors = loop.carried
        return self._tree([vectors[i : i + width] for i in range(0, len(vectors), width)])

    def _chunk(self, chosen: dict[int, Source], chains: list[int], carried: Vectors | None) -> Vectors:
        """For each choice of ``chains`` the sources' vectors, each combined with one of ``carried``."""
        width = len(self.sources)

        def body() -> Vectors:
            found: Vectors = []
            for number, literal in enumerate(_numbers(chains)):
                here = self._at({**chosen, **literal})
                found += self._combine(carried[number * width : (number + 1) * width], here) if carried else here
            return found

        lanes = {bit: Lane(lane) for lane, bit in enumerate((*range(self.lane_bits), *chains))}
        whole = Index(tuple(lanes[bit] if bit in lanes else chosen[bit] for bit in range(self.bits)), len(lanes))
        return versioned(self.lowering.e, self.sources, (), whole, body, body)

    def _at(self, chosen: dict[int, Source]) -> Vectors:
        sources = tuple(Lane(bit) if bit < self.lane_bits else chosen[bit] for bit in range(self.bits))
        return [self.lowering.e.at(source, Index(sources, self.lane_bits)) for source in self.sources]

    def _tree(self, parts: list[Vectors]) -> Vectors:
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [self._combine(a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
        return parts[0]

    def _fold_lanes(self, vectors: Vectors) -> Vectors:
        """Combine lanes that differ in the lowest bit of the axis that is left in the lane's number."""
        f, lanes = self.lowering.f, vectors[0].type.lanes
        low = self.axis[0]
        if lanes == 2:
            return self._combine([f.extract(v, 0) for v in vectors], [f.extract(v, 1) for v in vectors])
        zeros = [lane for lane in range(lanes) if not lane >> low & 1]
        ones = [lane for lane in range(lanes) if lane >> low & 1]
        return self._combine([f.shuffle(v, None, zeros) for v in vectors], [f.shuffle(v, None, ones) for v in vectors])

    def _combine(self, a: Vectors, b: Vectors) -> Vectors:
        """The kernel's function on each lane."""
        return combine(self.lowering, self.operation, [*a, *b])


def _numbers(bits: Sequence[int]) -> list[dict[int, Source]]:
    """Every choice of literal bits."""
    return [{bit: number >> place & 1 for place, bit in enumerate(bits)} for number in range(1 << len(bits))]


REDUCTIONS: dict[str, Handler] = {"tt.reduce": _reduce}
