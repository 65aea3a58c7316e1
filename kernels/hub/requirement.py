"""What these kernels need beside them, which no metadata of a Hub kernel can declare."""

import importlib.util


def check(needed: str) -> None:
    """Raise unless hf_tle_int8 is there to run these kernels.

    Args:
        needed: its version; tiles and packings of another one may not be those of these kernels.

    Raises:
        ImportError: hf_tle_int8 is not installed, or another version of it is.
        RuntimeError: no Triton kernel can run on this CPU or in this process.
    """
    remedy = f"pip install hf_tle_int8=={needed}"
    if importlib.util.find_spec("hf_tle_int8") is None:
        raise ModuleNotFoundError(
            f"hf_tle_int8 is not installed: these kernels run on CPUs by its Triton backend. Install it: {remedy}"
        )
    from hf_tle_int8.version import __version__ as found

    if found != needed:
        raise ImportError(
            f"hf_tle_int8 {found} is installed, and these kernels are those of {needed}: tiles and packings may "
            f"differ. Install that one ({remedy}), or load the kernels that belong to {found}."
        )
    from hf_tle_int8 import execution

    reason = execution.unavailable()
    if reason is not None:
        raise RuntimeError(f"the kernels of tle-int8 cannot run here: {reason}")
