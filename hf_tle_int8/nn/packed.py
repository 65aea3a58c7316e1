"""The weight of an INT8 layer as panels for the kernels, and back: one copy, in one parameter."""

import functools
import threading
import warnings

import torch
from torch import Tensor, nn

from hf_tle_int8 import execution, ops
from hf_tle_int8.errors import InputTypeError, InputValueError
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


def pack_parameter(weight: nn.Parameter, *shape: int) -> Tensor | None:
    """Make ``weight`` hold panels for the kernels of this machine, in place, so that all who share it do.

    Args:
        weight: int8, row-major or panels, maybe those of another machine.
        shape: what it is row-major: ``N, K``, or ``E, N, K`` of stacked experts.

    Returns:
        The panels; None where no kernel can run: on a device other than the CPU, or see `execution.unavailable`.

    Raises:
        InputTypeError: the weight is not int8: something wrote floats into it.
        InputValueError: the weight is of another shape.
    """
    with _lock:
        data = weight.detach()
        if data.device.type != "cpu":
            return None
        if data.dtype != torch.int8:
            raise InputTypeError(
                f"the weight of an INT8 linear has dtype {data.dtype}, int8 codes are needed: something wrote into it. "
                f"Make the layer a float one before its weight is changed, with to_linear() or model.dequantize()."
            )
        reason = execution.unavailable()
        if reason is not None:
            _warn_of_missing_kernels(reason)
            return None
        packing = execution.layout().packing
        ops.prepare()
        if is_packed(data):
            if packing.fits(data, *shape):
                return data
            data = unpack(data, *shape[-2:])
        if data.shape != shape:
            raise InputValueError(
                f"the weight of an INT8 linear has shape {tuple(data.shape)}, and the layer needs {shape}. "
                f"Make a new layer of it, with its scale."
            )
        panels = packing.pack(data)
        # torch.func.functional_call puts the caller's own tensors in the place of parameters.
        if isinstance(weight, nn.Parameter):
            weight.data = panels
        return panels


def unpack_parameter(weight: Tensor, n: int, k: int) -> Tensor:
    """Make ``weight`` hold row-major int8 ``[(E,) n, k]`` again, in place; gives it, whatever other threads do next."""
    with _lock:
        data = weight.detach()
        if is_packed(data):
            data = unpack(data, n, k)
            if isinstance(weight, nn.Parameter):
                weight.data = data
        return data
