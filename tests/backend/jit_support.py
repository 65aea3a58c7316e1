"""Running IR on the host: a function of pointers, called with numpy arrays."""

import ctypes

import numpy as np

from hf_tle_int8.backend import codegen, target
from hf_tle_int8.backend.ir import I64, PTR, FunctionBuilder, IRType, ModuleBuilder, constant
from hf_tle_int8.backend.loader import LoadedObject


def run(body: str, name: str, *arrays: np.ndarray, compile_for: target.Target | None = None) -> None:
    """Compile ``body`` for the host and call its function ``name`` with the addresses of ``arrays``."""
    chosen = compile_for or target.host()
    loaded = LoadedObject(codegen.compile_module(chosen, body).object_code, chosen, [name])
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays))(loaded.addresses[name])
    function(*[array.ctypes.data for array in arrays])


def elementwise(kind: IRType, result: IRType, count: int, lanes: int, emit, operands: int = 1) -> str:
    """A module with a function ``f`` as `add_elementwise` makes it, all of whose inputs are of one type."""
    module = ModuleBuilder()
    add_elementwise(module, "f", [kind] * operands, result, count, lanes, emit)
    return str(module)


def add_elementwise(
    module: ModuleBuilder, name: str, kinds: list[IRType], result: IRType, count: int, lanes: int, emit
) -> None:
    """``name(inputs…, output)``: ``emit(function, *vectors)`` on each ``lanes`` of ``count`` elements, in a loop.

    ``lanes`` of 0 computes on scalars.
    """
    step = max(lanes, 1)
    assert count % step == 0
    names = [f"input{index}" for index in range(len(kinds))]
    function = FunctionBuilder(module, name, dict.fromkeys([*names, "output"], PTR))
    loop = function.counted_loop(constant(I64, 0), constant(I64, count), constant(I64, step))
    vectors = [
        function.load(kind.vector(lanes), function.offset(function.parameters[name], loop.index, kind))
        for name, kind in zip(names, kinds, strict=True)
    ]
    value = emit(function, *vectors)
    function.store(value, function.offset(function.parameters["output"], loop.index, result))
    loop.close()
    function.return_()
    function.finish()
