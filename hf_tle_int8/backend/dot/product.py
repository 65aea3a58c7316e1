"""The instructions of a product: operands read in the order of the instruction, accumulators in registers."""

import functools
from collections.abc import Sequence

from hf_tle_int8.backend.dot.instruction import Prepared
from hf_tle_int8.backend.dot.plan import Bits, Outer, Plan
from hf_tle_int8.backend.dot.tiles import load_tile
from hf_tle_int8.backend.ir import Operand, constant
from hf_tle_int8.backend.tensors.chunks import bit_loop
from hf_tle_int8.backend.tensors.index import Index, Lane, LoopBit, Source
from hf_tle_int8.backend.tensors.shuffles import expand
from hf_tle_int8.backend.tensors.values import Evaluator, Tensor


class Product:
    """Writes the products of one ``tt.dot``, block by block."""

    def __init__(self, e: Evaluator, plan: Plan, rows: Tensor, columns: Tensor):
        self.e, self.plan = e, plan
        self._rows, self._columns = rows, columns

    def add(self, accumulators: Sequence[Operand], pending: Sequence[Operand], outer: Outer) -> list[list[Operand]]:
        """Add the products of one block to its accumulators, and what is too much in them to ``pending``.

        The accumulators are in the order of ``plan.block_layout``.
        """
        k, body = len(self.plan.rows.k), self.plan.body_k
        if body == k:
            return self._body(accumulators, pending, outer, ())
        count = len(accumulators)
        loop, variable = bit_loop(self.e.f, body, k, [*accumulators, *pending])
        with self.e.scope():
            bits = [LoopBit(variable, bit) for bit in range(body, k)]
            following = self._body(loop.carried[:count], loop.carried[count:], outer, bits)
        loop.close([*following[0], *following[1]])
        return [loop.carried[:count], loop.carried[count:]]

    def _body(
        self, accumulators: Sequence[Operand], pending: Sequence[Operand], outer: Outer, k: Sequence[Source]
    ) -> list[list[Operand]]:
        """The products of all k that are written out."""
        plan, sums, excess = self.plan, list(accumulators), list(pending)
        fetched = min(plan.read_k, plan.body_k)
        for number in range(1 << (plan.body_k - fetched)):
            above = [*_literal(number, plan.body_k - fetched), *k]
            if plan.instruction.one_by_one:
                self.e.f.do('call void asm sideeffect "", "~{memory}"()')
            rows = [self._read_row(row, above, outer) for row in range(1 << plan.row_block)]
            groups = max(fetched - plan.instruction.k_bits, 0)
            for group in range(1 << groups):
                self._multiply(sums, excess, rows, [*_literal(group, groups), *above], outer, group)
        return [sums, excess]

    def _multiply(
        self,
        sums: list[Operand],
        excess: list[Operand],
        rows: Sequence[Operand],
        k: Sequence[Source],
        outer: Outer,
        group: int,
    ) -> None:
        """The products of one group of k: all columns, then row after row, or all rows, then column after column."""
        f, instruction = self.e.f, self.plan.instruction
        numbers = range(1 << self.plan.column_block)

        @functools.cache
        def row(number: int) -> Prepared:
            return instruction.rows(f, rows[number], group)

        @functools.cache
        def column(number: int) -> Prepared:
            ready = self._ready_column(number, k, outer)
            if instruction.compensation is not None:
                excess[number] = instruction.compensation(f, excess[number], ready)
            return ready

        places = [(r, c) for c in numbers for r in range(len(rows))]
        if self.plan.holds_columns:
            for number in numbers:
                column(number)
            places.sort()
        for r, c in places:
            place = r * len(numbers) + c
            sums[place] = instruction.multiply(f, sums[place], row(r), column(c))

    def _read_row(self, row: int, k: Sequence[Source], outer: Outer) -> Operand:
        plan = self.plan
        own = [*_literal(row, plan.row_block), *outer.rows]
        return self._read(self._rows, plan.rows, plan.row_lanes, plan.read_k, own, k, outer.matrix)

    def _ready_column(self, number: int, k: Sequence[Source], outer: Outer) -> Prepared:
        plan = self.plan
        own = [*_literal(number, plan.column_block), *outer.columns]
        lanes, k_lanes = plan.column_lanes, plan.instruction.k_bits
        read = self._read(self._columns, plan.columns, lanes, k_lanes, own, k, outer.matrix)
        return plan.instruction.columns(self.e.f, read)

    def _read(
        self,
        tensor: Tensor,
        bits: Bits,
        lanes: Sequence[int | None],
        k_lanes: int,
        own: Sequence[Source],
        k: Sequence[Source],
        matrix: Sequence[Source],
    ) -> Operand:
        """A vector or a tile of an operand; ``lanes`` are its bits that are those of the lane's number, if there."""
        sources: list[Source] = [0] * len(bits)
        for lane, bit in enumerate(lanes):
            if bit is not None:
                sources[bit] = Lane(lane)
        for positions, values in ((bits.k, k), (bits.own, own), (bits.matrix, matrix)):
            outside = [position for position in positions if position not in lanes]
            for position, value in zip(outside, values, strict=True):
                sources[position] = value
        index = Index(tuple(sources), len(lanes))
        if self.plan.instruction.tiles:
            return load_tile(self.e, tensor, index)
        return self._padded(tensor, index, len(bits.k), k_lanes)

    def _padded(self, tensor: Tensor, index: Index, k: int, k_lanes: int) -> Operand:
        """A vector, with zeros for the k that there are not."""
        inner, lanes = index.mapped(range(len(index.sources)))
        vector = self.e.at(tensor, inner)
        if lanes is not None:
            vector = expand(self.e.f, vector, lanes)
        if k >= k_lanes:
            return vector
        missing = (1 << k_lanes) - (1 << k)
        numbers = [lane if not lane & missing else index.lanes + lane for lane in range(index.lanes)]
        return self.e.f.shuffle(vector, constant(vector.type, 0), numbers)


def _literal(number: int, bits: int) -> list[Source]:
    return [number >> bit & 1 for bit in range(bits)]
