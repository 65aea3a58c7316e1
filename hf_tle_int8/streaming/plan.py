"""Which tensors go into which files of the INT8 checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from hf_tle_int8.streaming.meta_model import MetaModel
from hf_tle_int8.streaming.origin import SEVERAL, NotStreamableError, Origin, origin_of, with_origin

_PATTERN = "model{suffix}.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Plan:
    """The files to write.

    Attributes:
        shards: file name -> tensors of the meta device, by name.
        origins: what each tensor is made of.
        metadata: of the index.
    """

    shards: Mapping[str, Mapping[str, Tensor]]
    origins: Mapping[str, Origin]
    metadata: Mapping[str, Any]

    def size(self, shard: str) -> int:
        """The bytes of the tensors of a file."""
        return sum(tensor.nbytes for tensor in self.shards[shard].values())

    def write_index(self, folder: Path) -> None:
        """Write which tensor is in which file, where there are several."""
        if len(self.shards) > 1:
            weight_map = {name: shard for shard, tensors in self.shards.items() for name in tensors}
            text = json.dumps({"metadata": self.metadata, "weight_map": weight_map}, indent=2, sort_keys=True)
            (folder / _INDEX).write_text(f"{text}\n", encoding="utf-8")


def plan(meta: MetaModel, max_shard_size: str) -> Plan:
    """The files that ``save_pretrained`` would write.

    A tensor for each expert counts by itself here, so that experts spread over files as they fit.

    Args:
        meta: the model.
        max_shard_size: such as ``5GB``.

    Raises:
        ValueError: ``max_shard_size`` is no size.
        NotStreamableError: what transformers saves is not made of single tensors of the files.
    """
    state = _saved(meta)
    origins = {name: origin_of(tensor) or meta.parts.get(name) for name, tensor in state.items()}
    origins |= {name: meta.parts.get(name) for name, origin in origins.items() if origin is SEVERAL}
    for name, origin in origins.items():
        if origin is None:
            raise NotStreamableError(f"transformers makes {name} of several tensors when it saves")
    split = split_state_dict_into_shards_factory(
        state, get_storage_size=lambda tensor: tensor.nbytes, filename_pattern=_PATTERN, max_shard_size=max_shard_size
    )
    shards = {file: {name: state[name] for name in names} for file, names in split.filename_to_tensors.items()}
    metadata = {"total_parameters": meta.model.num_parameters(), **split.metadata}
    return Plan(shards, {name: origin for name, origin in origins.items() if origin is not None}, metadata)


def _saved(meta: MetaModel) -> dict[str, Tensor]:
    """The state dict that ``save_pretrained`` writes, on the meta device."""
    state = {}
    for name, tensor in meta.model.state_dict(keep_vars=True).items():
        if name not in (meta.model._keys_to_ignore_on_save or ()):
            origin = origin_of(tensor)
            state[name] = tensor.detach() if origin is None else with_origin(tensor.detach(), origin)
    saved: dict[str, Tensor] = revert_weight_conversion(
        meta.model, remove_tied_weights_from_state_dict(state, meta.model)
    )
    return saved
