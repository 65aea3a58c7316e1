"""Operators of torch in machine code of our own, by torch's stable C interface.

That is the one for which ``torch/csrc/inductor/aoti_torch/c/shim.h`` and ``torch/csrc/stable/library.h`` declare C
functions: an implementation takes the address of a stack of 8-byte values, of which it owns the handles of tensors, and
leaves its result at the bottom. C++ finds it in torch's dispatcher like any other, without Python.
"""

import ctypes
import functools
from pathlib import Path

from hf_tle_int8.backend.ir import I1, I8, I32, I64, PTR, FunctionBuilder, IRType, ModuleBuilder, Operand, constant
from hf_tle_int8.backend.openmp import runtime_symbols

# torch's numbers of its dtypes (``c10::ScalarType``).
INT8, FLOAT16, FLOAT32, BFLOAT16 = 1, 5, 6, 15
# As torch's own operators take; a tensor may have more.
MOST_DIMENSIONS = 64

_CPU, _NO_INDEX = 0, -1
_GETTERS: dict[str, IRType] = {
    "data_ptr": PTR,
    "sizes": PTR,
    "dim": I64,
    "numel": I64,
    "dtype": I32,
}
_FUNCTIONS = (
    *(f"aoti_torch_get_{name}" for name in _GETTERS),
    "aoti_torch_is_contiguous",
    "aoti_torch_empty_strided",
    "aoti_torch_delete_tensor_object",
    "aoti_torch_check",
)
_REGISTERING = ("aoti_torch_library_init_impl", "aoti_torch_library_impl")
# ``at::get_num_threads()``, which C++ mangles; it has no name in C before torch 2.10.
_THREADS = "_ZN2at15get_num_threadsEv"


@functools.cache
def _library() -> ctypes.CDLL:
    import torch

    folder = Path(torch.__file__).parent / "lib"
    found = [path for path in (folder / "libtorch_cpu.so", folder / "libtorch_cpu.dylib") if path.exists()]
    if not found:
        raise RuntimeError(f"{folder} holds no libtorch_cpu, torch's C interface. Install torch from PyPI.")
    library = ctypes.CDLL(str(found[0]))
    missing = [name for name in (*_FUNCTIONS, *_REGISTERING, _THREADS) if not hasattr(library, name)]
    if missing:
        raise RuntimeError(f"torch {torch.__version__} has no {missing[0]} in its C interface. Install another torch.")
    return library


def symbols() -> dict[str, int]:
    """Addresses of what code that this module writes calls.

    Raises:
        RuntimeError: this torch lacks one of them, or has no OpenMP.
    """
    own = {name: ctypes.cast(_library()[name], ctypes.c_void_p).value for name in (*_FUNCTIONS, _THREADS)}
    return {**runtime_symbols(), **{name: address for name, address in own.items() if address is not None}}


def implement(namespace: str, name: str, address: int) -> None:
    """Register the function at ``address`` for tensors of the CPU, for as long as this process lives.

    Args:
        namespace: of the operator; its schema should be defined.
        name: of the operator, with its overload if it has one: ``linear.bias``.
        address: of a function that `add_entry` has added.

    Raises:
        RuntimeError: torch refuses.
    """
    handle = ctypes.c_void_p()
    library = _library()
    refused = library.aoti_torch_library_init_impl(
        namespace.encode(), b"CPU", __file__.encode(), 0, ctypes.byref(handle)
    ) or library.aoti_torch_library_impl(handle, name.encode(), ctypes.c_void_p(address))
    if refused:
        raise RuntimeError(f"torch refuses an implementation of {namespace}::{name}; it has logged why.")


class TensorReader:
    """Reads tensors by their handles; whether any of it failed is one bit.

    Args:
        f: the function that is being written, in its first block.
    """

    def __init__(self, f: FunctionBuilder):
        self._f = f
        self._place = f.emit(PTR, "alloca i64, align 8")
        self.failed = constant(I1, 0)

    def get(self, what: str, handle: Operand) -> Operand:
        """``data_ptr``, ``sizes`` (the address of int64), ``dim``, ``numel`` or ``dtype`` of a tensor."""
        return self._called(f"aoti_torch_get_{what}", handle, _GETTERS[what])

    def is_contiguous(self, handle: Operand) -> Operand:
        """One bit."""
        byte = self._called("aoti_torch_is_contiguous", handle, I8)
        return self._f.compare("ne", byte, constant(I8, 0))

    def _called(self, name: str, handle: Operand, kind: IRType) -> Operand:
        f = self._f
        error = f.call(name, I32, handle, self._place)
        self.failed = f.binary("or", self.failed, f.compare("ne", error, constant(I32, 0)))
        return f.load(kind, self._place)

    def new(self, dim: Operand, sizes: Operand, strides: Operand, dtype: Operand) -> Operand:
        """The handle of an uninitialized tensor of the CPU; null where there is no memory for it.

        Args:
            dim: int64.
            sizes: the address of int64.
            strides: the same.
            dtype: torch's number of it.
        """
        f = self._f
        device = constant(I32, _CPU), constant(I32, _NO_INDEX)
        error = f.call("aoti_torch_empty_strided", I32, dim, sizes, strides, dtype, *device, self._place)
        return f.select(f.compare("eq", error, constant(I32, 0)), f.load(PTR, self._place), constant(PTR, 0))


def delete(f: FunctionBuilder, handle: Operand) -> None:
    """Give up a tensor."""
    f.call("aoti_torch_delete_tensor_object", I32, handle)


def threads(f: FunctionBuilder) -> Operand:
    """int32: as many as torch uses in this thread."""
    return f.call(_THREADS, I32)


def add_entry(module: ModuleBuilder, name: str, run: str, operator: str) -> None:
    """Add ``<name>(stack, arguments, results)``, which torch can call, around a function that may fail.

    The call of what throws torch's exception is the last one, so that no frame of ours is left to be unwound.

    Args:
        module: one with ``run(stack)``, which returns null, or a message if it fails; see `implement`.
        name: to export.
        run: of that function.
        operator: what an error names.
    """
    f = FunctionBuilder(module, name, {"stack": PTR, "arguments": I64, "results": I64}, throws=True)
    failed, done = f.label("failed"), f.label("done")
    message = f.emit(PTR, f"call ptr @{run}({f.parameters['stack'].typed}) noinline")
    f.branch(f.compare("eq", message, constant(PTR, 0)), done, failed, likely=True)
    f.place(done)
    f.return_()
    f.place(failed)
    where = module.add_text(operator)
    f.module.declare("aoti_torch_check", None, [I1, PTR, PTR, I32, PTR])
    f.do(f"tail call void @aoti_torch_check(i1 zeroext false, {where.typed}, {where.typed}, i32 0, {message.typed})")
    f.return_()
    f.finish()
