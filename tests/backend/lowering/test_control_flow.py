from types import SimpleNamespace

import numpy as np
from kernel_runs import on_host

from hf_tle_int8.backend import target
from hf_tle_int8.backend.lowering.kernel import lower_kernel
from hf_tle_int8.backend.ttir import parse

# What MLIR prints for ``scf.for unsigned``, which Triton's own frontend does not make.
_UNSIGNED = """"builtin.module"() ({
  "tt.func"() <{function_type = (i32, !tt.ptr<i32>) -> (), sym_name = "k", sym_visibility = "public"}> ({
  ^bb0(%low: i32, %o: !tt.ptr<i32>):
    %0 = "arith.constant"() <{value = 0 : i32}> : () -> i32
    %1 = "arith.constant"() <{value = 1 : i32}> : () -> i32
    %high = "arith.constant"() <{value = -2 : i32}> : () -> i32
    %s = "scf.for"(%low, %high, %1, %0) <{unsignedCmp}> ({
    ^bb0(%i: i32, %a: i32):
      %next = "arith.addi"(%a, %1) : (i32, i32) -> i32
      "scf.yield"(%next) : (i32) -> ()
    }) : (i32, i32, i32, i32) -> i32
    "tt.store"(%o, %s) : (!tt.ptr<i32>, i32) -> ()
    "tt.return"() : () -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_loops_with_unsigned_bounds():
    case = SimpleNamespace(
        kernel="unsigned",
        signature={"low": "i32", "o": "*i32"},
        constexprs={},
        lowered=lambda chosen: lower_kernel(parse(_UNSIGNED), chosen, python_entry=False),
    )
    call = on_host(case, target.host())
    output = np.zeros(1, np.int32)
    for low, trips in ((-10, 8), (0x7FFFFFF0, 2**31 + 14), (-1, 0)):
        call(low, output, 1, 1, 1, 1)
        assert output[0] == np.uint32(trips).astype(np.int32)
