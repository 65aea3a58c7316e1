"""Devices, offloading and distributed layouts that INT8 models are refused on, before anything is loaded."""

import pytest
import torch
from support import save_tiny_llama
from transformers import AutoModelForCausalLM
from transformers.integrations import deepspeed

from hf_tle_int8 import TLEInt8Config
from hf_tle_int8.errors import UnsupportedPlacementError
from hf_tle_int8.placement import check_device_map, check_sharding


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A float checkpoint, and the same in INT8."""
    folder = tmp_path_factory.mktemp("placement")
    path = save_tiny_llama(folder / "float", num_hidden_layers=1)
    AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config()).save_pretrained(folder / "int8")
    return {"float": (path, {"quantization_config": TLEInt8Config()}), "int8": (folder / "int8", {})}


@pytest.fixture(params=["float", "int8"])
def load(request, paths):
    path, options = paths[request.param]
    return lambda **more: AutoModelForCausalLM.from_pretrained(path, **options, **more)


@pytest.mark.parametrize(
    "device_map",
    ["cuda", "mps", "xpu:1", 0, torch.device("cuda", 1), {"model": "cpu", "lm_head": torch.device("mps")}],
)
def test_devices(load, device_map):
    with pytest.raises(UnsupportedPlacementError, match="device_map places modules on .*on the CPU.*device_map='cpu'"):
        load(device_map=device_map)


@pytest.mark.parametrize(
    "device_map", [None, "cpu", "auto", {"": "cpu"}, torch.device("cpu"), {"": torch.device("cpu")}]
)
def test_cpus(device_map):
    check_device_map(device_map, pre_quantized=False)


def test_disk():
    check_device_map({"model": "disk", "lm_head": "cpu"}, pre_quantized=True)
    with pytest.raises(UnsupportedPlacementError, match="offloads to 'disk' while .*Save an INT8 checkpoint first"):
        check_device_map({"model": "disk", "lm_head": "cpu"}, pre_quantized=False)


@pytest.mark.filterwarnings("ignore:Passing `tp_plan`")
def test_tensor_parallel(load):
    with pytest.raises(UnsupportedPlacementError, match=r"tensor parallel\).*one process\. Load without tp_plan"):
        load(tp_plan="auto")


def test_deepspeed(load, monkeypatch):
    class Zero3:
        def is_zero3(self):
            return True

    config = Zero3()
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", lambda: config)
    with pytest.raises(UnsupportedPlacementError, match="DeepSpeed ZeRO-3 is enabled.*stage 2 or below"):
        load()


def test_fsdp(load, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UnsupportedPlacementError, match="ACCELERATE_USE_FSDP=true.*Launch without FSDP"):
        load()


@pytest.mark.parametrize("value", ["", "false", "0"])
def test_fsdp_that_is_off(monkeypatch, value):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", value)
    check_sharding()
