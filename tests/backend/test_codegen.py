import re
import subprocess
import sys

import pytest

from hf_tle_int8.backend import codegen, target

DOT = {
    "smmla": ("llvm.aarch64.neon.smmla.v4i32.v16i8", 4, 16),
    "sdot": ("llvm.aarch64.neon.sdot.v4i32.v16i8", 4, 16),
}
LIMITS = ("neon", "neon-dotprod", "neon-i8mm")


def dot_ir(chosen: target.Target) -> str:
    name, lanes, width = DOT[chosen.int8_dot]
    acc, vec = f"<{lanes} x i32>", f"<{width} x i8>"
    return f"""
declare {acc} @{name}({acc}, {vec}, {vec})
define void @f(ptr %a, ptr %b, ptr %c) #0 {{
  %x = load {vec}, ptr %a, align 1
  %y = load {vec}, ptr %b, align 1
  %z = load {acc}, ptr %c, align 4
  %r = call {acc} @{name}({acc} %z, {vec} %x, {vec} %y)
  store {acc} %r, ptr %c, align 4
  ret void
}}"""


@pytest.mark.parametrize("name", ["neon-dotprod", "neon-i8mm"])
def test_dot_instructions_are_selected(name):
    chosen = target.named(name)
    code = codegen.compile_module(chosen, dot_ir(chosen))
    assert re.search(rf"\b{chosen.int8_dot}\b", code.assembly)


@pytest.mark.parametrize("name", LIMITS)
def test_neon_targets_use_no_sve(name):
    body = """
define void @f(ptr %a, ptr %b) #0 {
  %x = load <2 x i64>, ptr %a, align 8
  %y = load <2 x i64>, ptr %b, align 8
  %p = mul <2 x i64> %x, %y
  %q = sdiv <2 x i64> %p, %y
  store <2 x i64> %q, ptr %a, align 8
  ret void
}"""
    assert not re.search(r"\bz\d+\.", codegen.compile_module(target.named(name), body).assembly)


def test_invalid_ir_is_refused_with_llvms_message():
    with pytest.raises(RuntimeError, match="expected"):
        codegen.compile_module(target.named("neon"), "define nonsense")


def test_importing_the_backend_does_not_import_llvmlite():
    script = "import hf_tle_int8.backend.codegen, sys; print('llvmlite' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert output.stdout.strip() == "False", output.stderr


def test_missing_llvmlite_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    with pytest.raises(ImportError, match="pip install llvmlite"):
        codegen.llvm.__wrapped__()
