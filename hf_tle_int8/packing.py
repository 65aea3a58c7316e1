"""Row-major int8 weights to panels and back, in plain torch.

A weight is ``[N, K]``, or ``[E, N, K]`` where experts are stacked: then its panels are stacked as well.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# A group is moved as one number: many times faster than byte by byte.
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Packing:
    """Panels ``[N / columns, K / group, columns, group]``, zeros behind N and K.

    Attributes:
        columns: output channels of a panel.
        group: neighbours along K that lie together, 1, 2, 4 or 8: what one instruction multiplies.
        n_multiple: N is padded to a multiple of this, of which `columns` is a divisor.
        k_multiple: K is padded to a multiple of this, of which `group` is a divisor.
    """

    columns: int
    group: int
    n_multiple: int
    k_multiple: int

    def padded(self, n: int, k: int) -> tuple[int, int]:
        """N and K with their padding."""
        return -(-n // self.n_multiple) * self.n_multiple, -(-k // self.k_multiple) * self.k_multiple

    def pack(self, weight: Tensor) -> Tensor:
        """int8 ``[N, K]``, or ``[E, N, K]`` one after another, to contiguous panels."""
        if weight.dim() == 3:
            return _stack(self.pack, weight)
        n, k = weight.shape
        padded_n, padded_k = self.padded(n, k)
        if (padded_n, padded_k) != (n, k):
            whole = weight.new_zeros((padded_n, padded_k))
            whole[:n, :k] = weight
            weight = whole
        words = _words(weight, self.group).unflatten(0, (padded_n // self.columns, self.columns))
        return words.transpose(1, 2).contiguous().view(torch.int8).unflatten(2, (self.columns, self.group))

    def fits(self, panels: Tensor, *shape: int) -> bool:
        """Whether these can be the panels that `pack` makes of a weight of this shape."""
        *experts, n, k = shape
        padded_n, padded_k = self.padded(n, k)
        return panels.is_contiguous() and panels.shape == (
            *experts,
            padded_n // self.columns,
            padded_k // self.group,
            self.columns,
            self.group,
        )


def is_packed(weight: Tensor) -> bool:
    """Whether an int8 weight is panels rather than row-major ``[N, K]`` or ``[E, N, K]``."""
    return weight.dim() >= 4


def unpack(panels: Tensor, n: int, k: int) -> Tensor:
    """The int8 ``[n, k]``, or ``[E, n, k]``, that any `Packing` has packed, contiguous."""
    if panels.dim() == 5:
        return _stack(lambda own: unpack(own, n, k), panels)
    return unpack_channels(panels, 0, n, k)


def _stack(convert: Callable[[Tensor], Tensor], weights: Tensor) -> Tensor:
    """``convert`` of each expert's weight, one after another, so that its scratch is that of one."""
    first = convert(weights[0])
    stacked = first.new_empty((len(weights), *first.shape))
    stacked[0] = first
    for expert in range(1, len(weights)):
        stacked[expert] = convert(weights[expert])
    return stacked


def unpack_channels(panels: Tensor, start: int, stop: int, k: int) -> Tensor:
    """Rows ``[start, stop)`` of what `unpack` gives; only their panels are read."""
    columns, group = panels.shape[2:]
    first = start // columns
    some = panels[first : -(-stop // columns)]
    rows = _words(some.flatten(2), group).transpose(1, 2).contiguous().flatten(0, 1).view(torch.int8)
    own = rows[start - first * columns : stop - first * columns, :k].contiguous()
    # Not a part of the padded memory: that would be held, and `save_pretrained` splits files by the memory of tensors.
    return own if own.untyped_storage().nbytes() == own.nbytes else own.clone()


def _words(x: Tensor, group: int) -> Tensor:
    """int8 ``[..., k]`` as ``[..., k / group]`` numbers of ``group`` bytes; copied where memory lies otherwise."""
    x = x.contiguous()
    return (x.clone() if x.storage_offset() % group else x).view(_WORDS[group])
