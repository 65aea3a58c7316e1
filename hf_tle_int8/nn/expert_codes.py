"""The int8 weights of experts: made of float ones, and shown as attributes."""

from typing import Any

import torch
from torch import Tensor

from hf_tle_int8 import arithmetic
from hf_tle_int8.nn.packed import unpack_parameter


def quantize_experts(weight: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """`arithmetic.quantize_weight` of each expert, one after another.

    Args:
        weight: ``[E, N, K]``, floating point, of any strides.
        name: what an error calls it.

    Returns:
        ``(q, scale)``: int8 ``[E, N, K]`` and fp32 ``[E, N, 1]`` with ``weight ≈ q * scale``.

    Raises:
        InputTypeError, InputValueError: see `arithmetic.check_weight`; the message names the expert.
    """
    q = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty((*weight.shape[:2], 1), dtype=torch.float32)
    for expert, own in enumerate(weight):
        q[expert], scale[expert] = arithmetic.quantize_weight(own, f"{name}[{expert}]")
    return q, scale


class Codes:
    """The attribute of experts that is an int8 weight ``[E, N, K]``.

    A packed weight is turned back into that, and packed again by the next call.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, experts: Any, owner: type) -> Any:
        if experts is None:
            return self
        weight = experts._parameters.get(self.name)
        if weight is None:
            raise AttributeError(f"{owner.__name__} has no {self.name}.")
        if weight.dtype == torch.int8:
            unpack_parameter(weight, *experts.projections[self.name][1:])
        return weight
