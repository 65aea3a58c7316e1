"""llama.cpp's product of matrices (ggml's ``mul_mat``): weights in Q8_0, blocks of 32 along K; fp32 in and out.

Through the C functions of ggml that llama-cpp-python brings. As in llama.cpp, the weight is laid out anew where ggml
has a layout of its own for this CPU, as for Q8_0 on Arm with a dot product.
"""

import ctypes
import functools
import itertools
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_tle_int8.backend.target import host
from hf_tle_int8.bench.layer import Layer, Peer, to_float
from hf_tle_int8.bench.tile_configuration import TileConfiguration

# Of enum ggml_type in ggml.h.
_F32, _Q8_0 = 0, 8
# Values of a block of Q8_0.
_BLOCK = 32
# Two matrices and a graph, without their data.
_CONTEXT_BYTES = 1 << 20

_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t


class _InitParameters(ctypes.Structure):
    """``struct ggml_init_params`` of ggml.h."""

    _fields_ = (("mem_size", _SIZE), ("mem_buffer", _POINTER), ("no_alloc", ctypes.c_bool))


# Results and arguments of the functions that are called, from ggml.h, ggml-alloc.h, ggml-backend.h and ggml-cpu.h.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "ggml_init": (_POINTER, _InitParameters),
    "ggml_free": (None, _POINTER),
    "ggml_new_tensor_2d": (_POINTER, _POINTER, _INT, ctypes.c_int64, ctypes.c_int64),
    "ggml_mul_mat": (_POINTER, _POINTER, _POINTER, _POINTER),
    "ggml_new_graph": (_POINTER, _POINTER),
    "ggml_build_forward_expand": (None, _POINTER, _POINTER),
    "ggml_row_size": (_SIZE, _INT, ctypes.c_int64),
    "ggml_quantize_chunk": (_SIZE, _INT, *[_POINTER] * 2, *[ctypes.c_int64] * 3, _POINTER),
    "ggml_backend_cpu_init": (_POINTER,),
    "ggml_backend_cpu_set_n_threads": (None, _POINTER, _INT),
    "ggml_backend_cpu_reg": (_POINTER,),
    "ggml_backend_reg_get_proc_address": (_POINTER, _POINTER, ctypes.c_char_p),
    "ggml_backend_get_device": (_POINTER, _POINTER),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, _POINTER, _POINTER),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_POINTER, _POINTER, _POINTER),
    "ggml_backend_alloc_ctx_tensors": (_POINTER, _POINTER, _POINTER),
    "ggml_backend_tensor_set": (None, _POINTER, _POINTER, _SIZE, _SIZE),
    "ggml_backend_tensor_get": (None, _POINTER, _POINTER, _SIZE, _SIZE),
    "ggml_backend_graph_compute": (_INT, _POINTER, _POINTER),
    "ggml_backend_buffer_free": (None, _POINTER),
    "ggml_backend_free": (None, _POINTER),
}


class _Library:
    """The functions of ggml that ``llama_cpp`` brings, typed."""

    def __init__(self) -> None:
        import llama_cpp

        folder = Path(llama_cpp.__file__).parent / "lib"
        files = [ctypes.CDLL(str(folder / f"libggml{part}.so")) for part in ("-base", "-cpu")]
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = next((getattr(file, name) for file in files if hasattr(file, name)), None)
            if function is None:
                raise ImportError(f"the ggml of llama_cpp {llama_cpp.__version__} has no {name}.")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not in the table of ggml's functions.")

    def layouts(self, device: int) -> list[int]:
        """The types of buffers that lay weights out anew, in the order in which to try them."""
        find = self.ggml_backend_reg_get_proc_address(self.ggml_backend_cpu_reg(), b"ggml_backend_dev_get_extra_bufts")
        if not find:
            return []
        found = ctypes.CFUNCTYPE(ctypes.POINTER(_POINTER), _POINTER)(find)(device)
        return list(itertools.takewhile(bool, found)) if found else []

    def context(self) -> Any:
        """A context whose tensors have no memory until a backend gives it to them."""
        return self.ggml_init(_InitParameters(_CONTEXT_BYTES, None, True))


