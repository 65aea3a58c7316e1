import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import triton
import triton.language as tl
from kernel_runs import assert_same_code, check_on_arm, on_host
from memory_kernels import CASES
from ttir_support import stock_module

from hf_tle_int8.backend import target
from hf_tle_int8.backend.lowering.kernel import lower_kernel
from hf_tle_int8.backend.ttir import stock


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_on_the_host(case):
    case.check(on_host(case, target.host()))


@pytest.mark.parametrize("name", ["neon", "neon-i8mm"])
def test_on_arm(name, tmp_path):
    check_on_arm(CASES, name, tmp_path)


def test_sdot_alone_changes_nothing_but_products():
    assert_same_code(CASES, "neon-dotprod", "neon-i8mm")


def guarded(excess):
    here = Path(__file__).parent
    paths = [str(folder) for folder in (here, here.parent, here.parent.parent, here.parents[2])]
    # Kernels are lowered here without any backend of Triton: none need be imported.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TRITON_BACKENDS_IN_TREE": "1"}
    command = [sys.executable, str(here / "guard_pages.py"), str(excess)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_nothing_outside_of_the_mask_is_touched():
    found = guarded(0)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) == 5184


def test_one_element_more_is_noticed():
    assert guarded(1).returncode == -signal.SIGSEGV


@triton.jit
def bits_of(x, o, T: tl.constexpr, B: tl.constexpr):
    i = tl.arange(0, B)
    pointers = (x + i).to(tl.pointer_type(T), bitcast=True)
    tl.store(o + i, tl.load(pointers) + tl.load(pointers + B))


@pytest.mark.parametrize(("kind", "neighbours"), [(tl.int32, True), (tl.int16, False), (tl.int64, False)])
def test_cast_pointers_are_neighbours_where_the_size_stays(kind, neighbours):
    module = stock_module(bits_of, {"x": "*fp32", "o": "*i64"}, T=kind, B=16)
    body = lower_kernel(stock.read(module), target.named("neon")).body
    assert ("masked.gather" not in body) == neighbours
