"""Operands of a product where they can be read many times: as they are, or copied in the order of the instruction."""

from collections.abc import Sequence

from hf_tle_int8.backend.dot.plan import Bits, Plan
from hf_tle_int8.backend.dot.tiles import is_tile
from hf_tle_int8.backend.ir import I8, IRType, Operand, constant
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.arithmetic import ExclusiveOr
from hf_tle_int8.backend.tensors.chunks import make_indexable
from hf_tle_int8.backend.tensors.index import Index, Lane, Source
from hf_tle_int8.backend.tensors.memory import Loaded
from hf_tle_int8.backend.tensors.reordered import copy_reordered
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Splat, Tensor, View

# What is read more often than this, as a power of two, is worth a copy: rows of a matrix that are a power of two apart
# push each other out of the cache.
_FEW_BITS = 1


def ready_operands(e: Evaluator, target: Target, plan: Plan, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The operands for `Product`.

    Blocks below each other read the columns again, and blocks side by side the rows: what is read often then, or not
    by plain loads, is copied first into the order in which it is read. So is what is masked: the loop of a copy tests
    once for many elements. Loops read from memory, never from registers.
    """
    beside, below, _ = plan.outer
    instruction = plan.instruction
    if instruction.unsigned_rows:
        rows = _with_flipped_signs(rows)
    if below or instruction.tiles or _is_masked(columns):
        columns = _ready(e, target, columns, _order(plan.columns, plan.column_lanes), plan, len(below))
    if beside or instruction.tiles or _is_masked(rows):
        rows = _ready(e, target, rows, _order(plan.rows, plan.row_lanes), plan, len(beside))
    if not plan.in_registers or plan.body_k < len(plan.rows.k):
        make_indexable(e, [rows, columns])
    return rows, columns


def _with_flipped_signs(tensor: Tensor) -> Tensor:
    """Bytes with their sign bits flipped: what a kernel has flipped itself is read as it was before."""
    if isinstance(tensor, ExclusiveOr):
        a, b = tensor.operands
        for operand, other in ((a, b), (b, a)):
            if isinstance(other, Splat) and other.scalar == _sign(I8):
                return operand
    return Elementwise(I8, tensor.bits, [tensor], lambda f, values: f.binary("xor", values[0], _sign(values[0].type)))


def _sign(kind: IRType) -> Operand:
    return constant(kind, -128)


def _order(bits: Bits, lanes: Sequence[int | None]) -> tuple[list[int], int]:
    """The order in which an operand is read, and how many bits of it are those of a vector."""
    inner = [bit for bit in lanes if bit is not None]
    return [*inner, *(bit for bit in (*bits.k, *bits.own, *bits.matrix) if bit not in inner)], len(inner)


def _ready(
    e: Evaluator, target: Target, tensor: Tensor, order: tuple[list[int], int], plan: Plan, repeated: int
) -> Tensor:
    bits, lanes = order
    sources: list[Source] = [0] * len(bits)
    for lane, bit in enumerate(bits[:lanes]):
        sources[bit] = Lane(lane)
    index = Index(tuple(sources), lanes)
    if is_tile(e, tensor, index) if plan.instruction.tiles else repeated <= _FEW_BITS and _is_plain(e, tensor, index):
        return tensor
    return copy_reordered(e, target, tensor, bits)


def _is_plain(e: Evaluator, tensor: Tensor, index: Index) -> bool:
    """Whether the elements at ``index`` are one load."""
    if isinstance(tensor, View):
        inner, lanes = index.mapped(tensor.source_bits)
        return lanes is None and _is_plain(e, tensor.source, inner)
    return isinstance(tensor, Loaded) and tensor.mask is None and tensor.address.is_contiguous(e, index)


def _is_masked(tensor: Tensor) -> bool:
    """Whether it is computed from anything that is loaded under a mask."""
    pending, seen = [tensor], set[Tensor]()
    while pending:
        part = pending.pop()
        if isinstance(part, Loaded) and part.mask is not None:
            return True
        if part not in seen:
            seen.add(part)
            pending += part.parts
    return False
