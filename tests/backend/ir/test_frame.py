from hf_tle_int8.backend.ir import PTR, Operand
from hf_tle_int8.backend.ir.frame import ALIGNMENT, STACK_BYTES, place_buffers

SMALL, LARGE, LARGER = (Operand(PTR, f"%{name}") for name in ("small", "large", "larger"))


def test_what_fits_is_on_the_stack():
    lines, scratch = place_buffers([(LARGE, STACK_BYTES - ALIGNMENT), (SMALL, 3)])
    assert scratch == 0
    assert lines == ["  %small = alloca [3 x i8], align 64", f"  %large = alloca [{STACK_BYTES - 64} x i8], align 64"]


def test_the_largest_are_elsewhere_and_aligned():
    lines, scratch = place_buffers([(LARGER, STACK_BYTES + 2), (SMALL, 3), (LARGE, STACK_BYTES + 1)])
    assert lines == [
        "  %small = alloca [3 x i8], align 64",
        "  %large = getelementptr i8, ptr %scratch, i64 0",
        f"  %larger = getelementptr i8, ptr %scratch, i64 {STACK_BYTES + ALIGNMENT}",
    ]
    assert scratch == 2 * (STACK_BYTES + ALIGNMENT)
