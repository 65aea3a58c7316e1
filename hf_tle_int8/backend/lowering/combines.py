"""Functions of scalars that a kernel gives to ``tt.reduce`` and ``tt.map_elementwise``, computed on vectors.

Their branches become selections.
"""

import functools
from collections.abc import Sequence

from hf_tle_int8.backend.ir import FunctionBuilder, Operand, constant
from hf_tle_int8.backend.lowering.blocks import forward
from hf_tle_int8.backend.lowering.calls import called
from hf_tle_int8.backend.lowering.elementwise import ELEMENTWISE, UnsupportedOperationError, lower_elementwise
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering, tensor_bits
from hf_tle_int8.backend.lowering.types import ir_type
from hf_tle_int8.backend.tensors.values import Elementwise
from hf_tle_int8.backend.ttir import Block, Operation, Region, Value

Vectors = list[Operand]
# Where a function goes on or ends: in which lanes (None: in all), and with which values.
_Arrival = tuple[Operand | None, Vectors]


def combine(lowering: Lowering, operation: Operation, arguments: Sequence[Operand]) -> Vectors:
    """The function of ``operation`` on each lane of vectors, or on scalars.

    Raises:
        UnsupportedOperationError: the function loops, reads memory or uses what is not supported.
    """
    return _Lanes(lowering, operation, arguments[0].type.lanes).body(operation.regions[0], list(arguments))


def _map(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    """``tt.map_elementwise``; a function of several elements at once is refused."""
    if operation.attributes["pack"] != 1:
        raise UnsupportedOperationError(operation, "of packs of elements is not supported on CPUs")
    operands = [lowering.tensor(value) for value in operation.operands]

    def output(number: int, value: Value) -> Elementwise:
        def emit(_: FunctionBuilder, vectors: Sequence[Operand]) -> Operand:
            return combine(lowering, operation, vectors)[number]

        return Elementwise(ir_type(value.type), tensor_bits(value), operands, emit)

    return [output(number, value) for number, value in enumerate(operation.results)]


class _Lanes:
    def __init__(self, lowering: Lowering, operation: Operation, lanes: int):
        self._lowering, self._f, self._operation, self._lanes = lowering, lowering.f, operation, lanes
        self._known: dict[Value, Operand] = {}

    def body(self, region: Region, arguments: Vectors) -> Vectors:
        """What a function returns; each of its blocks is computed in all lanes."""
        arrivals: dict[Block, list[_Arrival]] = {region.entry: [(None, arguments)]}
        returned: list[_Arrival] = []
        for block in forward(region):
            mask, values = self._merged(arrivals[block])
            self._known.update(zip(block.arguments, values, strict=True))
            for successor, arrival in self._leave(self._run(block), mask):
                (returned if successor is None else arrivals.setdefault(successor, [])).append(arrival)
        return self._merged(returned)[1]

    def _leave(self, terminator: Operation, mask: Operand | None) -> list[tuple[Block | None, _Arrival]]:
        if not terminator.successors:
            return [(None, (mask, self._operands(terminator.operands)))]
        if len(terminator.successors) == 1:
            return [(terminator.successors[0], (mask, self._operands(terminator.operands)))]
        (condition,), *values = terminator.operand_segments()
        yes = self._operand(condition)
        no = self._f.binary("xor", yes, constant(yes.type, 1))
        sides = [side if mask is None else self._f.binary("and", mask, side) for side in (yes, no)]
        arrivals = zip(sides, map(self._operands, values), strict=True)
        return list(zip(terminator.successors, arrivals, strict=True))

    def _merged(self, arrivals: list[_Arrival]) -> _Arrival:
        return functools.reduce(self._either, arrivals)

    def _either(self, a: _Arrival, b: _Arrival) -> _Arrival:
        (first, yes), (second, no) = a, b
        assert first is not None
        assert second is not None
        values = [self._f.select(first, *pair) for pair in zip(yes, no, strict=True)]
        return self._f.binary("or", first, second), values

    def _run(self, block: Block) -> Operation:
        for operation in block.operations[:-1]:
            self._known.update(zip(operation.results, self._results(operation), strict=True))
        return block.terminator

    def _results(self, operation: Operation) -> Vectors:
        if operation.name == "arith.constant":
            return [self._spread(constant(ir_type(operation.result.type), operation.attributes["value"]))]
        if operation.name in ELEMENTWISE:
            return [lower_elementwise(self._f, operation, self._operands(operation.operands))]
        if operation.name == "tt.call":
            with called(self._lowering, operation) as body:
                return self.body(body, self._operands(operation.operands))
        if operation.name == "scf.if":
            condition = self._operand(operation.operands[0])
            sides = [self.body(region, []) if region.blocks else [] for region in operation.regions]
            return [self._f.select(condition, yes, no) for yes, no in zip(*sides, strict=True)]
        raise UnsupportedOperationError(operation, f"in {self._operation.name} is not supported on CPUs")

    def _operands(self, values: Sequence[Value]) -> Vectors:
        return [self._operand(value) for value in values]

    def _operand(self, value: Value) -> Operand:
        return self._known[value] if value in self._known else self._spread(self._lowering.scalar(value))

    def _spread(self, scalar: Operand) -> Operand:
        return self._f.splat(scalar, self._lanes) if self._lanes else scalar


MAPS: dict[str, Handler] = {"tt.map_elementwise": _map}
