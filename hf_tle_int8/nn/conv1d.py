"""TLEInt8Conv1D, and which class of this package stands for a float module."""

from typing import Any, cast

from torch import Tensor, nn

from hf_tle_int8.nn.linear import TLEInt8Linear
from hf_tle_int8.nn.plain import Orientation, orientation


class TLEInt8Conv1D(TLEInt8Linear):
    """What ``Conv1D`` of transformers becomes: GPT-2's linear, which holds its float weight as ``[K, N]``.

    In INT8 it is a linear like all others, in memory and in files: int8 ``[N, K]`` with one scale per output channel,
    ``w ≈ (weight * weight_scale).T`` for the ``[K, N]`` of ``Conv1D``.
    """

    @staticmethod
    def rows(weight: Tensor) -> Tensor:
        """``[K, N]`` -> ``[N, K]`` and back: a view."""
        return weight.transpose(0, -1)


def int8_class(module: nn.Module) -> type[TLEInt8Linear] | None:
    """The class that ``module``, an ``nn.Linear`` or the like in float, turns into; None for all other modules."""
    if isinstance(module, TLEInt8Linear) or "weight" not in module._parameters:
        return None
    float_class: Any = type(module)
    found = orientation(float_class)
    if found is None:
        return None
    return TLEInt8Conv1D if found is Orientation.IN_OUT else TLEInt8Linear


def is_linear(module: nn.Module) -> bool:
    """Whether ``module`` is a linear in any form: ``nn.Linear``, a subclass, or a class that `int8_class` knows."""
    return isinstance(module, nn.Linear) or int8_class(module) is not None


def _class_for(module: nn.Module) -> type[TLEInt8Linear]:
    cls = int8_class(module)
    if cls is None:
        raise TypeError(f"{type(module).__name__} is no float linear that can be INT8: ask int8_class first.")
    return cls


def become_int8(module: nn.Module, weight: Tensor, scale: Tensor, bias: Tensor | None) -> TLEInt8Linear:
    """Turn ``module``, for which `int8_class` has a class, into a layer of that class; see `TLEInt8Linear.become`."""
    return _class_for(module).become(module, weight, scale, bias)


def float_rows(module: nn.Module) -> Tensor:
    """The weight of ``module``, for which `int8_class` has a class, as ``[N, K]``: a view."""
    return _class_for(module).rows(cast(Tensor, module.weight))


def bias_of(module: nn.Module) -> nn.Parameter | None:
    """The bias ``[N]`` of a linear in any form."""
    return module._parameters["bias"]


def size_of(module: nn.Module) -> tuple[int, int]:
    """N and K of a linear in any form, in float or in INT8."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    n, k = float_rows(module).shape
    return n, k
