"""Operations, blocks and values of TTIR: what the parser builds and the lowering reads."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hf_tle_int8.backend.ttir.types import FunctionType, TensorType, Type


@dataclass(frozen=True)
class Location:
    """Where in the source an operation comes from.

    Attributes:
        frames: ``(file, line)`` of the operation and of each call that leads to it, innermost first; empty where
            Triton does not know. The last one is in the kernel itself, the others in functions that it calls.
    """

    frames: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        if not self.frames:
            return "an unknown line"
        innermost, *_, outermost = (f"{file}:{line}" for file, line in (self.frames[0], self.frames[-1]))
        return innermost if innermost == outermost else f"{outermost} (in a call, at {innermost})"


@dataclass(frozen=True)
class DenseElements:
    """A constant tensor.

    Attributes:
        type: of the tensor.
        values: one value that every element has, or all of them in row-major order. Floats are Python floats (a NaN
            with payload keeps no payload), integers are signed.
    """

    type: TensorType
    values: tuple[int | float, ...]

    @property
    def is_splat(self) -> bool:
        """Whether all elements are the same value."""
        return len(self.values) == 1


@dataclass(eq=False)
class Value:
    """An SSA value: the result of an operation, or an argument of a block."""

    name: str
    type: Type
    owner: "Operation | Block | None" = None
    uses: list["Operation"] = field(default_factory=list, repr=False)

    @property
    def defining_op(self) -> "Operation | None":
        """The operation that computes this value; None for an argument of a block."""
        return self.owner if isinstance(self.owner, Operation) else None

    def __repr__(self) -> str:
        return f"Value({self.name}: {self.type})"


@dataclass(eq=False)
class Operation:
    """One operation.

    Attributes:
        name: with its dialect, such as ``arith.addf``.
        operands: values that it uses.
        results: values that it defines.
        attributes: properties and attributes: int, float, bool, str, list, `Type` or `DenseElements`.
        regions: nested regions, such as the body of a loop.
        successors: blocks that a branch may go to.
        location: line of the kernel's source.
        parent: the block that it is in; None for the module.
    """

    name: str
    operands: list[Value]
    results: list[Value]
    attributes: dict[str, Any]
    regions: list["Region"]
    successors: list["Block"]
    location: Location
    parent: "Block | None" = None

    @property
    def result(self) -> Value:
        """The only result."""
        (result,) = self.results
        return result

    def operand_segments(self) -> list[list[Value]]:
        """The operands by ``operandSegmentSizes``, one list for each of the operation's declared operands."""
        segments, start = [], 0
        for size in self.attributes["operandSegmentSizes"]:
            segments.append(self.operands[start : start + size])
            start += size
        return segments

    @property
    def callee(self) -> "Operation":
        """The function that ``tt.call`` names."""
        module = self
        while module.parent is not None:
            assert module.parent.region is not None
            assert module.parent.region.parent is not None
            module = module.parent.region.parent
        return Module(module).functions[self.attributes["callee"].removeprefix("@")]

    def walk(self) -> Iterator["Operation"]:
        """This operation and all that are nested in it, in order."""
        yield self
        for region in self.regions:
            for block in region.blocks:
                for operation in block.operations:
                    yield from operation.walk()

    def __repr__(self) -> str:
        return f"Operation({self.name} at {self.location})"


@dataclass(eq=False)
class Block:
    """A straight line of operations; the last one ends it."""

    label: str
    arguments: list[Value] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    region: "Region | None" = field(default=None, repr=False)

    @property
    def terminator(self) -> Operation:
        """The operation that ends the block."""
        return self.operations[-1]


@dataclass(eq=False)
class Region:
    """The blocks nested in an operation; control enters at the first."""

    blocks: list[Block] = field(default_factory=list)
    parent: Operation | None = field(default=None, repr=False)

    @property
    def entry(self) -> Block:
        """The first block."""
        return self.blocks[0]


@dataclass(eq=False)
class Module:
    """A module: its functions by name."""

    operation: Operation

    @property
    def functions(self) -> dict[str, Operation]:
        """``tt.func`` operations by symbol name."""
        found = self.operation.regions[0].entry.operations
        return {op.attributes["sym_name"]: op for op in found if op.name == "tt.func"}

    @property
    def kernel(self) -> Operation:
        """The function that a launch runs: the public one.

        Raises:
            ValueError: there is none, or more than one.
        """
        public = [f for f in self.functions.values() if f.attributes.get("sym_visibility") == "public"]
        if len(public) != 1:
            raise ValueError(f"the module has {len(public)} public functions: a kernel is exactly one.")
        return public[0]

    @property
    def kernel_type(self) -> FunctionType:
        """The signature of the kernel."""
        return self.kernel.attributes["function_type"]
