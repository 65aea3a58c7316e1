"""Which linears of a model of transformers stay in float unless the user asks otherwise."""

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from hf_tle_int8.matching import ModuleMatcher
from hf_tle_int8.nn.conv1d import is_linear
from hf_tle_int8.nn.expert_layout import is_experts, projection_names

FP32 = "kept in fp32 by its model"


def _named_linears(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules(remove_duplicate=False):
        if is_linear(module):
            yield name, module


def _ties(model: PreTrainedModel) -> dict[str, set[str]]:
    """The parameters of ``model`` that are one once it is loaded: by the name of their source, all of them."""
    groups: dict[str, set[str]] = {}
    for target, source in model.all_tied_weights_keys.items():
        groups.setdefault(source, {source}).add(target)
    return groups


def shared_linears(model: PreTrainedModel) -> list[list[str]]:
    """Groups of linears of ``model`` that share one weight, and share it with nothing else."""
    weights = {f"{name}.weight": name for name, _ in _named_linears(model)}
    return [[weights[tied] for tied in sorted(group)] for group in _ties(model).values() if group <= weights.keys()]


def tied_linears(model: PreTrainedModel) -> dict[str, str]:
    """The linears of ``model`` whose weight is tied to one that is no linear's -> the reason to skip them."""
    weights = {f"{name}.weight": name for name, _ in _named_linears(model)}
    mixed = [group for group in _ties(model).values() if not group <= weights.keys()]
    return {weights[tied]: "tied to an embedding" for group in mixed for tied in group & weights.keys()}


def head_names(model: PreTrainedModel) -> set[str]:
    """The names of the output head of ``model``, the linear that ``get_output_embeddings`` returns."""
    head = model.get_output_embeddings()
    return {name for name, linear in _named_linears(model) if linear is head}


def fp32_linears(model: PreTrainedModel) -> dict[str, str]:
    """The linears and experts that the model's own class asks to keep in fp32 -> the reason to skip them."""
    wanted = [*(model._keep_in_fp32_modules or []), *(model._keep_in_fp32_modules_strict or [])]
    matcher = ModuleMatcher(wanted)
    experts = {name: m for name, m in model.named_modules(remove_duplicate=False) if is_experts(m)}
    parts = {name: [name, *(f"{name}.{part}" for part in projection_names(m))] for name, m in experts.items()}
    return {
        **{name: FP32 for name, _ in _named_linears(model) if matcher.matches([name])},
        **{name: FP32 for name, known_as in parts.items() if matcher.matches(known_as)},
    }


def default_skips(model: PreTrainedModel, heads: bool) -> dict[str, str]:
    """All linears that stay in float by default -> why; the output head among them where ``heads`` says so."""
    skips = {**tied_linears(model), **fp32_linears(model)}
    if heads:
        skips |= dict.fromkeys(head_names(model) - skips.keys(), "the output head, by default,")
    return skips
