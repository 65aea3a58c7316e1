"""Quantized activations between the kernel that makes them and those that read them.

Linears that read one input (q, k and v of an attention, gate and up of an MLP) quantize it once. That is safe since a
linear takes over what another has quantized only where

- both are `Reader` of one `SharedInput`: the ``forward`` of their module calls them with one variable, and nothing
  between the calls touches it (`hf_tle_int8.shared_inputs` proves that from the source),
- it is that ``forward`` which calls them, without hooks or other code around the calls, and
- the tensor is the same object, of the same version and in the same place as then, and was not read by it before.
"""

import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import CodeType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hf_tle_int8.dispatch import Choice
from hf_tle_int8.import_hook import after_import

# Of scales and of codes, in bytes.
ALIGNMENT = 64
# Longer scratch is not kept once it is read.
_MOST_KEPT = 1 << 24


class SharedInput:
    """What linears have in common that one module calls with one variable.

    Args:
        owner: the class of that module.
        readers: how many there are.

    Attributes:
        code: of its ``forward``.
        everyone: the bits of all readers.
    """

    def __init__(self, owner: type[nn.Module], readers: int) -> None:
        self._owner = owner
        self.code: CodeType = inspect.unwrap(owner.forward).__code__
        self.everyone = (1 << readers) - 1
        # Weak, since a reader that is not called would keep them beyond the frame that they are of.
        self._x: weakref.ref[Tensor] | None = None
        self._codes: weakref.ref[Tensor] | None = None
        self._read = 0

    def __reduce__(self) -> tuple[type["SharedInput"], tuple[type[nn.Module], int]]:
        return SharedInput, (self._owner, self.everyone.bit_length())

    def traced(self, x: Tensor, bit: int) -> Tensor:
        """The operator ``tle_int8::quantize`` of ``x``, once in a graph for all readers."""
        codes = None
        if self._x is not None and self._codes is not None and self._x() is x and not self._read & bit:
            codes = self._codes()
        if codes is None:
            codes = torch.ops.tle_int8.quantize(x)
            self._x, self._codes, self._read = weakref.ref(x), weakref.ref(codes), 0
        self._read |= bit
        if self._read == self.everyone:
            self._x = self._codes = None
        return codes


class Reader(NamedTuple):
    """One of the linears that share their input, by its bit."""

    of: SharedInput
    bit: int


_PACKAGE = os.path.join(os.path.dirname(__file__), "")
# Of ``nn.Module.__call__``, between the ``forward`` of a layer and who calls the layer.
_FRAMES = 2


def called_in(shared: SharedInput) -> bool:
    """Whether the layer whose ``forward`` asks is called by the ``forward`` of the owner, and not through a hook."""
    frame = sys._getframe(1)
    for _ in range(_FRAMES + 1):
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return frame.f_code is shared.code


def traced_in(shared: SharedInput) -> bool:
    """`called_in` of a layer without hooks that Dynamo traces, where frames are others: only its user's are shown."""
    stack = torch._guards.TracingContext.extract_stack()
    callers = [frame for frame in stack if not frame.filename.startswith(_PACKAGE)]
    lines = [line for *_, line in shared.code.co_lines() if line is not None]
    return (
        bool(callers)
        and (callers[-1].filename, callers[-1].name) == (shared.code.co_filename, shared.code.co_name)
        and min(lines) <= (callers[-1].lineno or 0) <= max(lines)
    )


# Before anything is traced; at once, this would import Dynamo.
after_import("torch._dynamo", lambda _: torch.compiler.assume_constant_result(traced_in))


class Quantize(NamedTuple):
    """How rows of one shape are quantized.

    Attributes:
        call: `hf_tle_int8.kernels.quantize.quantize`, compiled.
        m: rows.
        k: elements of a row.
        padded_k: bytes of a row of codes.
        groups: of rows that lie together.
        threads: how many to use.
        scales: bytes of scratch for scales; codes follow.
        size: bytes of scratch.
    """

    call: Callable[..., None]
    m: int
    k: int
    padded_k: int
    groups: int
    threads: int
    scales: int
    size: int

    def run(self, x: Tensor, to: int) -> None:
        """Write the scales and codes of contiguous ``x [m, k]`` to an address."""
        self.call(
            x.data_ptr(), self.k, to + self.scales, to, self.m, self.k, self.padded_k, self.groups, 1, 1, self.threads
        )


def quantize(call: Callable[..., None], m: int, k: int, padded_k: int, choice: Choice) -> Quantize:
    """See `Quantize`: as the tile of ``choice`` reads them."""
    room = -(-m // choice.tile_m) * choice.tile_m
    scales = -(-4 * room // ALIGNMENT) * ALIGNMENT
    groups = -(-m // choice.rows)
    return Quantize(call, m, k, padded_k, groups, choice.threads, scales, scales + room * padded_k)


class Scratch(threading.local):
    """Memory for the codes and scales of activations, one for each thread of Python that calls."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self._size, self._address = 0, 0
        # Who may read what is there, as long as that is so.
        self._of: SharedInput | None = None
        self._read, self._version, self._place = 0, 0, 0
        self._x: Callable[[], Tensor | None] | None = None
        self._how: Quantize | None = None

    def filled(self, x: Tensor, how: Quantize, reader: Reader | None) -> int:
        """The address of the quantized rows of ``x``.

        Args:
            x: ``[..., how.k]`` of ``how.m`` rows, contiguous or not.
            how: their quantization.
            reader: who asks, if it shares its input.
        """
        if reader is not None and self._holds(x, how, reader):
            self._read |= reader.bit
            if self._read == reader.of.everyone:
                self._of = self._x = None
            return self._address
        self._of = self._x = None
        address = self._room(how.size)
        how.run(x if x.is_contiguous() else x.contiguous(), address)
        # The versions of tensors of inference mode are not counted.
        if reader is not None and not x.is_inference():
            self._of, self._read, self._how = reader.of, reader.bit, how
            self._x, self._version, self._place = weakref.ref(x), x._version, x.data_ptr()
        return address

    def _holds(self, x: Tensor, how: Quantize, reader: Reader) -> bool:
        if self._of is not reader.of or self._x is None or self._how is None:
            return False
        return (
            not self._read & reader.bit
            and self._x() is x
            and self._how.call is how.call
            and self._how.m == how.m
            and self._how.k == how.k
            and self._version == x._version
            and self._place == x.data_ptr()
        )

    def release(self) -> None:
        """What was `filled` last has been read: memory beyond the usual is given back unless others will read it."""
        if self._size > _MOST_KEPT and self._of is None:
            self._size, self._memory = 0, None

    def _room(self, size: int) -> int:
        """The address of ``size`` bytes, aligned for vectors; what they held before is gone."""
        if size > self._size:
            self._memory = torch.empty(size + ALIGNMENT, dtype=torch.int8)
            self._size, self._address = size, -(-self._memory.data_ptr() // ALIGNMENT) * ALIGNMENT
        return self._address
