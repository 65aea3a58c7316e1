"""The driver that Triton finds: exactly one concrete ``DriverBase`` may be visible in this module."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from hf_tle_int8.backend import settings
from hf_tle_int8.backend.launcher import Binary, CPULauncher
from hf_tle_int8.backend.target import current

if TYPE_CHECKING:
    from hf_tle_int8.backend.benchmark import DeviceInterface

# More than the last-level cache of the CPUs that there are targets for has per core.
_FLUSH_BYTES = 32 << 20
_UNLIMITED = 1 << 30

_C_TYPES = {
    **{f"i{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}_t" for bits in (8, 16, 32, 64)},
    "i1": "int8_t",
    "u1": "int8_t",
    **dict.fromkeys(("fp16", "bf16", "fp32", "f32", "fp64"), "double"),
}


class CPUUtils:
    """What Triton asks of a device."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        """The limits that Triton checks, none of which a CPU has, and the number of CPUs."""
        return {
            "max_shared_mem": _UNLIMITED,
            "multiprocessor_count": os.cpu_count() or 1,
            "warpSize": 1,
            "max_num_regs": _UNLIMITED,
        }

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[Binary, Binary, int, int, int]:
        """Module, function, registers, spills and the limit of threads; the launcher checks and loads the code."""
        binary = Binary(name, kernel)
        return binary, binary, 0, 0, _UNLIMITED

    def unload_module(self, module: Binary) -> None:
        """Nothing: code lives as long as its launcher."""


class CPUDriver(DriverBase):
    """The one CPU, device 0, whose kernels have ended when a launch returns."""

    def __init__(self) -> None:
        super().__init__()
        self.utils = CPUUtils()
        self.launcher_cls = CPULauncher

    @classmethod
    def is_active(cls) -> bool:
        """Whether kernels run here by default: see `settings.why_not_default`."""
        return settings.why_not_default() is None

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Triton's name of a type as C's.

        Raises:
            ValueError: C has no such type here.
        """
        if ty.startswith("*"):
            return "void*"
        if ty not in _C_TYPES:
            raise ValueError(
                f"arguments of type {ty!r} are not supported on CPUs. Use {', '.join(_C_TYPES)} or pointers."
            )
        return _C_TYPES[ty]

    def get_current_target(self) -> GPUTarget:
        """What kernels are compiled for.

        Raises:
            RuntimeError: see `target.current`.
        """
        return GPUTarget("cpu", current().name, 1)

    def get_current_device(self) -> int:
        """The number of the CPU."""
        return 0

    def set_current_device(self, device: int) -> None:
        """Nothing; there is one device.

        Raises:
            ValueError: ``device`` is another one.
        """
        if device != 0:
            raise ValueError(f"there is no device {device}: the CPU is device 0. Choose that.")

    def get_current_stream(self, device: int | None = None) -> int:
        """There is one stream."""
        return 0

    def get_active_torch_device(self) -> Any:
        """torch's device of the tensors that kernels take."""
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> "type[DeviceInterface]":
        """What ``triton.testing`` measures by."""
        from hf_tle_int8.backend.benchmark import DeviceInterface

        return DeviceInterface

    def get_benchmarker(self) -> Callable[..., Any]:
        """What the autotuner measures by."""
        from hf_tle_int8.backend.benchmark import do_bench

        return do_bench

    def get_empty_cache_for_benchmark(self) -> Any:
        """A tensor that displaces what is in the caches when it is written."""
        import torch

        return torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cpu")

    def clear_cache(self, cache: Any) -> None:
        """Write the tensor of `get_empty_cache_for_benchmark`."""
        cache.zero_()
