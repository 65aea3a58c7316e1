"""Which tensors of a block are computed where they stand, and which only inside of the one operation that uses them."""

from hf_tle_int8.backend.lowering.elementwise import ELEMENTWISE
from hf_tle_int8.backend.ttir import Block, Operation, TensorType, Value

# Operations whose results are functions of the indices and a few scalars: never worth keeping.
INDEX_OPERATIONS = frozenset({"tt.make_range", "tt.splat", "arith.constant"})
VIEWS = frozenset({"tt.expand_dims", "tt.broadcast", "tt.reshape", "tt.trans"})
_IN_PLACE = VIEWS | {"tt.addptr"} | set(ELEMENTWISE)


def kept_values(block: Block) -> set[Value]:
    """The tensors whose elements are computed and kept where they are defined.

    These are what is loaded, so that loads and stores keep their order, and what more than one operation, or one in
    a nested region, would compute otherwise. The rest is computed element by element where it is used.
    """
    ends: dict[Value, set[Operation | Value]] = {}
    kept: set[Value] = set()
    cheap = _cheap_values(block)
    for operation in reversed(block.operations):
        for value in operation.results:
            if not isinstance(value.type, TensorType) or value in cheap:
                continue
            ends[value] = _ends(value, block, ends)
            if operation.name == "tt.load" or len(ends[value]) > 1:
                kept.add(value)
                ends[value] = {value}
    return kept


def _ends(value: Value, block: Block, ends: dict[Value, set[Operation | Value]]) -> set[Operation | Value]:
    """Where the elements of ``value`` are asked for."""
    found: set[Operation | Value] = set()
    for use in value.uses:
        if use.parent is not block:
            found |= {use, value}
        elif use.name in _IN_PLACE and isinstance(use.result.type, TensorType):
            found |= ends.get(use.result, {use})
        else:
            found.add(use)
    return found


def _cheap_values(block: Block) -> set[Value]:
    """Index arithmetic, and views and comparisons of it."""
    cheap: set[Value] = set()
    for operation in block.operations:
        inputs = [v for v in operation.operands if isinstance(v.type, TensorType)]
        name = operation.name
        indexing = name in VIEWS or name in ("tt.addptr", "arith.addi", "arith.subi", "arith.muli", "arith.cmpi")
        if name in INDEX_OPERATIONS or ((indexing or name == "arith.extsi") and all(v in cheap for v in inputs)):
            cheap.update(operation.results)
    return cheap
