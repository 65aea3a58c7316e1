"""Which linears and experts of a model become INT8, and for each of the others the reason why not."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import nn

from hf_tle_int8.kernels.scheme import MAX_IN_FEATURES
from hf_tle_int8.matching import ModuleMatcher, matches_experts
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.expert_layout import is_experts, obstacle, projection_names, row_major
from hf_tle_int8.weight_access import weights_read_by_code


@dataclass
class Selection:
    """The outcome of looking at a model.

    Attributes:
        convert: the linears to convert, under the first name of each.
        aliases: all names of each linear in ``convert``, by its first name.
        experts: the fused experts to convert, under the first name of each.
        kept: reason -> names of what stays in floating point.
    """

    convert: dict[str, nn.Linear] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    experts: dict[str, nn.Module] = field(default_factory=dict)
    kept: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, name: str, reason: str) -> None:
        """Record that the module called ``name`` stays in floating point."""
        self.kept.setdefault(reason, []).append(name)

    def summary(self, converted: int, experts: int = 0) -> str:
        """One line: how many linears and experts became INT8, how much stays in floating point and why."""
        line = f"{converted} linear layers{f' and the experts of {experts} layers' if experts else ''} in INT8"
        if not self.kept:
            return f"{line}, none left in floating point"
        reasons = ", ".join(f"{len(names)} {reason} ({_shorten(names)})" for reason, names in self.kept.items())
        return f"{line}; left in floating point: {reasons}"


def _shorten(names: list[str], shown: int = 2) -> str:
    listed = ", ".join(name or "the model itself" for name in names[:shown])
    return listed if len(names) <= shown else f"{listed}, … {len(names) - shown} more"


@dataclass
class Rules:
    """What to leave in floating point beside what cannot be converted at all.

    Attributes:
        skip: the user's list.
        defaults: names that are skipped by default -> the reason.
        names_of: the names under which patterns know a module, from its name in the model.
        require_divisible_by: K and N must be multiples of this.
        skip_with_bias: leave linears that have a bias.
        keep_tied: leave linears whose weight is shared with a module that is no ``nn.Linear``.
        keep_experts: why fused experts stay; None where they are converted.
    """

    skip: ModuleMatcher
    defaults: dict[str, str] = field(default_factory=dict)
    names_of: Callable[[str], list[str]] = lambda name: [name]
    require_divisible_by: int = 1
    skip_with_bias: bool = False
    keep_tied: bool = True
    keep_experts: str | None = None

    def reason_to_keep(self, linear: nn.Linear, names: list[str]) -> str | None:
        """Why ``linear``, registered under ``names``, stays in floating point; None if it is to be converted."""
        if (listed := self._listed(names)) is not None:
            return listed
        if (reason := _obstacle(linear)) is not None:
            return reason
        if linear.in_features % self.require_divisible_by or linear.out_features % self.require_divisible_by:
            return f"not aligned to {self.require_divisible_by}"
        if self.skip_with_bias and linear.bias is not None:
            return "with a bias"
        return None

    def _listed(self, names: list[str]) -> str | None:
        listed = self.skip.matches(alias for name in names for alias in self.names_of(name))
        by_default = next((self.defaults[name] for name in names if name in self.defaults), None)
        return by_default or ("skipped by name" if listed else None)

    def reason_to_keep_experts(self, experts: nn.Module, names: list[str]) -> str | None:
        """As `reason_to_keep`, for fused experts.

        Raises:
            ConfigError: the user's list names some of the experts of a layer.
        """
        if (reason := self._listed(names) or self.keep_experts or obstacle(experts)) is not None:
            return reason
        shapes = [row_major(experts, experts.get_parameter(name)).shape for name in projection_names(experts)]
        if matches_experts(self.skip, (alias for name in names for alias in self.names_of(name)), shapes[0][0]):
            return "skipped by name"
        if any(size % self.require_divisible_by for shape in shapes for size in shape[1:]):
            return f"not aligned to {self.require_divisible_by}"
        return "with a bias" if self.skip_with_bias and experts.has_bias else None


def _obstacle(linear: nn.Linear) -> str | None:
    if type(linear) is not nn.Linear:
        return f"of class {type(linear).__name__}, whose forward may differ from nn.Linear's,"
    if "forward" in vars(linear):
        return "whose forward was replaced on the instance"
    if "weight" not in linear._parameters:
        return "whose weight is computed from other parameters"
    if not linear.weight.is_floating_point():
        return f"with a {linear.weight.dtype} weight"
    if not 1 <= linear.in_features <= MAX_IN_FEATURES:
        return f"with in_features outside of 1..{MAX_IN_FEATURES}"
    return None


def modules_by_identity(model: nn.Module) -> Iterator[tuple[list[str], nn.Module]]:
    """Each module of ``model`` once, with all of the names under which it is registered."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    for module, registered in names.items():
        yield registered, module


def select_linears(model: nn.Module, rules: Rules) -> Selection:
    """Sort the linears of ``model`` into those to convert and those that stay, without changing anything."""
    selection = Selection()
    read_by_code = weights_read_by_code(model)
    shared = _parameters_outside_linears(model) if rules.keep_tied else set()
    holders = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for names, module in modules_by_identity(model):
        if isinstance(module, TLEInt8Linear | TLEInt8Experts):
            continue
        if is_experts(module):
            reason = rules.reason_to_keep_experts(module, names)
            if reason is None and any(holders[id(parameter)] > 1 for parameter in module.parameters(recurse=False)):
                reason = "with weights that another module shares"
            if reason is None:
                selection.experts[names[0]] = module
            else:
                selection.keep(names[0], reason)
            continue
        if not isinstance(module, nn.Linear):
            if _holds_matrix(module):
                selection.keep(names[0], f"of class {type(module).__name__}, which is no nn.Linear,")
            continue
        reason = rules.reason_to_keep(module, names)
        if reason is None and not read_by_code.isdisjoint(names):
            reason = "whose weight the code of its model reads itself"
        if reason is None and id(module.weight) in shared:
            reason = "tied to a module that is no nn.Linear"
        if reason is None:
            selection.convert[names[0]] = module
            selection.aliases[names[0]] = names
        else:
            selection.keep(names[0], reason)
    return selection


def _parameters_outside_linears(model: nn.Module) -> set[int]:
    modules = (module for module in model.modules() if not isinstance(module, nn.Linear))
    return {id(parameter) for module in modules for parameter in module.parameters(recurse=False)}


def _holds_matrix(module: nn.Module) -> bool:
    """Whether a module that is no linear multiplies by a matrix of its own: experts, GPT-2's Conv1D, attention."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag | nn.modules.conv._ConvNd):
        return False
    own = module.parameters(recurse=False)
    return any(p.is_floating_point() and p.ndim in (2, 3) and min(p.shape) > 1 for p in own)
