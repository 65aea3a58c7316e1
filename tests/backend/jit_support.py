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
    """IR of ``f(inputs…, output)``: ``emit(function, *vectors)`` on each ``lanes`` of ``count`` elements, in a loop."""
    assert count % lanes == 0
    module = ModuleBuilder()
    names = [f"input{index}" for index in range(operands)]
    function = FunctionBuilder(module, "f", dict.fromkeys([*names, "output"], PTR))
    loop = function.counted_loop(constant(I64, 0), constant(I64, count), constant(I64, lanes))
    inputs = [function.offset(function.parameters[name], loop.index, kind) for name in names]
    value = emit(function, *(function.load(kind.vector(lanes), pointer) for pointer in inputs))
    function.store(value, function.offset(function.parameters["output"], loop.index, result))
    loop.close()
    function.return_()
    function.finish()
    return str(module)
