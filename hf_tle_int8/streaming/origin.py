"""Where a tensor of the INT8 checkpoint comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

Quantize = Callable[[Tensor], tuple[Tensor, Tensor]]

_T = TypeVar("_T", bound=Tensor)

_ATTRIBUTE = "_tle_int8_origin"


class NotStreamableError(Exception):
    """This checkpoint cannot be converted tensor by tensor; the message is the reason."""


@dataclass(frozen=True)
class Origin:
    """What one tensor to write is made of.

    Attributes:
        source: the name of a tensor of the float checkpoint.
        dtype: that it is cast to first.
        quantize: makes codes int8 and their scale fp32 of it; None where it stays in float.
        part: 0 for the codes, 1 for the scale.
    """

    source: str
    dtype: torch.dtype
    quantize: Quantize | None = None
    part: int = 0

    def pair(self, quantize: Quantize) -> tuple["Origin", "Origin"]:
        """The origins of the codes and of the scale that ``quantize`` makes of the same source."""
        return Origin(self.source, self.dtype, quantize, 0), Origin(self.source, self.dtype, quantize, 1)


# Of a tensor that is stacked of several.
SEVERAL = Origin("", torch.int8)


def with_origin(tensor: _T, origin: Origin) -> _T:
    """``tensor`` itself, which knows its origin from now on."""
    setattr(tensor, _ATTRIBUTE, origin)
    return tensor


def origin_of(tensor: Tensor) -> Origin | None:
    """What `with_origin` has said of ``tensor``; None where it is of no file."""
    return cast(Origin | None, getattr(tensor, _ATTRIBUTE, None))
