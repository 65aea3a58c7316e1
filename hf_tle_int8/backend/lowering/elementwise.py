"""Operations that compute each element from the same element of their operands: tables from name to builder."""

from collections.abc import Callable, Sequence

from hf_tle_int8.backend import casts, vector_math
from hf_tle_int8.backend.ir import FunctionBuilder, IRType, Operand, constant
from hf_tle_int8.backend.lowering import integers
from hf_tle_int8.backend.lowering.types import ir_type
from hf_tle_int8.backend.ttir import Operation

Builder = Callable[[FunctionBuilder, Operation, Sequence[Operand]], Operand]

# By MLIR's numbers of the predicates of arith.cmpi and arith.cmpf.
INTEGER_PREDICATES = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")
_FLOAT_PREDICATES = (
    "false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord", "ueq", "ugt", "uge", "ult", "ule", "une", "uno", "true",
)  # fmt: skip

_WRAPPING = {"addi": "add", "subi": "sub", "muli": "mul", "andi": "and", "ori": "or", "xori": "xor"}
_DIVISIONS = {"divsi": "sdiv", "divui": "udiv", "remsi": "srem", "remui": "urem"}
_SHIFTS = {"shli": "shl", "shrsi": "ashr", "shrui": "lshr"}
_INTEGER_INTRINSICS = {"maxsi": "smax", "maxui": "umax", "minsi": "smin", "minui": "umin"}
_FLOAT_ARITHMETIC = {"addf": "fadd", "subf": "fsub", "mulf": "fmul", "divf": "fdiv", "remf": "frem"}
# maxnum and minnum ignore one NaN, maximum and minimum return it.
_FLOAT_INTRINSICS = {"maxnumf": "maxnum", "minnumf": "minnum", "maximumf": "maximum", "minimumf": "minimum"}


class UnsupportedOperationError(NotImplementedError):
    """A kernel uses an operation that this backend does not have; names it and the line of the kernel."""

    def __init__(self, operation: Operation, reason: str = "is not supported on CPUs"):
        super().__init__(f"{operation.location}: {operation.name} {reason}.")


def lower_elementwise(f: FunctionBuilder, operation: Operation, operands: Sequence[Operand]) -> Operand:
    """Write the instructions of an operation of `ELEMENTWISE` on operands of the same number of lanes.

    Raises:
        UnsupportedOperationError: there is no such operation.
    """
    builder = ELEMENTWISE.get(operation.name)
    if builder is None:
        raise UnsupportedOperationError(operation)
    return builder(f, operation, operands)


def _binary(op: str) -> Builder:
    return lambda f, _, operands: f.binary(op, *operands)


def _division(op: str) -> Builder:
    return lambda f, _, operands: integers.divide(f, op, *operands)


def _shift(op: str) -> Builder:
    return lambda f, _, operands: integers.shift(f, op, *operands)


def _intrinsic(name: str) -> Builder:
    return lambda f, _, operands: f.intrinsic(name, *operands)


def _float_binary(op: str) -> Builder:
    return lambda f, _, operands: casts.in_float32(f, operands, lambda a, b: f.binary(op, a, b))


def _function(emit: vector_math.Emitter) -> Builder:
    return lambda f, _, operands: emit(f, operands[0])


def _float_intrinsic(name: str) -> Builder:
    return lambda f, _, operands: casts.in_float32(f, operands, lambda *wide: f.intrinsic(name, *wide))


def _compare_integers(f: FunctionBuilder, operation: Operation, operands: Sequence[Operand]) -> Operand:
    return f.compare(INTEGER_PREDICATES[operation.attributes["predicate"]], *operands)


def _compare_floats(f: FunctionBuilder, operation: Operation, operands: Sequence[Operand]) -> Operand:
    wide = (casts.at_least_float32(f, operand) for operand in operands)
    return f.compare(_FLOAT_PREDICATES[operation.attributes["predicate"]], *wide)


def _select(f: FunctionBuilder, _: Operation, operands: Sequence[Operand]) -> Operand:
    condition, a, b = operands
    if a.type.lanes and not condition.type.lanes:
        condition = f.splat(condition, a.type.lanes)
    return f.select(condition, a, b)


