"""docs/guides/arm.md: each core has the instructions of its target, and not those of a better one, as LLVM knows it."""

import re
import subprocess
import sys

import pytest
from conftest import NEEDS_KERNELS, REPOSITORY

from hf_tle_int8.backend.target import TARGETS

ROWS = re.findall(
    r"^\|[^|]*\| `([\w-]+)` \| `(neon[\w-]*)` \| `?([\w ]+)`? \|$",
    (REPOSITORY / "docs" / "guides" / "arm.md").read_text(),
    re.MULTILINE,
)
BEST_FIRST = ["neon-i8mm", "neon-dotprod", "neon"]
MULTIPLY = {"smmla": "smmla", "sdot": "sdot", "widening": "smull"}
TYPES = {"smull": ("<8 x i16>", "<8 x i8>", "v8i16"), "other": ("<4 x i32>", "<16 x i8>", "v4i32.v16i8")}
PROGRAM = """
import sys
from hf_tle_int8.backend.codegen import llvm
machine = llvm().Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(cpu=sys.argv[1])
machine.emit_object(llvm().parse_assembly(sys.argv[2]))
"""


def has(core: str, target: str) -> bool:
    """Whether LLVM selects the target's int8 product for the core; where it cannot, it ends the process."""
    name = MULTIPLY[TARGETS[target].int8_dot]
    result, operand, suffix = TYPES.get(name, TYPES["other"])
    sums = "" if name == "smull" else f"{result} zeroinitializer, "
    function = f"@llvm.aarch64.neon.{name}.{suffix}"
    declared = operand if name == "smull" else f"{result}, {operand}"
    text = (
        f"declare {result} {function}({declared}, {operand})\n"
        f'define {result} @f({operand} %a) "target-cpu"="{core}" {{\n'
        f"%r = call {result} {function}({sums}{operand} %a, {operand} %a)\nret {result} %r }}"
    )
    done = subprocess.run([sys.executable, "-c", PROGRAM, core, text], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "Cannot select" in done.stderr, done.stderr
    return done.returncode == 0


def test_rows_name_the_product_of_their_target():
    assert len(ROWS) == 8
    for core, target, product in ROWS:
        assert product.startswith(TARGETS[target].int8_dot), core


@NEEDS_KERNELS
@pytest.mark.parametrize(("core", "target", "product"), ROWS)
def test_core_takes_its_target(core, target, product):
    best = next(name for name in BEST_FIRST if has(core, name))
    assert best == target
