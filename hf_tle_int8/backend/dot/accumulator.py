"""Accumulators as tensors: in registers in the order of the instruction, or in memory in the order of the blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_tle_int8.backend.dot.plan import Plan, block_indices
from hf_tle_int8.backend.dot.tiles import TileSums, sums_of
from hf_tle_int8.backend.ir import IRType, Operand, constant
from hf_tle_int8.backend.tensors.index import Index
from hf_tle_int8.backend.tensors.shuffles import expand
from hf_tle_int8.backend.tensors.stored import Registers
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor, View


@dataclass(eq=False)
class Accumulator(Tensor):
    """The result of a product that is in registers.

    Attributes:
        plan: of the product.
        vectors: accumulators in the order of ``plan.block_layout``.
        pending: what is too much in each column, a vector for each one of a row of blocks; empty where that is nothing.
    """

    plan: Plan
    vectors: Sequence[Operand]
    pending: Sequence[Operand]
    element: IRType = field(init=False)
    bits: int = field(init=False)

    def __post_init__(self) -> None:
        if self.plan.instruction.tiles:
            sums: Tensor = TileSums(self.vectors, self.plan.layout)
        else:
            sums = Registers(self.vectors, self.plan.block_layout)
        self.element, self.bits = sums.element, sums.bits
        self._settled: Tensor = sums
        if self.pending:
            excess = View(self._excess(), self.plan.result[0], self.bits)
            operands = [sums, excess]
            self._settled = Elementwise(self.element, self.bits, operands, lambda f, values: f.binary("sub", *values))

    def _excess(self) -> Registers:
        columns = len(self.plan.result[0])
        padding = [None] * max(self.plan.instruction.column_bits - columns, 0)
        return Registers(self.pending, [*range(columns), *padding])

    def compute(self, e: Evaluator, index: Index) -> Operand:
        """The elements at ``index``."""
        return e.at(self._settled, index)

    @property
    def parts(self) -> Sequence[Tensor]:
        """What the elements are computed from."""
        return (self._settled,)


def start(e: Evaluator, plan: Plan, tensor: Tensor) -> Accumulator:
    """``tensor`` in accumulators: as it is, where it is in those of such a product already."""
    if isinstance(tensor, Accumulator) and tensor.plan == plan:
        return tensor
    if plan.instruction.tiles:
        count = 1 << (plan.column_block + plan.row_block)
        return Accumulator(plan, sums_of(e, tensor, plan.layout, count), ())
    vectors = [vector_at(e, tensor, index) for index in block_indices(plan, ())]
    return Accumulator(plan, vectors, no_excess(plan))


def vector_at(e: Evaluator, tensor: Tensor, index: Index) -> Operand:
    """The elements at ``index``; lanes that no bit of it depends on hold the same one."""
    inner, lanes = index.mapped(range(tensor.bits))
    vector = e.at(tensor, inner)
    return vector if lanes is None else expand(e.f, vector, lanes)


def no_excess(plan: Plan) -> list[Operand]:
    """The compensation of accumulators that nothing was added to; none where there is no compensation."""
    if not plan.compensated:
        return []
    vector = plan.instruction.accumulator.vector(1 << plan.instruction.lane_bits)
    return [constant(vector, 0)] * (1 << plan.column_block)
