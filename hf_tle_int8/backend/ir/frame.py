"""Memory of one call of a function: on the stack as far as any thread has that much, the rest where its caller says."""

from collections.abc import Sequence

from hf_tle_int8.backend.ir.operands import PTR, Operand

# Threads have stacks of 2 to 8 MB, of which other functions hold a part.
STACK_BYTES = 1 << 18
ALIGNMENT = 64
# The parameter that holds the address of what is not on the stack.
SCRATCH = Operand(PTR, "%scratch")


def place_buffers(buffers: Sequence[tuple[Operand, int]]) -> tuple[list[str], int]:
    """Place buffers, the smallest on the stack.

    Args:
        buffers: the operand that is to hold the address of each, and its size in bytes.

    Returns:
        The instructions that define the operands, and how many bytes there must be at `SCRATCH`; 0 if there need not
        be any.
    """
    lines, on_stack, scratch = [], 0, 0
    for address, size in sorted(buffers, key=lambda buffer: buffer[1]):
        padded = -(-size // ALIGNMENT) * ALIGNMENT
        if on_stack + padded <= STACK_BYTES:
            on_stack += padded
            lines.append(f"  {address.text} = alloca [{size} x i8], align {ALIGNMENT}")
        else:
            lines.append(f"  {address.text} = getelementptr i8, {SCRATCH.typed}, i64 {scratch}")
            scratch += padded
    return lines, scratch
