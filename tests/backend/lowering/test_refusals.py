"""What cannot be compiled says which operation it is, and on which line of the kernel."""

import linecache
import re
from pathlib import Path

import pytest
import triton
import triton.language as tl
import ttir_support
from ttir_support import stock_module

from hf_tle_int8.backend import target
from hf_tle_int8.backend.lowering.elementwise import UnsupportedOperationError
from hf_tle_int8.backend.lowering.kernel import lower_kernel
from hf_tle_int8.backend.options import CPUOptions
from hf_tle_int8.backend.ttir import parse, stock

_MODULE = """"builtin.module"() ({{
  "tt.func"() <{{function_type = () -> (), sym_name = "k", sym_visibility = "public"}}> ({{
    {body}
  }}) : () -> ()
}}) : () -> ()
"""
_SELF_CALL = '"tt.call"() <{callee = @k}> : () -> () loc("k.py":3:1)\n"tt.return"() : () -> ()'
_BACKWARD = '"cf.br"()[^bb1] : () -> ()\n^bb1:\n"cf.br"()[^bb1] : () -> () loc("k.py":4:1)'


@pytest.mark.parametrize(("body", "message"), [(_SELF_CALL, "k.py:3: tt.call of"), (_BACKWARD, "k.py:4: cf.br to")])
def test_what_triton_does_not_write_is_refused(body, message):
    with pytest.raises(UnsupportedOperationError, match=message):
        lower_kernel(parse(_MODULE.format(body=body)), target.named("neon"))


@triton.jit
def scans(x, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(x + i, tl.cumsum(tl.load(x + i), 0))  # refused


@triton.jit
def adds_atomically(x, B: tl.constexpr):
    tl.atomic_add(x + tl.arange(0, B), 1.0)  # refused


@triton.jit
def swaps_atomically(x, B: tl.constexpr):
    tl.atomic_cas(x.to(tl.pointer_type(tl.int32), bitcast=True), 0, B)  # refused


@triton.jit
def prints(x, B: tl.constexpr):
    if tl.program_id(0) > B:
        tl.device_print("x", tl.load(x))  # refused


@triton.jit
def asserts(x, B: tl.constexpr):
    for _ in range(B):
        tl.device_assert(tl.load(x) > 0)  # refused


@triton.jit
def counts(x, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(x + i, tl.histogram(i, B).to(tl.float32))  # refused


@triton.jit
def assembles(x, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, B))
    v = tl.inline_asm_elementwise("nop", "=r,r", [v], dtype=tl.float32, is_pure=True, pack=1)  # refused
    tl.store(x + tl.arange(0, B), v)


@triton.jit
def _looping(a, b):
    for _ in range(3):
        a += b
    return a


@triton.jit
def reduces_by_a_loop(x, B: tl.constexpr):
    tl.store(x, tl.reduce(tl.load(x + tl.arange(0, B)), 0, _looping))  # refused


_REFUSED = {
    scans: "tt.scan",
    adds_atomically: "tt.atomic_rmw",
    swaps_atomically: "tt.atomic_cas",
    prints: "tt.print",
    asserts: "tt.assert",
    counts: "tt.histogram",
    assembles: "tt.elementwise_inline_asm",
    reduces_by_a_loop: "scf.for in tt.reduce",
}


@pytest.mark.parametrize("kernel", _REFUSED, ids=lambda kernel: kernel.__name__)
def test_what_is_not_supported_is_named_with_its_line(kernel, monkeypatch):
    monkeypatch.setattr(ttir_support, "CPUOptions", lambda: CPUOptions(debug=True))
    module = stock_module(kernel, {"x": "*fp32"}, B=16)
    with pytest.raises(UnsupportedOperationError) as refusal:
        lower_kernel(stock.read(module), target.named("neon"))
    found = re.fullmatch(r"(.+?):(\d+)(?: \(in a call, at .+?\))?: (.+)", str(refusal.value))
    assert found is not None
    assert Path(found[1]) == Path(__file__)
    assert "# refused" in linecache.getline(__file__, int(found[2]))
    assert found[3] == f"{_REFUSED[kernel]} is not supported on CPUs."
