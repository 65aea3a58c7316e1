"""What a bug report needs: versions, CPU, ISA features, threads, and whether Triton's kernels run here."""

import importlib.metadata
import os
import platform

import torch

from hf_tle_int8 import dispatch, execution, native
from hf_tle_int8.backend import debug, hwcap, schedule, settings, target
from hf_tle_int8.errors import ConfigError

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

# Shown where they are set.
_VARIABLES = (
    "TRITON_BACKENDS_IN_TREE",
    "TRITON_DEFAULT_BACKEND",
    "TRITON_INTERPRET",
    target.VARIABLE,
    debug.VARIABLE,
    dispatch.VARIABLE,
    schedule.VARIABLE,
)


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
        # With the build, which the version of PyPI's package leaves out.
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "CPU": hwcap.cpuinfo("model name") or platform.processor() or "unknown",
        "CPU features": " ".join(f for f in (*_X86_FEATURES, *_ARM_FEATURES) if f in features) or "unknown",
        "usable CPUs": str(usable),
        "torch threads": str(torch.get_num_threads()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "torch CPU capability": torch.backends.cpu.get_cpu_capability(),
        **_target(),
        "threads share a grid": _schedule(),
        **_triton_backend(),
        **{name: os.environ[name] for name in _VARIABLES if os.environ.get(name)},
        "INT8 linears run on": what_runs_linears(),
        "INT8 linears are called": what_calls_linears(),
    }


def what_runs_linears() -> str:
    """The Triton kernels, or plain torch and why."""
    reason = execution.unavailable()
    if reason is not None:
        return f"the plain-torch reference, exact but slow: {reason}"
    try:
        packing = execution.layout().packing
    except ConfigError as error:
        return f"nothing: {error}"
    return f"Triton kernels, from panels of {packing.columns} channels by {packing.group} inputs"


def what_calls_linears() -> str:
    """How a call of a layer gets to the kernels, if there are any, and why so if it passes through Python."""
    if execution.unavailable() is not None:
        return "in plain torch"
    reason = native.unavailable()
    return "by torch's dispatcher, in machine code" if reason is None else f"through Python: {reason}"


def _target() -> dict[str, str]:
    try:
        found = target.current()
    except RuntimeError as error:
        return {"kernels compiled for": f"nothing: {error}"}
    return {
        "kernels compiled for": f"{found.name} ({found.arch}, {found.cpu}{found.feature_string and ','}"
        f"{found.feature_string}, scheduled for {found.tune})",
        "vector registers": f"{found.vector_registers} of {8 * found.vector_bytes} bits",
        "dot instructions": f"int8 {found.int8_dot}, bf16 {found.bf16_dot}",
    }


def _schedule() -> str:
    try:
        found = schedule.current()
    except ValueError as error:
        return f"not at all: {error}"
    return f"{found.name}: {found.reason}"


def _triton_backend() -> dict[str, str]:
    unregistered, inactive = settings.why_not_registered(), settings.why_inactive()
    return {
        f"Triton backend {settings.NAME}": f"not registered: {unregistered}" if unregistered else "registered",
        f"{settings.NAME} runs kernels": f"no: {inactive}" if inactive else "yes",
    }
