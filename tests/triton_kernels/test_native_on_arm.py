"""Linears in machine code on emulated Arm CPUs, where `native_stubs` stand in for torch."""

from pathlib import Path

import native_stubs
import numpy as np
import pytest
import torch
from arm_emulation import CPU_OF_TARGET, ArmProcess, link, require_emulator
from kernel_runs import compiled
from linear_runs import Linear, activations, array, assert_same, biases, choices, weights
from openmp_stubs import STUBS

from hf_tle_int8 import native_code
from hf_tle_int8.arithmetic import int8_linear
from hf_tle_int8.backend import codegen, torch_abi
from hf_tle_int8.backend.target import named
from hf_tle_int8.dispatch import scheme

CODES = {torch.float32: torch_abi.FLOAT32, torch.bfloat16: torch_abi.BFLOAT16, torch.int8: torch_abi.INT8}
NUMBERS = {dtype: native_code.DTYPES[CODES[dtype]] for dtype in (torch.float32, torch.bfloat16)}


class ArmLinear:
    """Native code of a target and its kernels for fp32, with a bias of bf16 or none, in an emulated process."""

    def __init__(self, name: str, folder: Path, threads: int):
        self.target = named(name)
        tiles = choices(self.target)
        slots: list[str | None] = [None] * native_code.slot_count(len(tiles))
        objects = {}
        for number, choice in enumerate(tiles):
            for bias in (None, torch.bfloat16):
                cases = Linear(self.target, choice, torch.float32, bias).cases
                launches = [compiled(case, self.target, self.target) for case in cases]
                objects |= dict(launches)
                kind = native_code.NO_BIAS if bias is None else NUMBERS[bias]
                first = native_code.slot(NUMBERS[torch.float32], kind, number, len(tiles))
                slots[first], slots[first + 1] = launches[1][0], launches[0][0]
        own = (STUBS, native_code.module(scheme(self.target)), native_stubs.stubs(slots, threads))
        code = [codegen.compile_module(self.target, body).object_code for body in own]
        self.program = link([*code, *objects.values()], ["drive"], folder)

    def run(self, arm: ArmProcess, x, weight, scale, bias):
        """The result ``[..., N]`` and the report; poisoned where nothing was written."""
        panels = scheme(self.target).packing.pack(weight)
        given = (x, panels, scale, scale if bias is None else bias)
        tensors = np.zeros((4, native_stubs.FIELDS), np.int64)
        for fields, tensor in zip(tensors, given, strict=True):
            fields[[native_stubs.DIMENSIONS, native_stubs.ELEMENTS, native_stubs.DTYPE, native_stubs.CONTIGUOUS]] = (
                tensor.dim(),
                tensor.numel(),
                CODES[tensor.dtype],
                1,
            )
            fields[native_stubs.SIZES : native_stubs.SIZES + tensor.dim()] = tensor.shape
        y = np.full((*x.shape[:-1], len(weight)), np.nan, np.float32)
        report = np.zeros(native_stubs.REPORT, np.int64)
        k = weight.shape[1]
        arm.call("drive", *map(array, given), y, tensors, report, k, int(bias is not None))
        return torch.from_numpy(y), report


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_on_arm(name, tmp_path):
    require_emulator()
    made = ArmLinear(name, tmp_path, threads=3)
    n, k = 161, 130
    weight, scale = weights(n, k)
    with ArmProcess(made.program, ["drive"], CPU_OF_TARGET[name]) as arm:
        for bias in (None, biases(n, torch.bfloat16)):
            for shape in ((k,), (1, k), (2, k), (3, k), (2, 2, k), (5, k), (1, 20, k)):
                x = activations(20, k, torch.float32)[: torch.Size(shape).numel() // k].reshape(shape)
                y, report = made.run(arm, x, weight, scale, bias)
                expected = int8_linear(x.reshape(-1, k), weight, scale, bias).reshape(*shape[:-1], n)
                assert_same(y, expected)
                assert [*report[[native_stubs.RESULT_IS_NEW, native_stubs.ERRORS, native_stubs.DELETED]]] == [
                    1,
                    0,
                    3 + (bias is not None),
                ]
                dimensions = len(shape)
                assert report[native_stubs.NEW + native_stubs.DIMENSIONS] == dimensions
                assert report[native_stubs.NEW + native_stubs.DTYPE] == torch_abi.FLOAT32
                places = report[
                    native_stubs.NEW + native_stubs.SIZES : native_stubs.NEW + native_stubs.SIZES + 2 * dimensions
                ]
                assert [*places] == [*expected.shape, *expected.stride()]


@pytest.mark.parametrize("name", CPU_OF_TARGET)
def test_errors_on_arm(name, tmp_path):
    require_emulator()
    made = ArmLinear(name, tmp_path, threads=1)
    weight, scale = weights(9, 70)
    x = torch.randn(2, 70)
    with ArmProcess(made.program, ["drive"], CPU_OF_TARGET[name]) as arm:
        for wrong in (
            (x[:, :5].contiguous(), weight, scale),
            (x.bfloat16(), weight, scale),
            (x, weight, torch.ones(40)),
        ):
            y, report = made.run(arm, *wrong, None)
            assert y.isnan().all()
            assert [*report[[native_stubs.RESULT_IS_NEW, native_stubs.ERRORS, native_stubs.DELETED]]] == [0, 1, 3]
        assert made.run(arm, x, weight, scale, None)[1][native_stubs.ERRORS] == 0
