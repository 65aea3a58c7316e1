"""Where and how a model may be placed: on the CPU, in one process."""

import os
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import strtobool

from hf_tle_int8.errors import UnsupportedPlacementError

# Of these, strategies are asked about again once transformers has turned them into devices.
_PLACEMENTS = (None, "cpu", "meta", "disk", "auto", "balanced", "balanced_low_0", "sequential")

_FSDP = "ACCELERATE_USE_FSDP"


def check_device_map(device_map: Any, pre_quantized: bool) -> None:
    """Raise `UnsupportedPlacementError` for devices other than the CPU, and for disk offload while quantizing.

    Args:
        device_map: as given to ``from_pretrained``: a device, a strategy, a dict of either, or None.
        pre_quantized: whether the checkpoint is INT8.
    """
    for placement in device_map.values() if isinstance(device_map, dict) else [device_map]:
        kind = placement.type if isinstance(placement, torch.device) else placement
        if kind == "disk" and not pre_quantized:
            raise UnsupportedPlacementError(
                "device_map offloads to 'disk' while the model is quantized, which would leave the float weights "
                "there. Save an INT8 checkpoint first (load with device_map='cpu', then save_pretrained) and "
                "offload that one."
            )
        if kind not in _PLACEMENTS:
            raise UnsupportedPlacementError(
                f"device_map places modules on {placement!r}: INT8 linears run on the CPU. Pass device_map='cpu'."
            )


def check_sharding() -> None:
    """Raise `UnsupportedPlacementError` where DeepSpeed ZeRO-3 or FSDP is about to shard the parameters."""
    if is_deepspeed_zero3_enabled():
        raise UnsupportedPlacementError(
            "DeepSpeed ZeRO-3 is enabled, which shards parameters: INT8 linears keep theirs whole, in one process. "
            "Use a DeepSpeed configuration of stage 2 or below, or none."
        )
    if strtobool(os.environ.get(_FSDP) or "false"):
        raise UnsupportedPlacementError(
            f"{_FSDP}={os.environ[_FSDP]} asks for FSDP, which shards parameters: INT8 linears keep theirs whole, in "
            f"one process. Launch without FSDP."
        )


def check_distributed(config: PreTrainedConfig) -> None:
    """Raise `UnsupportedPlacementError` where the model of ``config`` is to be distributed."""
    if (found := getattr(config, "distributed_config", None)) is not None:
        raise UnsupportedPlacementError(
            f"distributed_config={found!r} asks for a distributed model (tensor parallel): INT8 linears run in one "
            f"process. Load without tp_plan and distributed_config."
        )
