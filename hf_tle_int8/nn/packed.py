"""The weight of an INT8 layer as panels for the kernels, and back: one copy, in one parameter."""

import functools
import threading
import warnings

from torch import Tensor, nn

from hf_tle_int8 import execution
from hf_tle_int8.packing import is_packed, unpack

# A weight must not change its form while another thread changes it.
_lock = threading.Lock()


@functools.cache
def _warn_of_missing_kernels(reason: str) -> None:
    warnings.warn(
        f"INT8 linears run on the plain-torch reference, which is exact but slow, since the kernels cannot: {reason}",
        RuntimeWarning,
        stacklevel=5,
    )


def pack_parameter(weight: nn.Parameter, n: int, k: int) -> Tensor | None:
    """Make ``weight`` hold panels for the kernels of this machine, in place, so that all who share it do.

    Args:
        weight: int8, row-major ``[n, k]`` or panels, maybe those of another machine.
        n: output channels.
        k: inputs.

    Returns:
        The panels; None where no kernel can run: on a device other than the CPU, or see `execution.unavailable`.
    """
    with _lock:
        data = weight.detach()
        if data.device.type != "cpu":
            return None
        reason = execution.unavailable()
        if reason is not None:
            _warn_of_missing_kernels(reason)
            return None
        packing = execution.layout().packing
        if is_packed(data):
            if packing.fits(data, n, k):
                return data
            data = unpack(data, n, k)
        weight.data = packing.pack(data)
        return weight.detach()


def unpack_parameter(weight: nn.Parameter, n: int, k: int) -> None:
    """Make ``weight`` hold row-major int8 ``[n, k]`` again, in place."""
    with _lock:
        data = weight.detach()
        if is_packed(data):
            weight.data = unpack(data, n, k)
