"""What the inner loops of all kernels and tiles are made of, on all targets that differ in int8."""

import pytest
import torch
from linear_runs import Linear, choices
from machine_code import busiest, count

from hf_tle_int8.backend.dot.plan import plan
from hf_tle_int8.backend.ir import I8
from hf_tle_int8.backend.target import TARGETS
from hf_tle_int8.dispatch import scheme

PATTERNS = {
    ("aarch64", "smmla"): r"smmla\b",
    ("aarch64", "sdot"): r"sdot\b",
    ("aarch64", "widening"): r"s?mull?2?\b",
    ("x86_64", "vpdpbusd"): r"(\{vex\} )?vpdpbusd\b",
    ("x86_64", "vpmaddubsw"): r"vpmaddubsw\b",
    ("x86_64", "widening"): r"vpmaddwd\b",
    ("x86_64", "tdpbssd"): r"tdpbssd\b",
}
_SPILLED = r"v?(mov\w+|str|stp|stur) .*(rsp|rbp|\[sp)"
_BYTE_BY_BYTE = r"vpinsr|vpgather|ld\w*rs?b\b|(ins|mov) v\d+\.[bh]\[\d+\], w|mov[sz]b"


def loops(target):
    """Each choice with the multiplications that it needs and its inner loop."""
    for choice in choices(target):
        k = choice.steps * scheme(target).packing.group
        found = plan(target, I8, (choice.tile_m, k), (k, choice.tile_n), without_least=True)
        vectors = 1 << (found.row_block + found.column_block)
        vectors += 1 << found.column_block if found.compensated else 0
        pattern = PATTERNS[target.arch, found.instruction.name]
        case = Linear(target, choice, torch.bfloat16, None).cases[-1]
        # Two int16 products make one of four bytes.
        needed = vectors * (k >> found.instruction.k_bits) * (2 if found.instruction.name == "widening" else 1)
        loop = busiest(case, target.name, pattern)
        yield choice, needed, count(loop, pattern), loop


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "avx512bf16"])
def test_inner_loops_multiply_in_registers(name):
    target = TARGETS[name]
    for choice, needed, multiplications, loop in loops(target):
        assert multiplications == needed, choice
        assert not count(loop, _BYTE_BY_BYTE), choice
        # Widening takes more registers than 32 of 16 bytes have room for where there are several rows.
        allowed = needed // 8 if name == "neon" else 0
        # The distance of rows, a scalar, once for four multiplications of 16 cycles.
        allowed += count(loop, r"tdpbssd") // 4
        assert count(loop, _SPILLED) <= allowed, choice
