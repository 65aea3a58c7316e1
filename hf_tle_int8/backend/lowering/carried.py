"""What a loop hands from one iteration to the next, or a branch to what follows: scalars, vectors, memory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from hf_tle_int8.backend.ir import IRType, Operand
from hf_tle_int8.backend.lowering.function import Lowered, Lowering, last_dimension_bits, tensor_bits
from hf_tle_int8.backend.lowering.types import ir_type
from hf_tle_int8.backend.tensors.address import Address
from hf_tle_int8.backend.tensors.affine import Affine, as_affine
from hf_tle_int8.backend.tensors.chunks import fits_registers, in_memory, in_registers
from hf_tle_int8.backend.tensors.memory import row_major
from hf_tle_int8.backend.tensors.stored import Registers, as_element, stored_type
from hf_tle_int8.backend.tensors.values import Tensor
from hf_tle_int8.backend.ttir import TensorType, Value


class Slot(ABC):
    """A place for one value, as operands that phis can join."""

    @abstractmethod
    def operands(self, value: Lowered) -> list[Operand]:
        """Put a value into the slot; nothing that is in another slot is changed."""

    @abstractmethod
    def value(self, operands: Sequence[Operand]) -> Lowered:
        """What is in the slot."""

    def commit(self) -> None:  # noqa: B027 - only slots in memory have something to do
        """Called when all slots have their operands: now the value that was there before may be overwritten."""


class ScalarSlot(Slot):
    """A scalar."""

    def operands(self, value: Lowered) -> list[Operand]:
        """The scalar."""
        assert isinstance(value, Operand)
        return [value]

    def value(self, operands: Sequence[Operand]) -> Lowered:
        """The scalar."""
        return operands[0]


class RegisterSlot(Slot):
    """A tensor in registers."""

    def __init__(self, lowering: Lowering, bits: int):
        self._lowering, self._bits = lowering, bits

    def operands(self, value: Lowered) -> list[Operand]:
        """The vectors, row-major."""
        assert isinstance(value, Tensor)
        return list(in_registers(self._lowering.e, self._lowering.target, value).vectors)

    def value(self, operands: Sequence[Operand]) -> Lowered:
        """The tensor."""
        return Registers(operands, range(self._bits))


class MemorySlot(Slot):
    """A tensor in memory of the slot's own."""

    def __init__(self, lowering: Lowering, element: IRType, bits: int, inner: int):
        self._lowering, self._inner = lowering, inner
        stored = stored_type(element)
        self._place = lowering.f.allocate(stored, 1 << bits)
        self._tensor = as_element(row_major(self._place, stored, bits), element)
        self._staged: Tensor | None = None

    def operands(self, value: Lowered) -> list[Operand]:
        """None; the elements are computed into other memory, from which `commit` copies them."""
        assert isinstance(value, Tensor)
        self._staged = in_memory(self._lowering.e, self._lowering.target, value, self._inner)
        return []

    def commit(self) -> None:
        """Copy what `operands` was given last into the slot."""
        assert self._staged is not None
        in_memory(self._lowering.e, self._lowering.target, self._staged, self._inner, self._place)

    def value(self, operands: Sequence[Operand]) -> Lowered:
        """The tensor."""
        return self._tensor


class BaseSlot(Slot):
    """An address or an affine tensor of which only the base changes."""

    def __init__(self, initial: Address | Affine):
        self._initial = initial

    def operands(self, value: Lowered) -> list[Operand]:
        """The base."""
        assert isinstance(value, Address) or not isinstance(value, Operand)
        affine = value if isinstance(value, Address) else as_affine(value)
        assert affine is not None
        assert isinstance(affine.base, Operand)
        return [affine.base]

    def value(self, operands: Sequence[Operand]) -> Lowered:
        """The initial tensor from another base."""
        initial, (base,) = self._initial, operands
        if isinstance(initial, Address):
            return Address(base, initial.offsets, initial.pointee, initial.bits)
        return Affine(base, initial.terms, initial.bits)


def slot_for(lowering: Lowering, value: Value) -> Slot:
    """A slot for any value of the type of ``value``."""
    if not isinstance(value.type, TensorType):
        return ScalarSlot()
    element, bits = ir_type(value.type), tensor_bits(value)
    if fits_registers(lowering.target, element, bits):
        return RegisterSlot(lowering, bits)
    return MemorySlot(lowering, element, bits, last_dimension_bits(value))


def loop_slot(lowering: Lowering, initial: Value, argument: Value, following: Value) -> Slot:
    """A slot for what a loop carries as ``argument``, from ``initial`` and then ``following``."""
    if isinstance(initial.type, TensorType) and moves_uniformly(argument, following):
        start = lowering.lowered(initial)
        if isinstance(start, Address) and isinstance(start.base, Operand):
            return BaseSlot(start)
        affine = None if isinstance(start, Operand) else as_affine(start)
        if affine is not None:
            return BaseSlot(affine)
    return slot_for(lowering, argument)


def moves_uniformly(argument: Value, following: Value) -> bool:
    """Whether ``following`` is ``argument`` with the same number added everywhere."""
    if following is argument:
        return True
    operation = following.defining_op
    if operation is None or operation.name not in ("tt.addptr", "arith.addi", "arith.subi"):
        return False
    first, second = operation.operands
    if _is_uniform(second):
        return moves_uniformly(argument, first)
    return operation.name == "arith.addi" and _is_uniform(first) and moves_uniformly(argument, second)


def _is_uniform(value: Value) -> bool:
    operation = value.defining_op
    if operation is None:
        return False
    if operation.name == "arith.constant":
        return bool(operation.attributes["value"].is_splat)
    return operation.name == "tt.splat"