@functools.cache
def _tiles() -> TileConfiguration:
    return TileConfiguration(host())


class _Linear:
    """A weight ``[N, K]`` in a type of ggml, and what multiplies by it."""

    def __init__(self, weight: Tensor, kind: int = _Q8_0) -> None:
        self.ggml = ggml = _Library()
        self.n, self.k = weight.shape
        if self.k % _BLOCK:
            raise ValueError(f"K = {self.k} is no multiple of {_BLOCK}, which Q8_0 needs.")
        self.backend = ggml.ggml_backend_cpu_init()
        weakref.finalize(self, ggml.ggml_backend_free, self.backend)
        ggml.ggml_backend_cpu_set_n_threads(self.backend, torch.get_num_threads())
        self.device = ggml.ggml_backend_get_device(self.backend)
        if not any(self._place(kind, layout) for layout in (*ggml.layouts(self.device), None)):
            raise RuntimeError(f"ggml cannot multiply by a weight of {self.n}x{self.k} on this CPU.")
        size = self.n * ggml.ggml_row_size(kind, self.k)
        codes, source = ctypes.create_string_buffer(size), weight.float().contiguous()
        ggml.ggml_quantize_chunk(kind, source.data_ptr(), codes, 0, self.n, self.k, None)
        ggml.ggml_backend_tensor_set(self.weight, codes, 0, size)

    def _place(self, kind: int, layout: int | None) -> bool:
        """Take memory for the weight, in a layout or plainly, if products by it are computed there."""
        ggml, context, probe = self.ggml, self.ggml.context(), self.ggml.context()
        self.weight = ggml.ggml_new_tensor_2d(context, kind, self.k, self.n)
        if layout is None:
            buffer = ggml.ggml_backend_alloc_ctx_tensors(context, self.backend)
        else:
            buffer = ggml.ggml_backend_alloc_ctx_tensors_from_buft(context, layout)
        row = ggml.ggml_new_tensor_2d(probe, _F32, self.k, 1)
        product = ggml.ggml_mul_mat(probe, self.weight, row)
        computed = bool(buffer) and ggml.ggml_backend_dev_supports_op(self.device, product)
        ggml.ggml_free(probe)
        if computed:
            weakref.finalize(self, _release, ggml, buffer, context)
        else:
            _release(ggml, buffer, context)
        return bool(computed)


class _Product:
    """The graph of one product with an input fp32 ``[M, K]``; calling it computes and returns it."""

    def __init__(self, linear: _Linear, x: Tensor) -> None:
        self.linear, self.m, ggml = linear, len(x), linear.ggml
        context = ggml.context()
        rows = ggml.ggml_new_tensor_2d(context, _F32, linear.k, self.m)
        # [M, N] in the order of torch; ggml names the innermost dimension first.
        self.y = ggml.ggml_mul_mat(context, linear.weight, rows)
        self.graph = ggml.ggml_new_graph(context)
        ggml.ggml_build_forward_expand(self.graph, self.y)
        buffer = ggml.ggml_backend_alloc_ctx_tensors(context, linear.backend)
        weakref.finalize(self, _release, ggml, buffer, context)
        given = x.float().contiguous()
        ggml.ggml_backend_tensor_set(rows, given.data_ptr(), 0, given.nbytes)

    def __call__(self) -> "_Product":
        with _tiles().kept():
            status = self.linear.ggml.ggml_backend_graph_compute(self.linear.backend, self.graph)
        if status:
            raise RuntimeError(f"ggml_backend_graph_compute returned the status {status}.")
        return self

    def float(self) -> Tensor:
        """What was computed, fp32 ``[M, N]``."""
        y = torch.empty(self.m, self.linear.n)
        self.linear.ggml.ggml_backend_tensor_get(self.y, y.data_ptr(), 0, y.nbytes)
        return y


def _release(ggml: _Library, buffer: int, context: int) -> None:
    ggml.ggml_backend_buffer_free(buffer)
    ggml.ggml_free(context)


def _build(weight: Tensor) -> Layer:
    linear = _Linear(weight)
    return Layer(_Product.__call__, weight.numel(), lambda x: _Product(linear, x), to_float)


PEER = Peer("llama.cpp Q8_0", _build)
