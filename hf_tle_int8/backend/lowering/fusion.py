"""Which tensors of a block are computed where they stand, and which only inside of the one operation that uses them."""

from hf_tle_int8.backend.lowering.elementwise import ELEMENTWISE
from hf_tle_int8.backend.ttir import Block, Operation, TensorType, Value

# Operations whose results are functions of the indices and a few scalars: never worth keeping.
INDEX_OPERATIONS = frozenset({"tt.make_range", "tt.splat", "arith.constant"})
VIEWS = frozenset({"tt.expand_dims", "tt.broadcast", "tt.reshape", "tt.trans"})
# Operations that are as cheap as their operands.
_INDEXING = VIEWS | {"tt.split", "tt.addptr", "tt.bitcast"}
_INDEXING |= {"arith.addi", "arith.subi", "arith.muli", "arith.cmpi", "arith.extsi"}
# Operations whose results are in registers or memory of their own.
_STORED = frozenset({"tt.dot", "tt.reduce", "scf.for", "scf.if", "scf.while"})
_IN_PLACE = VIEWS | {"tt.addptr", "tt.join", "tt.cat"} | set(ELEMENTWISE)
# Operations that store nothing outside of the kernel's own memory.
_HARMLESS = (
    set(_IN_PLACE)
    | INDEX_OPERATIONS
    | _STORED
    | {"tt.load", "tt.reduce.return", "scf.yield", "scf.condition", "tt.get_program_id", "tt.get_num_programs"}
)


def kept_values(block: Block) -> set[Value]:
    """The tensors whose elements are computed and kept where they are defined.

    These are what is loaded, so that loads and stores keep their order, and what more than one operation, or one in
    a nested region, would compute otherwise. The rest is computed element by element where it is used. What products
    alone read is loaded by them, if nothing is stored before.
    """
    ends: dict[Value, set[Operation | Value]] = {}
    kept: set[Value] = set()
    cheap = _cheap_values(block)
    for operation in reversed(block.operations):
        for value in operation.results:
            if not isinstance(value.type, TensorType) or value in cheap:
                continue
            found = _ends(value, block, ends)
            if operation.name in _STORED:
                found = {value}
            elif len(found) > 1 if operation.name != "tt.load" else not _is_read_by_products(operation, found):
                kept.add(value)
                found = {value}
            ends[value] = found
    return kept


def _is_read_by_products(load: Operation, ends: set[Operation | Value]) -> bool:
    """Whether products in the same block are all that reads what is loaded, before anything may be stored."""
    products = [end for end in ends if isinstance(end, Operation) and end.name == "tt.dot"]
    assert load.parent is not None
    operations = load.parent.operations
    if len(products) < len(ends) or any(product.parent is not load.parent for product in products):
        return False
    last = max(map(operations.index, products), default=0)
    between = operations[operations.index(load) : last]
    return all(inner.name in _HARMLESS for operation in between for inner in operation.walk())


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
        if name in INDEX_OPERATIONS or (name in _INDEXING and all(v in cheap for v in inputs)):
            cheap.update(operation.results)
    return cheap
