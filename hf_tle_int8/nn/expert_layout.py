"""Which modules are experts that can become INT8, and how their weights lie.

transformers 5 fuses the experts of a layer into 3-D parameters and marks the class with ``use_experts_implementation``,
which sets the flags that are read here (``transformers/integrations/moe.py``; the same in 5.21 to 5.23).
"""

from typing import Any

from torch import Tensor, nn

from hf_tle_int8.kernels.scheme import MAX_IN_FEATURES

_FLAGS = ("has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "is_concatenated")


def is_experts(module: nn.Module) -> bool:
    """Whether ``module`` holds the fused weights of experts, by the interface of transformers."""
    return all(isinstance(vars(module).get(flag), bool) for flag in _FLAGS)


def projection_names(experts: Any) -> tuple[str, str]:
    """The names of the weights of ``experts``, in the order of their use."""
    return ("gate_up_proj" if experts.has_gate else "up_proj", "down_proj")


def row_major(experts: Any, weight: Tensor) -> Tensor:
    """A float weight of ``experts`` as ``[E, N, K]``, a view: some classes keep ``[E, K, N]``. Its own inverse."""
    return weight.transpose(1, 2) if experts.is_transposed else weight


def obstacle(experts: nn.Module) -> str | None:
    """Why ``experts`` cannot become INT8; None where they can."""
    if "forward" in vars(experts):
        return "whose forward was replaced on the instance"
    # The decorator wraps the forward of the class that it marks.
    if not hasattr(type(experts).forward, "__wrapped__"):
        return f"of class {type(experts).__name__}, whose forward is its own,"
    weights = [experts._parameters.get(name) for name in projection_names(experts)]
    shapes = [row_major(experts, w).shape for w in weights if w is not None and w.dim() == 3 and w.is_floating_point()]
    if len(shapes) < 2 or shapes[0][0] != shapes[1][0]:
        return f"of class {type(experts).__name__}, whose weights are not those of its interface,"
    if not all(1 <= shape[2] <= MAX_IN_FEATURES for shape in shapes):
        return f"with in_features outside of 1..{MAX_IN_FEATURES}"
    return None
