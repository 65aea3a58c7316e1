"""How a product of tensors is divided into vectors of accumulators, blocks of registers, and loops."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hf_tle_int8.backend.dot.floats import BF16_DOTS, fused_multiply_add
from hf_tle_int8.backend.dot.instruction import Instruction
from hf_tle_int8.backend.dot.integers import int8_dot, tdpbssd
from hf_tle_int8.backend.ir import BFLOAT, I8, IRType
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.index import Index, Source, dimension_bits
from hf_tle_int8.backend.tensors.stored import literal_chunks

# Multiplications written out in one iteration of a loop over k: enough to hide the loop's own instructions.
_WRITTEN_OUT_BITS = 5


@dataclass(frozen=True)
class Bits:
    """Bits of an element's number, lowest first: those of its row or column, of its k, and of its matrix."""

    own: range
    k: range
    matrix: range

    def __len__(self) -> int:
        return len(self.own) + len(self.k) + len(self.matrix)


@dataclass(frozen=True)
class Plan:
    """The division of one product.

    Where columns are fewer than an instruction has, and rows are not, the two change sides: the product of the
    transposed operands is computed.

    Attributes:
        instruction: for a vector of accumulators.
        swapped: whether the rows are those of the right operand's transpose.
        rows: bits of the elements of the rows operand.
        columns: bits of the elements of the columns operand.
        result: bits of the result's element number that are its column's, its row's, and its matrix'.
        column_block: log2 of the vectors of accumulators side by side that are in registers at the same time.
        row_block: log2 of those below each other.
        holds_columns: whether the columns of a block stay in registers while its rows are read one by one; else the
            reverse.
        body_k: bits of k that are written out.
    """

    instruction: Instruction
    swapped: bool
    rows: Bits
    columns: Bits
    result: tuple[range, range, range]
    column_block: int
    row_block: int
    holds_columns: bool
    body_k: int

    @property
    def lane_layout(self) -> list[int | None]:
        """The result's bits that are those of the lane's number; None where there are fewer than the instruction's."""
        column, row, _ = self.result
        return [*_padded(column, self.instruction.column_bits), *_padded(row, self.instruction.row_bits)]

    @property
    def block_layout(self) -> list[int | None]:
        """The result's bits in a block: in the lane's number, then in the vector's."""
        columns, rows = self._beyond_lanes
        return [*self.lane_layout, *columns[: self.column_block], *rows[: self.row_block]]

    @property
    def outer_layout(self) -> list[int]:
        """The result's bits that loops go through."""
        return [bit for bits in self.outer for bit in bits]

    @property
    def outer(self) -> tuple[range, range, range]:
        """Those of them that are the column's, the row's and the matrix'."""
        columns, rows = self._beyond_lanes
        return columns[self.column_block :], rows[self.row_block :], self.result[2]

    @property
    def layout(self) -> list[int]:
        """The result's bits in the order in which accumulators are kept."""
        return [*(bit for bit in self.block_layout if bit is not None), *self.outer_layout]

    @property
    def read_k(self) -> int:
        """Bits of k that are read of a row at once."""
        return max(self.instruction.k_bits, min(self.instruction.fetched_k_bits, len(self.rows.k)))

    @property
    def row_lanes(self) -> list[int | None]:
        """The bits of the rows operand that are those of the lane's number in what is read of it."""
        return [*_padded(self.rows.k, self.read_k), *_padded(self.rows.own, self.instruction.row_bits)]

    @property
    def column_lanes(self) -> list[int | None]:
        """Those of the columns operand."""
        k, own = (
            _padded(self.columns.k, self.instruction.k_bits),
            _padded(self.columns.own, self.instruction.column_bits),
        )
        first = self.instruction.column_k_bits
        return [*k, *own] if first is None else [*k[:first], *own, *k[first:]]

    @property
    def in_registers(self) -> bool:
        """Whether one block is all."""
        return not self.outer_layout

    @property
    def compensated(self) -> bool:
        """Whether the accumulators carry a compensation."""
        return self.instruction.compensation is not None

    @property
    def _beyond_lanes(self) -> tuple[range, range]:
        column, row, _ = self.result
        return column[self.instruction.column_bits :], row[self.instruction.row_bits :]


@dataclass(frozen=True)
class Outer:
    """Where a block is: the bits of the row, the column and the matrix that are not in it."""

    columns: Sequence[Source] = ()
    rows: Sequence[Source] = ()
    matrix: Sequence[Source] = ()


NOWHERE = Outer()


def outer_bits(plan: Plan, sources: Sequence[Source]) -> Outer:
    """The place of a block by what gives the bits of ``plan.outer_layout``."""
    columns, rows = (len(bits) for bits in plan.outer[:2])
    return Outer(sources[:columns], sources[columns : columns + rows], sources[columns + rows :])


