"""What an instruction for products of small matrices in registers does, and how operands are made ready for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_tle_int8.backend.ir import FunctionBuilder, IRType, Operand

Prepared = Sequence[Operand]


@dataclass(frozen=True)
class Instruction:
    """``accumulator[r, c] += sum over k of rows[r, k] * columns[k, c]`` for a vector of accumulators.

    The lanes of an accumulator are numbered by its column, then by its row; those of an operand by k, then by its
    column or row. Where there is one row only, each group of k of it is repeated for every column.

    Attributes:
        name: as `Target` calls it, or of a matrix of tile registers.
        accumulator: type of the elements of an accumulator.
        column_bits: log2 of the columns of a vector of accumulators.
        row_bits: log2 of its rows.
        k_bits: log2 of the products that are summed for an accumulator.
        fetched_k_bits: log2 of the k of a rows operand that are read at once, at least ``k_bits``.
        rows: makes group ``number`` of k of what was read of a row ready.
        columns: makes what was read of columns ready.
        multiply: adds products to a vector of accumulators.
        compensation: adds to a vector with an element for each column what `multiply` adds too much to every row;
            None where that is nothing.
        unsigned_rows: whether rows are unsigned bytes: with their sign bits flipped, 128 more than they are.
        column_registers: registers that ready columns take.
        row_registers: registers that ready rows take.
        column_k_bits: log2 of the k that come before the columns in the numbers of the lanes of a columns operand; the
            others come behind them. None: all.
        tiles: whether operands and accumulators are in tile registers; see `tiles`.
        one_by_one: whether nothing is read before the k in front of it are summed: LLVM, reading ahead, would spill.
    """

    name: str
    accumulator: IRType
    column_bits: int
    row_bits: int
    k_bits: int
    fetched_k_bits: int
    rows: Callable[[FunctionBuilder, Operand, int], Prepared]
    columns: Callable[[FunctionBuilder, Operand], Prepared]
    multiply: Callable[[FunctionBuilder, Operand, Prepared, Prepared], Operand]
    compensation: Callable[[FunctionBuilder, Operand, Prepared], Operand] | None = None
    unsigned_rows: bool = False
    column_registers: int = 1
    row_registers: int = 1
    column_k_bits: int | None = None
    tiles: bool = False
    one_by_one: bool = False

    @property
    def lane_bits(self) -> int:
        """log2 of the lanes of a vector of accumulators."""
        return self.column_bits + self.row_bits


def as_it_is(_: FunctionBuilder, vector: Operand, number: int = 0) -> Prepared:
    """An operand that is ready when it has been read."""
    return [vector]


def repeat_group(f: FunctionBuilder, vector: Operand, number: int, group: int, lanes: int) -> Operand:
    """Group ``number`` of ``group`` lanes of a vector (or a scalar), repeated in all ``lanes``."""
    have = max(vector.type.lanes, 1)
    if have > group:
        return f.shuffle(vector, None, [number * group + lane % group for lane in range(lanes)])
    if not vector.type.lanes:
        return f.splat(vector, lanes)
    word = f.reinterpret(vector, IRType(f"i{vector.type.bits * group}"))
    return f.reinterpret(f.splat(word, lanes // group), vector.type.vector(lanes))
