"""Which linears and experts of a model become INT8, and for each of the others the reason why not."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import nn

from hf_tle_int8.kernels.scheme import MAX_IN_FEATURES
from hf_tle_int8.matching import ModuleMatcher
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.conv1d import bias_of, float_rows, int8_class, is_linear
from hf_tle_int8.nn.expert_layout import is_experts, obstacle, projection_names, row_major
from hf_tle_int8.weight_access import weights_read_by_code

SKIPPED, NOT_LISTED = "skipped by name", "not in modules_to_convert"
TIED = "tied to a module that is no nn.Linear"


@dataclass
class Selection:
    """The outcome of looking at a model.

    Attributes:
        convert: the linears to convert (see `int8_class`), under the first name of each.
        aliases: all names of each linear in ``convert``, by its first name.
        experts: the fused experts to convert, under the first name of each.
        kept: reason -> names of what stays in floating point.
        int8: names of the layers that are INT8 already.
    """

    convert: dict[str, nn.Module] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    experts: dict[str, nn.Module] = field(default_factory=dict)
    kept: dict[str, list[str]] = field(default_factory=dict)
    int8: list[str] = field(default_factory=list)

    def keep(self, name: str, reason: str) -> None:
        """Record that the module called ``name`` stays in floating point."""
        self.kept.setdefault(reason, []).append(name)

    def take_out(self, names: set[str]) -> None:
        """Forget ``names``: they are converted by other means."""
        self.convert = {name: linear for name, linear in self.convert.items() if name not in names}
        kept = {reason: [name for name in listed if name not in names] for reason, listed in self.kept.items()}
        self.kept = {reason: listed for reason, listed in kept.items() if listed}

    def summary(self, converted: int, experts: int = 0) -> str:
        """One line: how many linears and experts became INT8, how much stays in floating point and why."""
        line = f"{converted} linear layers{f' and the experts of {experts} layers' if experts else ''} in INT8"
        if self.int8:
            line += f", beside {len(self.int8)} that were already"
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
        keep_tied: leave linears whose weight is shared with a module that is no linear.
        only: leave linears that it does not match; None leaves none for that.
        sharing: groups of names of linears that will share one weight once it is loaded.
        keep_experts: why fused experts stay; None where they are converted.
    """

    skip: ModuleMatcher
    defaults: dict[str, str] = field(default_factory=dict)
    names_of: Callable[[str], list[str]] = lambda name: [name]
    require_divisible_by: int = 1
    skip_with_bias: bool = False
    keep_tied: bool = True
    only: ModuleMatcher | None = None
    sharing: list[list[str]] = field(default_factory=list)
    keep_experts: str | None = None

    def reason_to_keep(self, linear: nn.Module, names: list[str]) -> str | None:
        """Why ``linear``, registered under ``names``, stays in floating point; None if it is to be converted."""
        if (listed := self._listed(names)) is not None:
            return listed
        if (reason := _obstacle(linear)) is not None:
            return reason
        if any(size % self.require_divisible_by for size in float_rows(linear).shape):
            return f"not aligned to {self.require_divisible_by}"
        if self.skip_with_bias and bias_of(linear) is not None:
            return "with a bias"
        return None

    def _aliases(self, names: list[str]) -> list[str]:
        return [alias for name in names for alias in self.names_of(name)]

    def _listed(self, names: list[str]) -> str | None:
        aliases = self._aliases(names)
        listed, wanted = self.skip.matches(aliases), self.only is None or self.only.matches(aliases)
        by_default = next((self.defaults[name] for name in names if name in self.defaults), None)
        if by_default or listed:
            return by_default or SKIPPED
        return None if wanted else NOT_LISTED

    def reason_to_keep_experts(self, experts: nn.Module, names: list[str]) -> str | None:
        """As `reason_to_keep`, for fused experts."""
        listed = self._listed(names)
        if listed not in (None, NOT_LISTED) or (reason := self.keep_experts or obstacle(experts)) is not None:
            return listed or reason
        shapes = [row_major(experts, experts.get_parameter(name)).shape for name in projection_names(experts)]
        if listed and not (self.only and self.only.matches_experts(self._aliases(names), shapes[0][0])):
            return NOT_LISTED
        if self.skip.matches_experts(self._aliases(names), shapes[0][0]):
            return SKIPPED
        if any(size % self.require_divisible_by for shape in shapes for size in shape[1:]):
            return f"not aligned to {self.require_divisible_by}"
        return "with a bias" if self.skip_with_bias and experts.has_bias else None

    def reason_to_keep_other(self, module: nn.Module, names: list[str]) -> str:
        """As `reason_to_keep`, for a module that is none of these; an entry that means it has found a match."""
        self._listed(names)
        return f"of class {type(module).__name__}, which is no nn.Linear,"


def _obstacle(linear: nn.Module) -> str | None:
    if "weight" not in linear._parameters:
        return "whose weight is computed from other parameters"
    if int8_class(linear) is None:
        return f"of class {type(linear).__name__}, whose forward may differ from nn.Linear's,"
    if "forward" in vars(linear):
        return "whose forward was replaced on the instance"
    weight = float_rows(linear)
    if not weight.is_floating_point():
        return f"with a {weight.dtype} weight"
    if not 1 <= weight.shape[1] <= MAX_IN_FEATURES:
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
    first_names: dict[str, str] = {}
    by_weight: dict[int, list[str]] = {}
    holders = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for names, module in modules_by_identity(model):
        if isinstance(module, TLEInt8Linear | TLEInt8Experts):
            selection.int8 += names
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
        if not is_linear(module):
            if _holds_matrix(module):
                selection.keep(names[0], rules.reason_to_keep_other(module, names))
            continue
        first_names |= dict.fromkeys(names, names[0])
        by_weight.setdefault(id(module._parameters.get("weight", module)), []).append(names[0])
        reason = rules.reason_to_keep(module, names)
        if reason is None and not read_by_code.isdisjoint(names):
            reason = "whose weight the code of its model reads itself"
        if reason is None and id(module.weight) in shared:
            reason = TIED
        if reason is None:
            selection.convert[names[0]] = module
            selection.aliases[names[0]] = names
        else:
            selection.keep(names[0], reason)
    for group in [*by_weight.values(), *([first_names[name] for name in group] for group in rules.sharing)]:
        if not selection.convert.keys() >= set(group):
            for name in sorted(selection.convert.keys() & set(group)):
                del selection.convert[name], selection.aliases[name]
                selection.keep(name, "sharing its weight with a layer that stays")
    return selection


def _parameters_outside_linears(model: nn.Module) -> set[int]:
    modules = (module for module in model.modules() if not is_linear(module))
    return {id(parameter) for module in modules for parameter in module.parameters(recurse=False)}


def _holds_matrix(module: nn.Module) -> bool:
    """Whether a module that is no linear multiplies by a matrix of its own: experts, attention."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag | nn.modules.conv._ConvNd):
        return False
    own = module.parameters(recurse=False)
    return any(p.is_floating_point() and p.ndim in (2, 3) and min(p.shape) > 1 for p in own)
