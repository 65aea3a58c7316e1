"""What a bug report needs: versions, CPU, ISA features, threads."""

import importlib.metadata
import os
import platform

import torch

from hf_tle_int8.backend import hwcap

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

_ARM_FEATURES = ("asimd", "fphp", "asimdhp", "asimddp", "sve", "sve2", "svei8mm", "i8mm", "bf16")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def environment() -> dict[str, str]:
    """Names and values of all that a bug report should state, in the order to print them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    features = hwcap.cpu_features()
    return {
        **{package: _version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "CPU": hwcap.cpuinfo("model name") or platform.processor() or "unknown",
        "CPU features": " ".join(f for f in (*_X86_FEATURES, *_ARM_FEATURES) if f in features) or "unknown",
        "usable CPUs": str(usable),
        "torch threads": str(torch.get_num_threads()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "torch CPU capability": torch.backends.cpu.get_cpu_capability(),
        "INT8 linears run on": "plain torch (exact fp32 slices); the Triton kernels are not part of this release",
    }
