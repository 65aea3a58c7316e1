"""``tt.gather``: elements along one dimension, each at an index of its own."""

from collections.abc import Sequence

from hf_tle_int8.backend.casts import integer_cast
from hf_tle_int8.backend.ir import I1, I8, I64, FunctionBuilder, Operand, constant
from hf_tle_int8.backend.lowering.function import Handler, Lowered, Lowering, last_dimension_bits, tensor_bits
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.affine import Affine, Term
from hf_tle_int8.backend.tensors.chunks import in_memory
from hf_tle_int8.backend.tensors.index import dimension_bits
from hf_tle_int8.backend.tensors.memory import Loaded
from hf_tle_int8.backend.tensors.stored import as_element
from hf_tle_int8.backend.tensors.values import Elementwise, Tensor
from hf_tle_int8.backend.ttir import Operation, TensorType


def _gather(lowering: Lowering, operation: Operation) -> Sequence[Lowered]:
    """An index outside of the dimension reads some element of it, and nothing else."""
    source, indices = operation.operands
    assert isinstance(source.type, TensorType)
    assert isinstance(indices.type, TensorType)
    axis, bits = operation.attributes["axis"], tensor_bits(indices)
    places = dimension_bits(source.type.shape)
    mask, low = source.type.shape[axis] - 1, places[axis].start

    def along_axis(f: FunctionBuilder, operands: Sequence[Operand]) -> Operand:
        index = integer_cast(f, True, operands[0], I64)
        index = f.binary("and", index, constant(index.type, mask))
        return f.binary("shl", index, constant(index.type, low))

    coefficients = [0] * bits
    for dimension, numbers in enumerate(dimension_bits(indices.type.shape)):
        if dimension != axis:
            for number, place in zip(numbers, places[dimension], strict=True):
                coefficients[number] = 1 << place
    across = Affine(constant(I64, 0), (Term(None, tuple(coefficients)),), bits)
    along = Elementwise(I64, bits, [lowering.tensor(indices)], along_axis)
    return [_read(lowering, lowering.tensor(source), last_dimension_bits(source), (across, along))]


def _read(lowering: Lowering, source: Tensor, inner: int, offsets: tuple[Tensor, ...]) -> Tensor:
    if source.element == I1:
        stored = Elementwise(I8, source.bits, [source], lambda f, operands: f.cast("zext", operands[0], I8))
        return as_element(_read(lowering, stored, inner, offsets), I1)
    e = lowering.e
    copy = e.in_memory(source, lambda e: in_memory(e, lowering.target, source, inner))
    assert isinstance(copy, Loaded)
    return Loaded(Address(copy.address.base, offsets, source.element, offsets[0].bits))


GATHERS: dict[str, Handler] = {"tt.gather": _gather}
