"""Compiling the kernels of a model before it runs."""

from pathlib import Path

import torch

from hf_tle_int8 import execution, inspection, resolution
from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.errors import CheckpointError, ConfigError
from hf_tle_int8.nn.conv1d import bias_of
from hf_tle_int8.nn.expert_layout import projection_names


def warm(
    folder: Path, dtype: torch.dtype | None = None, options: TLEInt8Config | None = None
) -> list[tuple[torch.dtype, torch.dtype | None]]:
    """Compile every kernel that the INT8 layers of a checkpoint may need here, so that no call of the model does.

    Kernels depend on dtypes and on the number of rows, not on sizes and threads. No weight is read.

    Args:
        folder: an INT8 checkpoint, or a float one.
        dtype: of the model; that of the checkpoint where None.
        options: with which a float one will be converted; the default ones where None.

    Returns:
        What they were compiled for: dtypes of input and bias.

    Raises:
        CheckpointError, ConfigError, UnsupportedSchemeError: see `inspection.inspect_checkpoint`.
        ConfigError: options for a checkpoint that is INT8 already.
        RuntimeError: kernels cannot run here.
    """
    kinds = sorted(_kinds(folder, dtype, options or TLEInt8Config()), key=str)
    if not kinds:
        raise CheckpointError(f"{folder} has no layer that is INT8 or would be: there is nothing to compile for it.")
    for kind in kinds:
        execution.compile_tiles(*kind)
    return kinds


def _kinds(
    folder: Path, dtype: torch.dtype | None, options: TLEInt8Config
) -> set[tuple[torch.dtype, torch.dtype | None]]:
    found = inspection.read_config(folder)
    quantized = inspection.quantization_of(found.get("quantization_config"), folder)
    if quantized is not None and options != TLEInt8Config():
        raise ConfigError(f"{folder} is INT8 already: options of converting have no effect on it. Drop them.")
    model = inspection.skeleton(folder, found, dtype)
    selection, untied = resolution.of_checkpoint(quantized, model, options)
    biases = [bias_of(linear) for linear in [*selection.convert.values(), *map(model.get_submodule, untied)]]
    for experts in selection.experts.values():
        biases += [experts._parameters.get(f"{name}_bias") for name in projection_names(experts)]
    return {(model.dtype, None if bias is None else bias.dtype) for bias in biases}
