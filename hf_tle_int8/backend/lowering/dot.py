"""``tt.dot``: accumulators in registers where all of them fit, else in memory, a block in registers at a time."""

from collections.abc import Sequence

from hf_tle_int8.backend.casts import convert_float
from hf_tle_int8.backend.dot.accumulator import Accumulator, no_excess, start, vector_at
from hf_tle_int8.backend.dot.operands import ready_operands
from hf_tle_int8.backend.dot.plan import NOWHERE, Plan, block_indices, outer_bits, plan
from hf_tle_int8.backend.dot.product import Product
from hf_tle_int8.backend.dot.tiles import is_zero, load_tile, store_tile, zero_tile
from hf_tle_int8.backend.ir import IRType, Operand
from hf_tle_int8.backend.lowering.assumptions import WITHOUT_LEAST
from hf_tle_int8.backend.lowering.elementwise import ELEMENTWISE, UnsupportedOperationError
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering
from hf_tle_int8.backend.lowering.types import ir_type
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.chunks import bit_loop, make_indexable
from hf_tle_int8.backend.tensors.index import Index, Lane, LoopBit, Source
from hf_tle_int8.backend.tensors.memory import store
from hf_tle_int8.backend.tensors.reordered import Reordered, copy_reordered
from hf_tle_int8.backend.tensors.shuffles import expand
from hf_tle_int8.backend.tensors.values import Elementwise, Evaluator, Tensor
from hf_tle_int8.backend.ttir import Block, Operation, TensorType, Value


