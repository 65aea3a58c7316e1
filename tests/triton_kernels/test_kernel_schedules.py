"""Kernels give the same bits whatever the schedule and the number of threads."""

import itertools

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from arm_emulation import CPU_OF_TARGET, ArmProcess, link, require_emulator
from kernel_runs import compiled, lowered, on_host
from linear_runs import Linear, activations, assert_same, biases, choices, weights
from openmp_stubs import STUBS
from plugin_support import run_script
from tensor_kernels import KernelCase, poisoned

from hf_tle_int8.arithmetic import int8_linear
from hf_tle_int8.backend import codegen
from hf_tle_int8.backend.target import Target, host, named

ENTRIES = ("launch", "launch_dynamic")
THREADS = (1, 2, 3, 4)


def linears(target: Target) -> list[Linear]:
    """The tiles for one row and for many."""
    one, *_, many = choices(target)
    return [Linear(target, one, torch.bfloat16, None), Linear(target, many, torch.float32, torch.float32)]


def operands(linear: Linear, m: int, n: int, k: int):
    """Of one linear."""
    x = activations(m, k, linear.dtype)
    return x, *weights(n, k), biases(n, linear.bias)


def on_threads(call, threads: int):
    """The kernel as it is called for one thread, on several."""
    return lambda *arguments: call(*arguments[:-1], threads)


@pytest.mark.parametrize("linear", linears(host()), ids=lambda linear: f"{linear.choice.tile_m}x{linear.choice.tile_n}")
def test_linears(linear):
    x, weight, scale, bias = operands(linear, 261, 1024, 200)
    expected = int8_linear(x, weight, scale, bias)
    for entry, threads in itertools.product(ENTRIES, THREADS):
        kernels = [on_threads(on_host(case, linear.target, entry), threads) for case in linear.cases]
        assert_same(linear.run(kernels, x, weight, scale, bias), expected)


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_linears_on_arm(name, tmp_path):
    require_emulator()
    target = named(name)
    every = linears(target)
    objects = dict(compiled(case, target, target) for linear in every for case in linear.cases)
    symbols = [launch.replace("launch", entry) for launch in objects for entry in ENTRIES]
    stubs = codegen.compile_module(target, STUBS).object_code
    with ArmProcess(link([stubs, *objects.values()], symbols, tmp_path), symbols, CPU_OF_TARGET[name]) as arm:
        for linear, entry, threads in itertools.product(every, ENTRIES, (1, 4)):
            x, weight, scale, bias = operands(linear, 37, 520, 65)
            names = [compiled(case, target, target)[0].replace("launch", entry) for case in linear.cases]
            kernels = [on_threads(lambda *a, name=name: arm.call(name, *a), threads) for name in names]
            assert_same(linear.run(kernels, x, weight, scale, bias), int8_linear(x, weight, scale, bias))


def test_layers_on_unlike_cores():
    script = """
        import torch
        from hf_tle_int8.arithmetic import int8_linear
        from hf_tle_int8.nn.linear import TLEInt8Linear
        layer = TLEInt8Linear.from_linear(torch.nn.Linear(768, 2056))
        for rows in (1, 2, 4, 70):
            x = torch.randn(rows, 768)
            expected = int8_linear(x, layer.weight, layer.weight_scale, layer.bias)
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                assert torch.equal(layer(x), expected), (rows, threads)
        print("same")
    """
    assert run_script(script, HF_TLE_INT8_SCHEDULE="dynamic").split() == ["same"]


@triton.jit
def tall_product(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """Program p: ``c [p] = a @ b [p]``, of which the sums need M * N * 4 bytes beside the stack."""
    rows, columns, inner = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    program = tl.program_id(0)
    sums = tl.zeros((M, N), tl.int32)
    for step in range(2):
        left = tl.load(a + rows[:, None] * (2 * K) + step * K + inner[None, :])
        right = tl.load(b + (program * 2 * K + step * K + inner[:, None]) * N + columns[None, :])
        sums = tl.dot(left, right, sums, out_dtype=tl.int32)
    tl.store(c + (program * M + rows[:, None]) * N + columns[None, :], sums)


def test_frames_beside_the_stack():
    m, n, k, programs = 512, 256, 8, 9
    generator = np.random.default_rng(0)
    a, b = (generator.integers(-128, 128, shape, np.int8) for shape in ((m, 2 * k), (programs, 2 * k, n)))
    signature = {"a": "*i8", "b": "*i8", "c": "*i32"}
    case = KernelCase(tall_product, signature, {"M": m, "N": n, "K": k}, (), np.zeros(0))
    assert "@aligned_alloc" in lowered(case, host()).body
    expected = a.astype(np.int32) @ b.astype(np.int32)
    for entry, threads in itertools.product(ENTRIES, THREADS):
        c = poisoned((programs, m, n), np.int32)
        on_host(case, host(), entry)(a, b, c, programs, 1, 1, threads)
        assert np.array_equal(c, expected)