def block_indices(plan: Plan, sources: Sequence[Source]) -> Iterator[Index]:
    """The elements of each vector of a block of the result; ``sources`` give the bits of ``plan.outer_layout``."""
    outside = dict(zip(plan.outer_layout, sources, strict=True))
    for index in literal_chunks(len(plan.layout), plan.instruction.lane_bits, plan.block_layout):
        yield Index(tuple(outside.get(bit, source) for bit, source in enumerate(index.sources)), index.lane_bits)


def plan(
    target: Target, element: IRType, a: Sequence[int], b: Sequence[int], without_least: bool = False
) -> Plan:  # fmt: skip
    """The plan for operands of the shapes ``[…, M, K]`` and ``[…, K, N]``.

    Args:
        target: what code is for.
        element: type of the operands.
        a: shape of the left one.
        b: shape of the right one.
        without_least: whether the left one holds no -128.

    Raises:
        KeyError: no product of this type is supported.
    """
    *matrices, m, k = dimension_bits(a)
    n = dimension_bits(b)[-1]
    tiled = _tiled(target, element)
    if tiled is not None and _fills(tiled, len(m), len(n), len(k)):
        instruction = tiled
    else:
        instruction = instruction_for(target, element, without_least)
    count = sum(map(len, matrices))
    matrix_a, matrix_b = (range(len(k) + len(own), len(k) + len(own) + count) for own in (m, n))
    left = Bits(m, k, matrix_a)
    right = Bits(n, range(len(n), len(n) + len(k)), matrix_b)
    columns, rows = range(len(n)), range(len(n), len(n) + len(m))
    matrix = range(len(n) + len(m), len(n) + len(m) + count)
    swapped = len(n) < instruction.column_bits and len(m) > len(n)
    if swapped:
        instruction = instruction_for(target, element)
        left, right, columns, rows = right, left, rows, columns
    blocks = _blocks(target, instruction, len(columns), len(rows), count)
    body_k = _body_k(instruction, len(k), sum(blocks))
    holds_columns = _registers(instruction, *blocks) <= _available(target, instruction)
    return Plan(instruction, swapped, left, right, (columns, rows, matrix), *blocks, holds_columns, body_k)


@functools.cache
def instruction_for(target: Target, element: IRType, without_least: bool = False) -> Instruction:
    """The instruction for operands of the type ``element``; ``without_least``: whose rows hold no -128.

    Raises:
        KeyError: there is none.
    """
    if element == I8:
        return int8_dot(target, without_least)
    if element == BFLOAT:
        return BF16_DOTS[target.bf16_dot](target)
    if element.is_float:
        return fused_multiply_add(target, element)
    raise KeyError(element)


@functools.cache
def _tiled(target: Target, element: IRType) -> Instruction | None:
    """The instruction for matrices in tile registers, if there is one."""
    return tdpbssd(target) if target.tile_registers and element == I8 else None


def _fills(instruction: Instruction, m: int, n: int, k: int) -> bool:
    """Whether so many bits of rows, columns and k are all that the instruction has, at least."""
    return m >= instruction.row_bits and n >= instruction.column_bits and k >= instruction.k_bits


def _available(target: Target, instruction: Instruction) -> int:
    """How many registers there are for its operands and accumulators."""
    return target.tile_registers if instruction.tiles else target.vector_registers


def _blocks(target: Target, instruction: Instruction, columns: int, rows: int, matrices: int) -> tuple[int, int]:
    """Vectors of a block, side by side and below each other, as powers of two: all that there are, if they fit.

    Else those that fit and need the fewest reads for each multiplication.
    """
    beside = max(columns - instruction.column_bits, 0)
    below = max(rows - instruction.row_bits, 0)
    every = [(column, row) for column in range(beside + 1) for row in range(below + 1)]
    needed = {block: min(_registers(instruction, *block, held) for held in (True, False)) for block in every}
    fitting = [block for block in every if needed[block] <= _available(target, instruction)]
    if not matrices and (beside, below) in fitting:
        return beside, below
    return min(fitting, key=lambda block: (2.0 ** -block[0] + 2.0 ** -block[1], -block[1]))


def _registers(instruction: Instruction, column: int, row: int, holds_columns: bool = True) -> int:
    """Accumulators, their compensation, the columns with one row at a time or the reverse, and a constant."""
    columns, rows = instruction.column_registers << column, instruction.row_registers << row
    operands = columns + instruction.row_registers if holds_columns else rows + instruction.column_registers
    excess = 1 << column if instruction.compensation else 0
    return (1 << (column + row)) + excess + operands + 1


def _body_k(instruction: Instruction, k: int, vectors: int) -> int:
    """Bits of k that are written out: all, where that is not more than twice what one iteration should hold."""
    least = max(instruction.fetched_k_bits, instruction.k_bits + _WRITTEN_OUT_BITS - vectors)
    return k if k <= least + 1 else least


def _padded(bits: range, count: int) -> list[int | None]:
    return [bits[position] if position < len(bits) else None for position in range(count)]
