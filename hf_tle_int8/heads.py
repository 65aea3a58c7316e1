"""An INT8 output head where the model ties it to its embedding: a weight of its own beside the float embedding."""

from typing import cast

from torch import nn
from transformers import PreTrainedModel

from hf_tle_int8.arithmetic import quantize_weight
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.loading import sub_configs
from hf_tle_int8.nn import TLEInt8Linear


def heads_to_untie(model: PreTrainedModel, heads: set[str]) -> set[str]:
    """Those of ``heads`` that share the weight of an embedding.

    Raises:
        ConfigError: the switch that would untie them, ``tie_word_embeddings``, ties other parameters as well.
    """
    keys = {f"{head}.weight" for head in heads}
    ties = list(model.all_tied_weights_keys.items())
    tied = {key.removesuffix(".weight") for tie in ties for key in keys.intersection(tie)}
    if tied and (others := sorted(target for target, source in ties if keys.isdisjoint((target, source)))):
        raise ConfigError(
            f"quantize_lm_head=True needs {min(tied)} untied from the embedding, but tie_word_embeddings of "
            f"{type(model).__name__} also ties {', '.join(others[:3])}, and it is one "
            f"switch: a saved configuration cannot untie the head alone. Drop quantize_lm_head for this model."
        )
    return tied


def untie(model: PreTrainedModel, heads: set[str]) -> None:
    """Give each of ``heads`` an INT8 weight of its own, quantized from the embedding, which stays as it is.

    ``tie_word_embeddings`` becomes False in all configurations of ``model``, so that what is saved reloads as it is.

    Raises:
        InputValueError: the embedding holds NaN or Inf.
    """
    for name in heads:
        head = cast(nn.Linear, model.get_submodule(name))
        TLEInt8Linear.become(head, *quantize_weight(head.weight, f"{name}.weight"), head.bias)
    if heads:
        forget_ties(model)


def forget_ties(model: PreTrainedModel) -> None:
    """Set ``tie_word_embeddings`` to False in all configurations of ``model``."""
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.all_tied_weights_keys = {}
            for config in (part.config, *sub_configs(part.config)):
                if hasattr(config, "tie_word_embeddings"):
                    config.tie_word_embeddings = False
