"""One program of a grid whose part of each operand lies beyond 2**31 elements; the rest is never touched."""

import ctypes
import re

import numpy as np
import pytest
import torch
from kernel_runs import INTEGERS
from linear_runs import Linear, activations, array, assert_same, choices, quantizer, weights

from hf_tle_int8.arithmetic import int8_linear, quantize_activation
from hf_tle_int8.backend import codegen
from hf_tle_int8.backend.loader import LoadedObject
from hf_tle_int8.backend.openmp import runtime_symbols
from hf_tle_int8.backend.target import host
from hf_tle_int8.dispatch import scheme

FAR = 1 << 31
K = 8192
# The first row, or column, that lies beyond where K elements belong to each.
FIRST = FAR // K
DTYPE = torch.float16


class Sparse:
    """Elements that take room on the disk where they are written: ``FAR`` before the first, where offsets wrap to."""

    def __init__(self, folder, name, kind, count):
        self.whole = np.memmap(folder / name, kind, "w+", shape=(FAR + count,))
        self.elements = self.whole[FAR:]

    def holding(self, values, place):
        """The address of the first element, with ``values`` at ``place``."""
        self.elements[place : place + values.numel()] = array(values.flatten())
        return self.elements.ctypes.data


@pytest.fixture
def sparse(tmp_path):
    yield lambda name, kind, count: Sparse(tmp_path, name, kind, count)
    for file in tmp_path.iterdir():
        file.unlink()


def program(case):
    """One program of a kernel: a function of its arguments, its place in the grid, and the grid."""
    kernel = case.lowered(host())
    name = f"{kernel.name}_program"
    body, changed = re.subn(rf"define internal (.*@{name}\()", r"define \1", kernel.body)
    assert changed == 1
    loaded = LoadedObject(codegen.compile_module(host(), body).object_code, host(), [name], runtime_symbols())
    kinds = [ctypes.c_void_p if kind[0] == "*" else INTEGERS[kind] for kind in case.signature.values()]
    function = ctypes.CFUNCTYPE(None, *kinds, *[ctypes.c_int32] * 6)(loaded.addresses[name])

    def call(*arguments):
        assert loaded.addresses
        function(*[a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments])

    return call


def packed_rows(codes, choice):
    """int8 ``[M, K]`` as `product` wants them."""
    group, rows = scheme(host()).packing.group, choice.rows
    q = codes.reshape(len(codes) // rows, rows, K // group, group).transpose(1, 2).flatten()
    return q ^ -128 if choice.flipped else q


def test_rows_to_quantize(sparse):
    choice = choices(host())[-1]
    rows = choice.rows
    x = activations(rows, K, DTYPE)
    source, q = sparse("x", np.float16, FAR + rows * K), sparse("q", np.int8, FAR + rows * K)
    scale = np.empty(FIRST + rows, np.float32)
    arguments = (source.holding(x, FAR), K, q.elements.ctypes.data, scale, FIRST + rows, K, K)
    program(quantizer(host(), DTYPE, choice))(*arguments, FIRST // rows, 0, 0, FIRST // rows + 1, 1, 1)
    codes, scales = quantize_activation(x)
    np.testing.assert_array_equal(q.elements[FAR : FAR + rows * K], array(packed_rows(codes, choice)))
    assert_same(torch.from_numpy(scale[FIRST:]), scales.flatten())


@pytest.mark.parametrize("choice", choices(host()), ids=lambda choice: f"{choice.tile_m}x{choice.tile_n}")
def test_tiles_of_rows_and_columns(sparse, choice):
    m, n = choice.tile_m, choice.tile_n
    x, (weight, scale), bias = activations(m, K, DTYPE), weights(n, K), torch.randn(n, dtype=DTYPE)
    (codes, scales), panels = quantize_activation(x), scheme(host()).packing.pack(weight).flatten()[: n * K]
    before = torch.zeros(FIRST)
    scale_x, scale_w, biases = (torch.cat([before, values.float()]) for values in (scales.flatten(), scale, bias))
    q, w = (sparse(name, np.int8, FAR + K * max(m, n)) for name in ("q", "w"))
    y = sparse("y", np.float16, FAR + K * m + FIRST + n)
    place = (FIRST // m, FIRST // n, 0)
    program(Linear(host(), choice, DTYPE, torch.float32).cases[-1])(
        q.holding(packed_rows(codes, choice), FAR), array(scale_x), w.holding(panels, FAR), array(scale_w),
        array(biases), y.elements.ctypes.data, K, FIRST + m, FIRST + n, K, *place, *(extent + 1 for extent in place),
    )  # fmt: skip
    found = np.stack([y.elements[FAR + row * K + FIRST :][:n] for row in range(m)])
    assert_same(torch.from_numpy(found), int8_linear(x, weight, scale, bias))
