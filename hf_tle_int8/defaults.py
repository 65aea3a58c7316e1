"""Which linears of a model of transformers stay in float unless the user asks otherwise."""

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from hf_tle_int8.matching import ModuleMatcher
from hf_tle_int8.nn.expert_layout import is_experts, projection_names


def _named_linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear):
            yield name, module


def tied_linears(model: PreTrainedModel) -> dict[str, str]:
    """The linears of ``model`` whose weight is tied to another parameter -> the reason to skip them."""
    ties = model.all_tied_weights_keys
    tied = ties.keys() | ties.values()
    return {name: "tied to an embedding" for name, _ in _named_linears(model) if f"{name}.weight" in tied}


def head_names(model: PreTrainedModel) -> set[str]:
    """The names of the output head of ``model``, the linear that ``get_output_embeddings`` returns."""
    head = model.get_output_embeddings()
    return {name for name, linear in _named_linears(model) if linear is head}


def fp32_linears(model: PreTrainedModel) -> dict[str, str]:
    """The linears and experts that the model's own class asks to keep in fp32 -> the reason to skip them."""
    wanted = [*(model._keep_in_fp32_modules or []), *(model._keep_in_fp32_modules_strict or [])]
    matcher = ModuleMatcher(wanted)
    reason = "kept in fp32 by its model"
    experts = {name: m for name, m in model.named_modules(remove_duplicate=False) if is_experts(m)}
    parts = {name: [name, *(f"{name}.{part}" for part in projection_names(m))] for name, m in experts.items()}
    return {
        **{name: reason for name, _ in _named_linears(model) if matcher.matches([name])},
        **{name: reason for name, known_as in parts.items() if matcher.matches(known_as)},
    }
