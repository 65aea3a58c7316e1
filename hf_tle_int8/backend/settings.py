"""Whether Triton runs kernels through this backend, and if not, why."""

import importlib.util
import os

from hf_tle_int8.backend.target import current, host

ENTRY_POINT_GROUP = "triton.backends"
# Not "cpu": torch takes a backend of that name for triton-cpu, and has_triton() would be true on machines without GPU.
NAME = "tle_cpu"


def _other_active_backends() -> list[str]:
    from triton.backends import backends

    return [name for name, backend in backends.items() if name != NAME and backend.driver.is_active()]


def why_not_default() -> str | None:
    """Why the driver leaves kernels to another one, with the remedy; None where it does not.

    Raises:
        Exception: what another backend's ``is_active`` raises.
    """
    try:
        host()
    except RuntimeError as error:
        return str(error)
    chosen = os.environ.get("TRITON_DEFAULT_BACKEND")
    if chosen == NAME:
        return None
    if chosen:
        return f"TRITON_DEFAULT_BACKEND={chosen} chooses another backend. Set TRITON_DEFAULT_BACKEND={NAME}."
    others = _other_active_backends()
    if others:
        return f"Triton's backend {', '.join(others)} is active. Set TRITON_DEFAULT_BACKEND={NAME}."
    return None


def why_not_registered() -> str | None:
    """Why Triton does not know this backend, with the remedy; None where it does."""
    if os.environ.get("TRITON_BACKENDS_IN_TREE") == "1":
        return "TRITON_BACKENDS_IN_TREE=1 keeps Triton from looking for backends outside of it. Unset it."
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton."
    from triton.backends import backends

    if NAME not in backends:
        return (
            f"the installed packages have no entry point {NAME!r} in the group {ENTRY_POINT_GROUP!r}. "
            "Reinstall hf_tle_int8."
        )
    return None


def why_inactive() -> str | None:
    """Why ``kernel[grid](cpu_tensors)`` would not run through this backend, with the remedy; None where it would.

    Raises:
        Exception: as `why_not_default` says.
    """
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite, which compiles kernels, is not installed: pip install llvmlite."
    return why_not_registered() or why_not_default() or _why_interpreted() or _why_no_target()


def _why_interpreted() -> str | None:
    from triton import knobs

    return "TRITON_INTERPRET runs kernels in Triton's interpreter. Unset it." if knobs.runtime.interpret else None


def _why_no_target() -> str | None:
    try:
        current()
    except RuntimeError as error:
        return str(error)
    return None