def _negate(f: FunctionBuilder, _: Operation, operands: Sequence[Operand]) -> Operand:
    (a,) = operands
    if a.type.scalar not in casts.NARROW:
        return f.negate(a)
    bits = f.cast("bitcast", a, IRType("i16"))
    return f.cast("bitcast", f.binary("xor", bits, constant(bits.type, 0x8000)), a.type.scalar)


def _clamp(f: FunctionBuilder, operation: Operation, operands: Sequence[Operand]) -> Operand:
    """``tt.clampf``: NaN stays NaN where ``propagateNan`` asks for it (0xFFFF), else becomes the lower bound."""
    suffix = "imum" if operation.attributes["propagateNan"] else "num"

    def clamp(x: Operand, low: Operand, high: Operand) -> Operand:
        return f.intrinsic(f"min{suffix}", f.intrinsic(f"max{suffix}", x, low), high)

    return casts.in_float32(f, operands, clamp)


def _to(cast: Callable[..., Operand], *arguments: object) -> Builder:
    """A conversion to the type of the operation's result."""
    return lambda f, operation, operands: cast(f, *arguments, operands[0], ir_type(operation.result.type))


def _integer_extension(op: str) -> Builder:
    return lambda f, operation, operands: f.cast(op, operands[0], ir_type(operation.result.type))


def _float_to_float(f: FunctionBuilder, operation: Operation, operands: Sequence[Operand]) -> Operand:
    """``tt.fp_to_fp``; rounding modes other than to nearest even are refused."""
    rounding = operation.attributes.get("rounding")
    if rounding not in (None, 1):
        raise UnsupportedOperationError(operation, f"with rounding mode {rounding} is not supported on CPUs")
    return casts.convert_float(f, operands[0], ir_type(operation.result.type))


def _absolute(f: FunctionBuilder, _: Operation, operands: Sequence[Operand]) -> Operand:
    return integers.absolute(f, operands[0])


def _multiply_high(f: FunctionBuilder, _: Operation, operands: Sequence[Operand]) -> Operand:
    return integers.multiply_high(f, *operands)


ELEMENTWISE: dict[str, Builder] = {
    **{f"arith.{name}": _binary(op) for name, op in _WRAPPING.items()},
    **{f"arith.{name}": _division(op) for name, op in _DIVISIONS.items()},
    **{f"arith.{name}": _shift(op) for name, op in _SHIFTS.items()},
    **{f"arith.{name}": _intrinsic(op) for name, op in _INTEGER_INTRINSICS.items()},
    **{f"arith.{name}": _float_binary(op) for name, op in _FLOAT_ARITHMETIC.items()},
    **{f"arith.{name}": _float_intrinsic(op) for name, op in _FLOAT_INTRINSICS.items()},
    **{name: _function(emit) for name, emit in vector_math.FUNCTIONS.items()},
    "arith.negf": _negate,
    "arith.cmpi": _compare_integers,
    "arith.cmpf": _compare_floats,
    "arith.select": _select,
    "arith.extsi": _integer_extension("sext"),
    "arith.extui": _integer_extension("zext"),
    "arith.trunci": _integer_extension("trunc"),
    "arith.index_cast": _to(casts.integer_cast, True),
    "arith.index_castui": _to(casts.integer_cast, False),
    "arith.sitofp": _to(casts.integer_to_float, "sitofp"),
    "arith.uitofp": _to(casts.integer_to_float, "uitofp"),
    "arith.fptosi": _to(casts.float_to_integer, True),
    "arith.fptoui": _to(casts.float_to_integer, False),
    "arith.extf": _to(casts.convert_float),
    "arith.truncf": _to(casts.convert_float),
    "arith.bitcast": _to(casts.bitcast),
    "math.absi": _absolute,
    "math.fma": _float_intrinsic("fma"),
    "tt.bitcast": _to(casts.bitcast),
    "tt.int_to_ptr": _to(casts.bitcast),
    "tt.ptr_to_int": _to(casts.bitcast),
    "tt.fp_to_fp": _float_to_float,
    "tt.clampf": _clamp,
    "tt.mulhiui": _multiply_high,
    "tt.precise_sqrt": _float_intrinsic("sqrt"),
    "tt.precise_divf": _float_binary("fdiv"),
}
