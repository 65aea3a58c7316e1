"""What a bug report needs: versions, CPU, ISA features, threads."""

import ctypes
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

_PACKAGES = (
    "hf_tle_int8",
    "torch",
    "triton",
    "transformers",
    "accelerate",
    "safetensors",
    "llvmlite",
    "compressed-tensors",
)

_X86_FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip

# Bits of the auxiliary vector, from the Linux kernel's arch/arm64/include/uapi/asm/hwcap.h.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_ARM_HWCAP = {"asimd": 1 << 1, "fphp": 1 << 9, "asimdhp": 1 << 10, "asimddp": 1 << 20, "sve": 1 << 22}
_ARM_HWCAP2 = {"sve2": 1 << 1, "svei8mm": 1 << 9, "i8mm": 1 << 13, "bf16": 1 << 14}


def cpu_features() -> list[str]:
    """The instruction-set features of this CPU that matter to INT8 and low-precision arithmetic, in Linux's names.

    Empty where the operating system does not tell (anything but Linux).
    """
    if platform.system() != "Linux":
        return []
    if platform.machine() == "aarch64":
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
        return _set_bits(getauxval(_AT_HWCAP), _ARM_HWCAP) + _set_bits(getauxval(_AT_HWCAP2), _ARM_HWCAP2)
    flags = _cpuinfo("flags").split()
    return [feature for feature in _X86_FEATURES if feature in flags]


def _set_bits(word: int, bits: dict[str, int]) -> list[str]:
    return [name for name, bit in bits.items() if word & bit]


def _cpuinfo(key: str) -> str:
    """The first value of ``key`` in /proc/cpuinfo, or an empty string."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def environment() -> dict[str, str]:
    """Names and values of all that a bug report should state, in the order to print them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        **{package: _version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "CPU": _cpuinfo("model name") or platform.processor() or "unknown",
        "CPU features": " ".join(cpu_features()) or "unknown",
        "usable CPUs": str(usable),
        "torch threads": str(torch.get_num_threads()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "torch CPU capability": torch.backends.cpu.get_cpu_capability(),
        "INT8 linears run on": "plain torch (exact fp32 slices); the Triton kernels are not part of this release",
    }
