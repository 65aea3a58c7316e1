"""Whether Triton runs kernels through this backend, and if not, why."""

import importlib.util
import os

from hf_tle_int8.backend.target import current, host

ENTRY_POINT_GROUP = "triton.backends"
NAME = "cpu"


def _active_gpu() -> str | None:
    import torch

    if torch.cuda.is_available():
        return "torch.cuda"
    xpu = getattr(torch, "xpu", None)
    return "torch.xpu" if xpu is not None and xpu.is_available() else None


def why_not_default() -> str | None:
    """Why the driver leaves kernels to another one, with the remedy; None where it does not."""
    try:
        host()
    except RuntimeError as error:
        return str(error)
    chosen = os.environ.get("TRITON_DEFAULT_BACKEND")
    if chosen == NAME:
        return None
    if chosen:
        return f"TRITON_DEFAULT_BACKEND={chosen} chooses another backend. Set TRITON_DEFAULT_BACKEND={NAME}."
    gpu = _active_gpu()
    if gpu:
        return f"a GPU is active ({gpu}.is_available()). Set TRITON_DEFAULT_BACKEND={NAME}."
    return None


def _why_not_registered() -> str | None:
    if os.environ.get("TRITON_BACKENDS_IN_TREE") == "1":
        return "TRITON_BACKENDS_IN_TREE=1 keeps Triton from looking for backends outside of it. Unset it."
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton."
    from triton.backends import backends

    found = backends.get(NAME)
    if found is None:
        return (
            f"the installed packages have no entry point {NAME!r} in the group {ENTRY_POINT_GROUP!r}. "
            "Reinstall hf_tle_int8."
        )
    package = __name__.rpartition(".")[0]
    if not found.compiler.__module__.startswith(f"{package}."):
        return f"another package, {found.compiler.__module__}, is Triton's backend {NAME!r}. Uninstall it."
    return None


def why_inactive() -> str | None:
    """Why ``kernel[grid](cpu_tensors)`` would not run through this backend, with the remedy; None where it would."""
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite, which compiles kernels, is not installed: pip install llvmlite."
    return _why_not_registered() or why_not_default() or _why_no_target()


def _why_no_target() -> str | None:
    try:
        current()
    except RuntimeError as error:
        return str(error)
    return None
