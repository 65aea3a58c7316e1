"""Code for NEON does not depend on how long the vectors of SVE are on the CPU that runs it."""

import numpy as np
import tensor_kernels
from arm_emulation import ArmProcess, link, require_emulator
from dot_kernels import DOT_CASES
from kernel_runs import compiled
from openmp_stubs import STUBS

from hf_tle_int8.backend import codegen
from hf_tle_int8.backend.target import named

VECTOR_BYTES = (16, 32, 64)
CASES = [*DOT_CASES, *tensor_kernels.CASES]

# Reads the length, so that it is known that the CPUs differ.
READ_LENGTH = """
declare i64 @llvm.vscale.i64()
define void @vector_bytes(ptr %o) "target-features"="+sve" {
  %blocks = call i64 @llvm.vscale.i64()
  %bytes = mul i64 %blocks, 16
  store i64 %bytes, ptr %o
  ret void
}
"""


def results(program, entries, cpu):
    """The output of each case, and the length of a vector unless there is no SVE."""
    outputs, length = [], np.zeros(1, np.int64)
    with ArmProcess(program, entries, cpu) as arm:
        if "off" not in cpu:
            arm.call("vector_bytes", length)
        for case, entry in zip(CASES, entries, strict=False):

            def call(*arguments, entry=entry):
                arm.call(entry, *arguments)
                outputs.append(arguments[-5].tobytes())

            case.check(call)
    return outputs, length[0]


def test_results_are_the_same_bits(tmp_path):
    require_emulator()
    chosen = named("neon-i8mm")
    kernels = [compiled(case, chosen, chosen) for case in CASES]
    others = [codegen.compile_module(chosen, body).object_code for body in (STUBS, READ_LENGTH)]
    entries = [entry for entry, _ in kernels]
    program = link([*dict(kernels).values(), *others], [*entries, "vector_bytes"], tmp_path)
    expected, _ = results(program, [*entries, "vector_bytes"], "max,sve=off")
    assert len(expected) == len(CASES)
    for length in VECTOR_BYTES:
        cpu = f"max,sve-default-vector-length={length}"
        assert results(program, [*entries, "vector_bytes"], cpu) == (expected, length)
