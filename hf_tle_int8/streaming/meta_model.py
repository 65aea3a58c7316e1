"""The INT8 model that a float checkpoint would load as, on the meta device: every tensor knows where it comes from."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import dot_natural_key

from hf_tle_int8 import heads
from hf_tle_int8.checkpoint_files import Header
from hf_tle_int8.checks import check_complete
from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.nn import TLEInt8Linear
from hf_tle_int8.quantizer import TLEInt8HfQuantizer
from hf_tle_int8.streaming.origin import NotStreamableError, Origin, origin_of, with_origin
from hf_tle_int8.streaming.placing import Placing, of_rows


class PlanningQuantizer(TLEInt8HfQuantizer):
    """The quantizer of a model on the meta device, whose weights others write."""

    def __init__(self, config: TLEInt8Config):
        super().__init__(config, pre_quantized=False)

    def close(self, model: PreTrainedModel) -> None:
        """What follows the loading of the weights, without them."""
        self._record_layout(model)
        self._keep_scale_converters(model)

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, Tensor], dict[str, str]]:
        """No weights: ``save_pretrained`` of this model writes all other files."""
        return {}, {}


@dataclass
class MetaModel:
    """See the module.

    Attributes:
        model: on the meta device, closed.
        parts: the origins of tensors that the model stacks, by their names in the files to write.
        left_out: the tensors of the float checkpoint that the model does not have.
    """

    model: PreTrainedModel
    parts: dict[str, Origin]
    left_out: list[str]


def place(
    model: PreTrainedModel,
    config: TLEInt8Config,
    dtype: torch.dtype,
    files: list[Path],
    headers: Mapping[str, Header],
    same: Callable[[str, str], bool],
) -> MetaModel:
    """Make ``model`` the INT8 model that ``from_pretrained`` would load from these files.

    Args:
        model: in float, on the meta device.
        config: the options.
        dtype: of the model.
        files: that hold the tensors.
        headers: of the tensors.
        same: whether two tensors of the files are equal.

    Raises:
        ConfigError: see `resolution.resolve`.
        CheckpointError: a tensor is missing, has another shape than the model, or is no float.
        NotStreamableError: transformers makes some tensor of the model by more than renaming and stacking.
    """
    quantizer = PlanningQuantizer(config)
    quantizer.update_dtype(dtype)
    quantizer.preprocess_model(model=model, dtype=dtype, checkpoint_files=[str(file) for file in files])
    found = Placing(model, quantizer, dtype)
    for source in sorted(headers, key=dot_natural_key):
        found.put(source, headers[source])
    found.stack()
    _tie(model, same)
    _untie(model, quantizer.heads_to_untie)
    model._weight_conversions = [conversion for conversion in found.conversions if conversion.was_used()]
    model.hf_quantizer = quantizer
    parts = found.parts()
    quantizer.close(model)
    return MetaModel(model, parts, found.left_out)


def _tie(model: PreTrainedModel, same: Callable[[str, str], bool]) -> None:
    """Tie what ``from_pretrained`` ties.

    Raises:
        CheckpointError: the files lack a tensor.
        NotStreamableError: parameters that the model ties differ in the files, or the files lack a tensor that the
            model's class expects them to lack.
    """
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    missing = {name for name, tensor in state.items() if origin_of(tensor) is None}
    for target, source in model.all_tied_weights_keys.items():
        if missing.isdisjoint((target, source)):
            first, second = (cast(Origin, origin_of(state[name])) for name in (target, source))
            if not same(first.source, second.source):
                raise NotStreamableError(f"the model ties {target} to {source}, and the files have another of each")
            missing.add(target)
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    ignored = model._keys_to_ignore_on_load_missing or ()
    check_complete("the checkpoint", (n for n in missing if not any(re.search(pattern, n) for pattern in ignored)))
    if missing:
        raise NotStreamableError(f"the files lack {min(missing)}, which transformers initializes")


def _untie(model: PreTrainedModel, names: set[str]) -> None:
    """`heads.untie` without weights."""
    for name in names:
        head = cast(nn.Linear, model.get_submodule(name))
        embedding, bias = cast(Origin, origin_of(head.weight)), head.bias
        codes, scale = embedding.pair(of_rows(f"{name}.weight"))
        n, k = head.weight.shape
        weight = torch.empty((n, k), dtype=torch.int8, device="meta")
        layer = TLEInt8Linear.become(head, weight, torch.empty((n, 1), device="meta"), bias)
        with_origin(layer._weight(), codes)
        with_origin(layer.weight_scale, scale)
        if bias is not None:
            with_origin(cast(Tensor, layer.bias), cast(Origin, origin_of(bias)))
    if names:
        heads.forget_ties(model)
