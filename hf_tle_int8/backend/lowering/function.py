"""The program of a kernel: its operations in order, each through the handler of its name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from hf_tle_int8.backend.ir import FunctionBuilder, Operand
from hf_tle_int8.backend.lowering.elementwise import UnsupportedOperationError
from hf_tle_int8.backend.lowering.fusion import kept_values
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.arithmetic import Remainder
from hf_tle_int8.backend.tensors.chunks import fits_registers, in_memory, in_registers, lane_bits
from hf_tle_int8.backend.tensors.index import bits_of
from hf_tle_int8.backend.tensors.memory import Loaded
from hf_tle_int8.backend.tensors.stored import Registers, literal_chunks
from hf_tle_int8.backend.tensors.values import Evaluator, Splat, Tensor
from hf_tle_int8.backend.ttir import Block, Operation, TensorType, Value

Lowered = Operand | Tensor
Handler = Callable[["Lowering", Operation], Sequence[Lowered]]


class Lowering:
    """What is known while a function is lowered.

    Attributes:
        f: the function being written.
        e: evaluates tensors in it.
        target: what it is compiled for.
        grid: the three numbers of the program and the three extents of the grid.
        callees: functions that are being lowered within each other, as each calls the next.
    """

    def __init__(self, f: FunctionBuilder, target: Target, grid: Sequence[Operand], handlers: dict[str, Handler]):
        self.f = f
        self.e = Evaluator(f, target.masked_memory, target.vector_bytes)
        self.target = target
        self.grid = grid
        self.callees: list[Operation] = []
        self._handlers = handlers
        self._values: dict[Value, Lowered] = {}

    def define(self, values: Iterable[Value], lowered: Iterable[Lowered]) -> None:
        """Say what ``values`` are."""
        for value, result in zip(values, lowered, strict=True):
            self._values[value] = result

    def scalar(self, value: Value) -> Operand:
        """A scalar value."""
        result = self._values[value]
        assert isinstance(result, Operand)
        return result

    def tensor(self, value: Value) -> Tensor:
        """A tensor value."""
        result = self._values[value]
        assert isinstance(result, Tensor)
        return result

    def lowered(self, value: Value) -> Lowered:
        """A scalar or a tensor."""
        return self._values[value]

    def run(self, block: Block) -> Operation:
        """Lower all operations but the last, which is returned.

        Raises:
            UnsupportedOperationError: there is no handler for one.
        """
        kept = kept_values(block)
        for operation in block.operations[:-1]:
            handler = self._handlers.get(operation.name)
            if handler is None:
                raise UnsupportedOperationError(operation)
            results = handler(self, operation)
            for value, result in zip(operation.results, results, strict=True):
                keep = value in kept.always or (value in kept.unless_cheap and not self._is_cheap(result))
                self._values[value] = self.keep(value, result) if keep else result
        return block.terminator

    def keep(self, value: Value, result: Lowered) -> Lowered:
        """A tensor with its elements computed: in registers, or in memory where there are too many for that."""
        if isinstance(result, Operand | Registers | Splat):
            return result
        if isinstance(result, Remainder):
            return replace(result, kept=self._elements(value, replace(result)))
        return self._elements(value, result)

    def _elements(self, value: Value, tensor: Tensor) -> Tensor:
        if fits_registers(self.target, tensor.element, tensor.bits):
            return in_registers(self.e, self.target, tensor)
        return in_memory(self.e, self.target, tensor, last_dimension_bits(value))

    def _is_cheap(self, tensor: Lowered) -> bool:
        """Whether to read it again is no slower than to read a copy: vectors of a tensor that registers do not hold."""
        if not isinstance(tensor, Loaded) or fits_registers(self.target, tensor.element, tensor.bits):
            return False
        lanes = lane_bits(self.target, tensor.element, tensor.bits)
        return tensor.address.is_contiguous(self.e, next(literal_chunks(tensor.bits, lanes)))


def last_dimension_bits(value: Value) -> int:
    """log2 of the last extent of a tensor value."""
    assert isinstance(value.type, TensorType)
    return bits_of(value.type.shape[-1]) if value.type.shape else 0


def tensor_bits(value: Value) -> int:
    """log2 of the number of elements of a tensor value."""
    assert isinstance(value.type, TensorType)
    return bits_of(value.type.size)
