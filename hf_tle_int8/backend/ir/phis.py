"""Basic blocks, and values that depend on where a block is entered from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_tle_int8.backend.ir.operands import I16, Operand


@dataclass(eq=False)
class Label:
    """A basic block of the function being written."""

    name: str
    lines: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Phi:
    """A phi at line ``line`` of the block ``label``."""

    label: Label
    line: int
    result: Operand
    incoming: list[tuple[Operand, Label]] = field(default_factory=list)


def write_phis(phis: Sequence[Phi]) -> None:
    """Write the phis of a function, all of whose blocks are complete; bf16 is handed over as its bits.

    Where CPUs lack bf16, LLVM would hand over every lane as an fp32, and call a function of its runtime library to
    narrow it again.
    """
    casts: dict[Label, list[str]] = {}
    for phi in phis:
        result, incoming = phi.result, phi.incoming
        if result.type.base == "bfloat":
            result = Operand(result.type.of(I16), f"{result.text}.bits")
            incoming = [_bits(source, value, f"{result.text}.{n}") for n, (value, source) in enumerate(incoming)]
            casts.setdefault(phi.label, []).append(f"  {phi.result.text} = bitcast {result.typed} to {phi.result.type}")
        pairs = ", ".join(f"[ {value.text}, %{source.name} ]" for value, source in incoming)
        phi.label.lines[phi.line] = f"  {result.text} = phi {result.type} {pairs}"
    for label, lines in casts.items():
        first = sum(phi.label is label for phi in phis)
        label.lines[first:first] = lines


def _bits(source: Label, value: Operand, name: str) -> tuple[Operand, Label]:
    """``value`` as an integer, at the end of the block that it comes from."""
    integer = Operand(value.type.of(I16), name)
    source.lines.insert(-1, f"  {name} = bitcast {value.typed} to {integer.type}")
    return integer, source