def _dot(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    chosen = plan_of(lowering.target, operation)
    a, b, c = map(lowering.tensor, operation.operands)
    kind = chosen.instruction.accumulator
    initial = _converted(c, kind)
    rows, columns = ready_operands(lowering.e, lowering.target, chosen, *((b, a) if chosen.swapped else (a, b)))
    product = Product(lowering.e, chosen, rows, columns)
    if chosen.in_registers:
        sums = start(lowering.e, chosen, initial)
        result: Tensor = Accumulator(chosen, *product.add(sums.vectors, sums.pending, NOWHERE))
    else:
        result = _in_memory(lowering, product, initial, _place(lowering, operation, chosen))
    return [_converted(result, ir_type(operation.result.type))]


def _converted(tensor: Tensor, kind: IRType) -> Tensor:
    """A tensor of floats as one of another type of floats."""
    if tensor.element == kind:
        return tensor
    return Elementwise(kind, tensor.bits, [tensor], lambda f, values: convert_float(f, values[0], kind))


def plan_of(target: Target, operation: Operation) -> Plan:
    """The plan of a ``tt.dot``.

    Raises:
        UnsupportedOperationError: there are no products of its types.
    """
    a, b, result = (value.type for value in (*operation.operands[:2], operation.result))
    assert isinstance(a, TensorType)
    assert isinstance(b, TensorType)
    element = ir_type(a)
    accumulates = ir_type(result)
    if element == ir_type(b) and (element.is_float == accumulates.is_float):
        try:
            found = plan(target, element, a.shape, b.shape, WITHOUT_LEAST in operation.attributes)
        except KeyError:
            pass
        else:
            if accumulates.is_float or found.instruction.accumulator == accumulates:
                return found
    types = f"of {a.element} by {b.element} to {ir_type(result)}"
    raise UnsupportedOperationError(operation, f"{types} is not supported on CPUs")


def accumulated_by(target: Target, argument: Value) -> Plan | None:
    """The plan of the product that adds to a tensor which a loop carries, directly or after elementwise operations."""
    values, seen = [argument], set()
    while values:
        value = values.pop()
        for use in value.uses:
            if use in seen or use.parent is not argument.owner:
                continue
            seen.add(use)
            if use.name == "tt.dot" and use.operands[2] is value:
                found = plan_of(target, use)
                if ir_type(value.type) == found.instruction.accumulator:
                    return found
            if use.name in ELEMENTWISE and use.result.type == argument.type:
                values.append(use.result)
    return None


def _place(lowering: Lowering, operation: Operation, chosen: Plan) -> Reordered:
    """Where the result goes: where what it is added to is, if nothing else reads that."""
    argument = _only_added_to(operation)
    if argument is not None:
        carried = lowering.tensor(argument)
        if isinstance(carried, Reordered) and carried.order == chosen.layout:
            return carried
    kind = chosen.instruction.accumulator
    return Reordered(lowering.f.allocate(kind, 1 << len(chosen.layout)), kind, chosen.layout)


def _only_added_to(operation: Operation) -> Value | None:
    """The argument of a loop that a product is added to, elementwise operations between, which nothing else reads.

    The product must be what the loop carries on in the same place.
    """
    block = operation.parent
    assert block is not None
    position = _carried_as(operation, block)
    if position is None:
        return None
    argument = block.arguments[position + 1]
    value, reader = argument, None
    while reader is not operation:
        if len(value.uses) != 1 or (reader := value.uses[0]).parent is not block:
            return None
        if reader is operation:
            return argument if operation.operands[2] is value else None
        if reader.name not in ELEMENTWISE or reader.result.type != argument.type:
            return None
        value = reader.result
    return None


def _carried_as(operation: Operation, block: Block) -> int | None:
    """Which of the values that a ``scf.for`` carries on is the operation's result, if that is its only use."""
    loop = block.region.parent if block.region else None
    if loop is None or loop.name != "scf.for" or operation.result.uses != [block.terminator]:
        return None
    carried = [place for place, value in enumerate(block.terminator.operands) if value is operation.result]
    return carried[0] if len(carried) == 1 else None


def _in_memory(lowering: Lowering, product: Product, initial: Tensor, result: Reordered) -> Tensor:
    """A loop over the blocks."""
    e, f, chosen = lowering.e, lowering.f, product.plan
    bits, block = len(chosen.layout), len(chosen.layout) - len(chosen.outer_layout)
    if chosen.instruction.tiles and not (is_zero(initial) or initial is result):
        initial = copy_reordered(e, lowering.target, initial, chosen.layout)
    make_indexable(e, [initial])
    loop, variable = bit_loop(f, block, bits)
    places: list[Source] = [LoopBit(variable, place) for place in range(block, bits)]
    with e.scope():
        indices = block_indices(chosen, places)
        vectors = [_accumulators_at(e, chosen, initial, index) for index in indices]
        sums, excess = product.add(vectors, no_excess(chosen), outer_bits(chosen, places))
        if excess:
            sums = [f.binary("sub", vector, excess[number % len(excess)]) for number, vector in enumerate(sums)]
        for number, vector in enumerate(sums):
            _store(lowering, chosen, result, places, number, vector)
    loop.close()
    return result


def _accumulators_at(e: Evaluator, chosen: Plan, initial: Tensor, index: Index) -> Operand:
    if not chosen.instruction.tiles:
        return vector_at(e, initial, index)
    return zero_tile(e.f) if is_zero(initial) else load_tile(e, initial, index)


def _store(
    lowering: Lowering, chosen: Plan, result: Reordered, places: Sequence[Source], number: int, vector: Operand
) -> None:
    """Store vector ``number`` of a block, without the lanes that are held twice."""
    block = [number >> bit & 1 for bit in range(chosen.row_block + chosen.column_block)]
    if chosen.instruction.tiles:
        first = Index((*[0] * chosen.instruction.lane_bits, *block, *places))
        store_tile(lowering.f, vector, lowering.e.at(result.address, first))
        return
    lanes = [place for place, bit in enumerate(chosen.lane_layout) if bit is not None]
    if len(lanes) < chosen.instruction.lane_bits:
        numbers = [sum((n >> i & 1) << lane for i, lane in enumerate(lanes)) for n in range(1 << len(lanes))]
        vector = expand(lowering.f, vector, numbers) if lanes else lowering.f.extract(vector, 0)
    index = Index((*map(Lane, range(len(lanes))), *block, *places), len(lanes))
    store(lowering.e, result.address, index, vector, None)


DOT: dict[str, Handler] = {"tt.dot": _dot}
