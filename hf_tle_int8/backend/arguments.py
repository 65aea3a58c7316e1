"""Arguments of a launch as the integers and floats that compiled code takes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Converter = Callable[[Any], Any]
# Where an argument lies: its position, then positions in nested tuples.
Path = tuple[int, ...]

_INTEGERS = frozenset(f"{sign}{bits}" for sign in "iu" for bits in (1, 8, 16, 32, 64))
_FLOATS = frozenset({"fp16", "bf16", "fp32", "f32", "fp64"})


def converters(signature: Mapping[Any, Any]) -> list[tuple[Path, Converter]]:
    """How to make the native arguments: for each, in order, where its value lies and what converts it.

    Args:
        signature: Triton's names and types of the parameters; constexprs have no native argument.

    Raises:
        TypeError: a parameter has a type that is for GPUs.
    """
    return [
        (path, _converter(str(name), kind))
        for index, (name, declared) in enumerate(signature.items())
        for path, kind in _leaves((index,), declared)
        if kind != "constexpr"
    ]


def _leaves(path: Path, kind: Any) -> Iterator[tuple[Path, str]]:
    if isinstance(kind, (tuple, list)):
        for index, inner in enumerate(kind):
            yield from _leaves((*path, index), inner)
    else:
        yield path, str(kind)


def _converter(name: str, kind: str) -> Converter:
    if kind.startswith(("*", "!tt.ptr")):
        return _Address(name)
    if kind == "u64":
        return _wrapped
    if kind in _INTEGERS or kind in _FLOATS:
        return _unchanged
    raise TypeError(
        f"argument {name} has type {kind}, which is not supported on CPUs. "
        "Pass the tensor with its shape and strides, and make descriptors in the kernel (tl.make_tensor_descriptor)."
    )


class _Address:
    """A tensor, anything else with ``data_ptr()``, an address or None as an address."""

    def __init__(self, name: str):
        self._name = name

    def __call__(self, value: Any) -> int:
        if value is None:
            return 0
        if isinstance(value, int):
            return value
        device = getattr(value, "device", None)
        if getattr(device, "type", "cpu") != "cpu":
            raise ValueError(
                f"argument {self._name} is on device {str(device)!r}, but the kernel runs on the CPU. "
                "Move it there with .cpu()."
            )
        if not hasattr(value, "data_ptr"):
            raise TypeError(
                f"argument {self._name} is of {type(value).__name__}, which has no address. Pass a tensor on the CPU."
            )
        return value.data_ptr()


def _unchanged(value: Any) -> Any:
    return value


def _wrapped(value: int) -> int:
    """An unsigned 64-bit integer as the signed one with the same bits, which is what entries parse."""
    return value - (1 << 64) if value >= 1 << 63 else value
