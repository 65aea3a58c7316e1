"""What a linear of any library is to the benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def unchanged(x: Tensor) -> Tensor:
    """The fp32 input as it is."""
    return x


def to_float(y: Tensor, _: Tensor) -> Tensor:
    """The output in fp32."""
    return y.float()


def from_numpy(y: Any, _: Tensor) -> Tensor:
    """The output, a numpy array, as an fp32 tensor."""
    return torch.from_numpy(y).float()


@dataclass(frozen=True)
class Layer:
    """A linear without bias, ready to run.

    Attributes:
        run: what is timed: from an input as `enter` makes it to an output.
        weight_bytes: what a call reads of the weights at least, with their scales left out.
        enter: turns fp32 ``[M, K]`` into the input; not timed.
        leave: turns an output, given the fp32 input too, into fp32 ``[M, N]``; not timed.
    """

    run: Callable[[Any], Any]
    weight_bytes: int
    enter: Callable[[Tensor], Any] = unchanged
    leave: Callable[[Any, Tensor], Tensor] = to_float


@dataclass(frozen=True)
class Peer:
    """A way to run linears.

    Attributes:
        name: in tables.
        build: makes a `Layer` of an fp32 weight ``[N, K]``, on as many threads as torch uses; raises ImportError where
            the library is missing or lacks what it takes.
    """

    name: str
    build: Callable[[Tensor], Layer]


def float_linear(weight: Tensor, dtype: torch.dtype) -> torch.nn.Linear:
    """An ``nn.Linear`` without bias that holds ``weight`` ``[N, K]`` in ``dtype``."""
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
    return linear
