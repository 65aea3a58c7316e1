"""Checkpoints of compressed-tensors and llm-compressor, scheme W8A8: reading their configuration and writing it.

The files are the same on both sides, ``<module>.weight`` int8 ``[N, K]`` and ``<module>.weight_scale`` ``[N, 1]``; only
``quantization_config`` in ``config.json`` differs. The compressed-tensors package is not needed.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from hf_tle_int8.config import TLEInt8Config, method_of
from hf_tle_int8.errors import ConfigError, InputTypeError, UnsupportedSchemeError
from hf_tle_int8.expert_files import fused_in_files
from hf_tle_int8.loading import sub_configs
from hf_tle_int8.matching import REGEX_PREFIX
from hf_tle_int8.nn import TLEInt8Conv1D, TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.expert_layout import is_experts
from hf_tle_int8.quantizer import describe

logger = logging.getLogger(__name__)

QUANT_METHOD = "compressed-tensors"
_FORMAT = "int-quantized"

_WEIGHTS: dict[str, Any] = {
    "num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False, "group_size": None,
}  # fmt: skip
_ACTIVATIONS: dict[str, Any] = {
    "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True, "group_size": None,
}  # fmt: skip
# What the package assumes of a key that is absent.
_DEFAULTS: dict[str, Any] = {
    "num_bits": 8, "type": "int", "symmetric": True, "strategy": None, "dynamic": False, "group_size": None,
}  # fmt: skip


def config_from_compressed_tensors(found: Mapping[str, Any]) -> TLEInt8Config:
    """Translate a compressed-tensors ``quantization_config`` of the W8A8 scheme.

    Args:
        found: the ``quantization_config`` of a ``config.json``.

    Raises:
        UnsupportedSchemeError: any other scheme, naming what was found.
    """
    if not found:
        raise UnsupportedSchemeError(
            "there is no quantization_config: the model is not quantized. Load it with "
            "from_pretrained(name, quantization_config=TLEInt8Config())."
        )
    if (method := method_of(found)) != QUANT_METHOD:
        raise UnsupportedSchemeError(
            f"quant_method={method!r} is not {QUANT_METHOD!r}. Load the checkpoint with the library that made it."
        )
    groups = found.get("config_groups") or {}
    if not isinstance(groups, Mapping):
        raise _unsupported(f"config_groups={groups!r}", "one group for all linears")
    if len(groups) != 1:
        raise _unsupported(f"{len(groups)} config groups", "one group for all linears")
    group = next(iter(groups.values()))
    if not isinstance(group, Mapping):
        raise _unsupported(f"the preset {next(iter(groups))!r}", "a spelled-out scheme")
    _check_group(group, found)
    for feature in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if _is_active(found.get(feature)):
            raise _unsupported(f"{feature}={found[feature]!r}", f"no {feature}")
    ignore = found.get("ignore") or []
    if not isinstance(ignore, list) or not all(isinstance(entry, str) for entry in ignore):
        raise _unsupported(f"ignore={ignore!r}", "a list of names")
    return TLEInt8Config(modules_to_not_convert=[_as_pattern(entry) for entry in ignore])


def _check_group(group: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    checkpoint_format = group.get("format") or found.get("format")
    if checkpoint_format != _FORMAT:
        raise _unsupported(f"format={checkpoint_format!r}", f"format={_FORMAT!r}")
    if group.get("targets") not in (["Linear"], ("Linear",)):
        raise _unsupported(f"targets={group.get('targets')!r}", "targets=['Linear']")
    if group.get("output_activations"):
        raise _unsupported("quantized output activations", "input activations only")
    for part, expected in (("weights", _WEIGHTS), ("input_activations", _ACTIVATIONS)):
        actual = group.get(part)
        if not isinstance(actual, Mapping):
            raise _unsupported(f"{part}={actual!r}", f"{part} of 8 bits")
        for key, value in expected.items():
            got = actual.get(key, _DEFAULTS[key])
            if got != value:
                raise _unsupported(f"{part}.{key}={got!r}", f"{part}.{key}={value!r}")


def _is_active(setting: Any) -> bool:
    """Whether a feature is used: empty settings are written out as well, and a sparsity of format dense is none."""
    if isinstance(setting, Mapping):
        return setting.get("format") != "dense" and any(map(_is_active, setting.values()))
    return bool(setting)


def _as_pattern(entry: str) -> str:
    """An ``ignore`` entry as a pattern of ours: a plain name there means that module alone."""
    return entry if entry.startswith(REGEX_PREFIX) else f"{REGEX_PREFIX}{re.escape(entry)}$"


def _unsupported(found: str, needed: str) -> UnsupportedSchemeError:
    return UnsupportedSchemeError(
        f"this compressed-tensors checkpoint has {found}, and INT8 linears need {needed} (scheme W8A8: int-quantized, "
        f"symmetric, weights per channel, dynamic activations per token). Quantize the float model with "
        f"TLEInt8Config() or llm-compressor's W8A8 scheme, or load this one with the compressed-tensors package."
    )


def load_config(name_or_path: str, **kwargs: Any) -> PreTrainedConfig:
    """The model configuration of a compressed-tensors W8A8 checkpoint, ready to load in INT8.

    ``from_pretrained(name, config=load_config(name))`` does without any patch of transformers what
    ``from_pretrained(name, quantization_config=TLEInt8Config())`` does.

    Args:
        name_or_path: of the checkpoint.
        kwargs: for ``AutoConfig.from_pretrained``.

    Raises:
        UnsupportedSchemeError: the checkpoint is not compressed-tensors W8A8.
    """
    config = AutoConfig.from_pretrained(name_or_path, **kwargs)
    found = getattr(config, "quantization_config", None) or {}
    config.quantization_config = config_from_compressed_tensors(found).to_dict()
    return config


def to_compressed_tensors(model: nn.Module) -> dict[str, Any]:
    """The compressed-tensors ``quantization_config`` that describes ``model``: its float layers are its ``ignore``."""
    linears = {name: m for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, nn.Linear)}
    ignore = [name for name, linear in linears.items() if not isinstance(linear, TLEInt8Linear)]
    # Their files have a linear for each projection of each expert.
    experts = [name for name, m in model.named_modules() if is_experts(m) and not isinstance(m, TLEInt8Experts)]
    ignore += [f"{REGEX_PREFIX}{re.escape(name)}\\..*" for name in experts]
    return {
        "quant_method": QUANT_METHOD,
        "format": _FORMAT,
        "quantization_status": "compressed",
        "ignore": ignore,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": dict(_WEIGHTS),
                "input_activations": dict(_ACTIVATIONS),
                "output_activations": None,
                "format": _FORMAT,
            }
        },
    }


def save_compressed_tensors(model: PreTrainedModel, save_directory: str | Path, **kwargs: Any) -> None:
    """Save an INT8 model so that stock transformers with the compressed-tensors package loads it.

    Experts are written as llm-compressor writes them, which stock transformers does not read; a warning says so.

    Args:
        model: loaded with `TLEInt8Config`, or converted in memory, maybe in part.
        save_directory: where to.
        kwargs: for ``model.save_pretrained``.

    Raises:
        InputTypeError: ``model`` is none of transformers.
        ConfigError: ``model`` has no INT8 layers, has some that are no ``nn.Linear`` in float, which that package
            leaves alone, or has experts whose files are not linears.
    """
    if not isinstance(model, PreTrainedModel):
        raise InputTypeError(f"the model is a {type(model).__name__}: one of transformers is needed, loaded in INT8.")
    if any(isinstance(module, TLEInt8Linear | TLEInt8Experts) for module in model.modules()):
        describe(model)
    own = getattr(model.config, "quantization_config", None)
    if not isinstance(own, TLEInt8Config):
        raise ConfigError(
            f"the model has quantization_config={own!r}: it was not loaded in INT8. "
            f"Load it with from_pretrained(..., quantization_config=TLEInt8Config()) first."
        )
    foreign = [name for name, module in model.named_modules() if isinstance(module, TLEInt8Conv1D)]
    if foreign:
        raise ConfigError(
            f"{len(foreign)} layers such as {foreign[0]} are Conv1D in float: the compressed-tensors package quantizes "
            f"nn.Linear alone, and would take their codes for weights. Use model.save_pretrained, or load with "
            f"modules_to_not_convert={[foreign[0]]!r} and the like."
        )
    if fused := fused_in_files(model):
        raise ConfigError(
            f"the files of {type(model).__name__} have all experts of {fused[0]} in one tensor: compressed-tensors "
            f"stores linears. Save with model.save_pretrained, or leave the experts in float."
        )
    if any(isinstance(module, TLEInt8Experts) for module in model.modules()):
        logger.warning(
            "%s has INT8 experts: stock transformers (5.23) reads only packed and FP8 experts of compressed-tensors. "
            "For transformers, save with model.save_pretrained.",
            type(model).__name__,
        )
    inner = [config for config in sub_configs(model.config) if hasattr(config, "quantization_config")]
    model.config.quantization_config = to_compressed_tensors(model)
    for config in inner:
        del config.quantization_config
    try:
        model.save_pretrained(save_directory, **kwargs)
    finally:
        for config in [model.config, *inner]:
            config.quantization_config = own
