"""Which tensors of a block are computed where they stand, and which only inside of the operations that use them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hf_tle_int8.backend.lowering.elementwise import ELEMENTWISE
from hf_tle_int8.backend.ttir import Block, Operation, TensorType, Value

# Operations whose results are functions of the indices and a few scalars: never worth keeping.
INDEX_OPERATIONS = frozenset({"tt.make_range", "tt.splat", "arith.constant"})
VIEWS = frozenset({"tt.expand_dims", "tt.broadcast", "tt.reshape", "tt.trans"})
_INDEX_ARITHMETIC = frozenset(
    f"arith.{name}" for name in ("addi", "subi", "muli", "cmpi", "andi", "extsi", "extui")
)  # fmt: skip
_REMAINDERS = frozenset({"arith.remsi", "arith.remui"})
_IN_PLACE = VIEWS | {"tt.addptr", "tt.join", "tt.cat"} | set(ELEMENTWISE)
# Operations whose results are in registers or memory of their own.
_STORED = frozenset({"tt.dot", "tt.reduce", "scf.for", "scf.if", "scf.while"})
# Operations that ask for each element of an operand, while nothing is written but what they write themselves.
_CONSUMERS = frozenset({"tt.store", "tt.reduce", "tt.dot", "scf.yield"})
_WITHOUT_EFFECT = (
    _IN_PLACE
    | INDEX_OPERATIONS
    | _STORED
    | {"tt.load", "tt.split", "tt.gather", "tt.bitcast", "tt.get_program_id", "tt.get_num_programs"}
    | {"tt.map_elementwise", "tt.map_elementwise.return", "tt.reduce.return", "scf.condition", "scf.yield"}
    | {"tt.unsplat", "ttg.barrier"}
)

# Operations that ask for elements, values that are kept, and None for one that must have what is loaded at once.
_Ends = set[Operation | Value | None]


@dataclass(frozen=True)
class Kept:
    """What is computed where it is defined.

    Attributes:
        always: values that are kept.
        unless_cheap: loaded values that are asked for several times or reduced, but may be read again each time.
    """

    always: set[Value]
    unless_cheap: set[Value]


def kept_values(block: Block) -> Kept:
    """The tensors whose elements are computed and kept where they are defined.

    These are what more than one operation, or one in a nested region, would compute otherwise, remainders of index
    arithmetic, and what is loaded where it may be overwritten before it is used. The rest is computed element by
    element where it is used, and what products read, by each of them.
    """
    kept = Kept(set(), set())
    ends: dict[Value, _Ends] = {}
    cheap, place = _cheap_values(block), {operation: number for number, operation in enumerate(block.operations)}
    for operation in reversed(block.operations):
        for value in operation.results:
            if not isinstance(value.type, TensorType):
                continue
            if value in cheap:
                if operation.name in _REMAINDERS:
                    kept.always.add(value)
                continue
            if operation.name in _STORED:
                ends[value] = {value}
                continue
            found = _ends(value, block, ends)
            loads, multiplied = operation.name == "tt.load", _are(found - {None}, "tt.dot", all)
            # A product chooses the order in which it reads; a reduction has none: it is given copies.
            waits = not loads or _can_wait(operation, found - {None} if multiplied else found, place)
            once = (loads and multiplied) or len(found - {None}) <= 1
            if once and waits and not (loads and _are(found, "tt.reduce", any)):
                ends[value] = found
            elif waits and loads:
                kept.unless_cheap.add(value)
                ends[value] = found | {value}
            else:
                kept.always.add(value)
                ends[value] = {value}
    return kept


def _are(ends: _Ends, name: str, how_many: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether any or all of the ends are operations of this name."""
    return how_many(isinstance(end, Operation) and end.name == name for end in ends)


def _ends(value: Value, block: Block, ends: dict[Value, _Ends]) -> _Ends:
    """Where the elements of ``value`` are asked for."""
    found: _Ends = set()
    for use in value.uses:
        if use.parent is not block:
            found |= {use, value}
        elif (use.name in _IN_PLACE or use.name == "tt.load") and isinstance(use.result.type, TensorType):
            found |= ends.get(use.result, {use})
            if use.name == "tt.trans":
                found.add(None)
        else:
            found.add(use)
            if use.name == "tt.store" and value is not use.operands[1]:
                found.add(None)
    return found


def _can_wait(load: Operation, ends: _Ends, place: dict[Operation, int]) -> bool:
    """Whether memory is the same at the ``ends`` as at the load, but for what a store at an end itself writes."""
    if load.attributes.get("isVolatile"):
        return False
    last = place[load]
    for end in ends:
        operation = end.defining_op if isinstance(end, Value) else end
        if operation is None or operation not in place:
            return False
        if not isinstance(end, Value) and operation.name not in _CONSUMERS:
            return False
        last = max(last, place[operation])
    between = load.parent.operations[place[load] + 1 : last] if load.parent else ()
    return all(nested.name in _WITHOUT_EFFECT for operation in between for nested in operation.walk())


def _cheap_values(block: Block) -> set[Value]:
    """Index arithmetic, and views and comparisons of it."""
    indexing = VIEWS | _INDEX_ARITHMETIC | _REMAINDERS | {"tt.split", "tt.addptr", "tt.bitcast"}
    cheap: set[Value] = set()
    for operation in block.operations:
        inputs = [v for v in operation.operands if isinstance(v.type, TensorType)]
        if operation.name in INDEX_OPERATIONS or (operation.name in indexing and all(v in cheap for v in inputs)):
            cheap.update(operation.results)
    return cheap
