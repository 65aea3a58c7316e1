"""Against the compressed-tensors package: its checkpoints load in INT8 without it, ours load with it."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from support import edit_config, int8_layers, logits, save_tiny_llama, tiny_llama_config
from torch import nn
from transformers import AutoModelForCausalLM

from hf_tle_int8 import (
    TLEInt8Config,
    arithmetic,
    config_from_compressed_tensors,
    load_config,
    save_compressed_tensors,
)
from hf_tle_int8.errors import ConfigError, InputTypeError, UnsupportedSchemeError
from hf_tle_int8.matching import ModuleMatcher

W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "global_compression_ratio": 1.5,
    "kv_cache_scheme": None,
    "ignore": ["lm_head"],
    "sparsity_config": {},
    "transform_config": {},
    "version": "0.12.2",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "format": "int-quantized",
            "output_activations": None,
            "weights": {
                "actorder": None, "block_structure": None, "dynamic": False, "group_size": None, "num_bits": 8,
                "observer": "minmax", "observer_kwargs": {}, "strategy": "channel", "symmetric": True, "type": "int",
            },
            "input_activations": {
                "actorder": None, "block_structure": None, "dynamic": True, "group_size": None, "num_bits": 8,
                "observer": None, "observer_kwargs": {}, "strategy": "token", "symmetric": True, "type": "int",
            },
        }
    },
}  # fmt: skip


def changed(path: str, value: object) -> dict:
    """W8A8 with the entry at ``path`` replaced."""
    config = copy.deepcopy(W8A8)
    *parents, last = path.split("/")
    target = config
    for parent in parents:
        target = target[parent]
    target[last] = value
    return config


def write_as_llm_compressor(folder, ignore=("lm_head",), **options):
    """A checkpoint made by the compressed-tensors package from a float model, as llm-compressor does it."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    save_tiny_llama(folder, torch.bfloat16, **options)
    model = AutoModelForCausalLM.from_pretrained(folder)
    scheme = QuantizationConfig.model_validate({**W8A8, "ignore": list(ignore), "quantization_status": "initialized"})
    apply_quantization_config(model, scheme)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name not in ignore:
            module.weight_scale.data = arithmetic.quantize_weight(module.weight)[1].to(module.weight_scale.dtype)
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format="int-quantized")
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return write_as_llm_compressor(tmp_path_factory.mktemp("compressed"))


class TestReading:
    def test_checkpoint_is_what_llm_compressor_writes(self, foreign):
        config = json.loads((foreign / "config.json").read_text())["quantization_config"]
        assert config["quant_method"] == "compressed-tensors"
        assert config["format"] == "int-quantized"
        tensors = load_file(foreign / "model.safetensors")
        name = "model.layers.0.mlp.up_proj"
        assert tensors[f"{name}.weight"].dtype == torch.int8
        assert tensors[f"{name}.weight_scale"].shape == (100, 1)

    def test_loads_with_the_obvious_call(self, foreign):
        model = AutoModelForCausalLM.from_pretrained(foreign, quantization_config=TLEInt8Config())
        tensors = load_file(foreign / "model.safetensors")
        layers = int8_layers(model)
        assert len(layers) == 14
        assert type(model.lm_head) is nn.Linear
        for name, layer in layers.items():
            assert torch.equal(layer.weight, tensors[f"{name}.weight"])
            assert torch.equal(layer.weight_scale, tensors[f"{name}.weight_scale"].float())

    def test_loads_without_patch(self, foreign):
        expected = AutoModelForCausalLM.from_pretrained(foreign, quantization_config=TLEInt8Config())
        model = AutoModelForCausalLM.from_pretrained(foreign, config=load_config(str(foreign)))
        assert torch.equal(logits(model), logits(expected))

    def test_becomes_a_checkpoint_of_ours(self, foreign, tmp_path):
        model = AutoModelForCausalLM.from_pretrained(foreign, quantization_config=TLEInt8Config())
        model.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert again.config.quantization_config.quant_method == "tle_int8"
        assert torch.equal(logits(again), logits(model))

    def test_needs_no_compressed_tensors_package(self, foreign):
        script = (
            "import sys; sys.modules['compressed_tensors'] = None\n"
            "import hf_tle_int8; from transformers import AutoModelForCausalLM\n"
            f"model = AutoModelForCausalLM.from_pretrained({str(foreign)!r}, "
            "quantization_config=hf_tle_int8.TLEInt8Config())\n"
            "print(type(model.model.layers[0].mlp.up_proj).__name__)"
        )
        output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert output.stdout.strip() == "TLEInt8Linear", output.stderr

    @pytest.mark.parametrize(
        ("ignore", "converted"),
        [
            (["lm_head", "model.layers.0.mlp.up_proj"], 13),
            (["lm_head", "re:.*mlp.*"], 8),
            (["lm_head", "re:model.layers.1"], 7),
            ([], 15),
        ],
    )
    def test_ignore_is_honoured(self, tmp_path, ignore, converted):
        matcher = ModuleMatcher(config_from_compressed_tensors({**W8A8, "ignore": ignore}).modules_to_not_convert)
        model = AutoModelForCausalLM.from_config(tiny_llama_config())
        linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        ignored = [name for name in linears if matcher.matches([name])]
        path = write_as_llm_compressor(tmp_path / "ct", ignore=ignored)
        edit_config(path, quantization_config={**W8A8, "ignore": ignore})
        model = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())
        assert len(int8_layers(model)) == converted
        assert logits(model).isfinite().all()

    def test_plain_ignore_entry_is_one_module(self):
        config = config_from_compressed_tensors({**W8A8, "ignore": ["a.b", "re:c.*"]})
        assert config.modules_to_not_convert == [r"re:a\.b$", "re:c.*"]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (changed("format", "pack-quantized") | {"config_groups": {"g": {"targets": ["Linear"]}}}, "pack-quantized"),
        (changed("config_groups/group_0/format", "float-quantized"), "format='float-quantized'"),
        (changed("config_groups/group_0/weights/num_bits", 4), "weights.num_bits=4"),
        (changed("config_groups/group_0/weights/type", "float"), "weights.type='float'"),
        (changed("config_groups/group_0/weights/symmetric", False), "weights.symmetric=False"),
        (changed("config_groups/group_0/weights/strategy", "tensor"), "weights.strategy='tensor'"),
        (changed("config_groups/group_0/weights/group_size", 128), "weights.group_size=128"),
        (changed("config_groups/group_0/input_activations", None), "input_activations=None"),
        (changed("config_groups/group_0/input_activations/dynamic", False), "input_activations.dynamic=False"),
        (changed("config_groups/group_0/input_activations/dynamic", "local"), "input_activations.dynamic='local'"),
        (changed("config_groups/group_0/input_activations/symmetric", False), "input_activations.symmetric=False"),
        (changed("config_groups/group_0/input_activations/strategy", "tensor"), "input_activations.strategy='tensor'"),
        (changed("config_groups/group_0/output_activations", {"num_bits": 8}), "quantized output activations"),
        (changed("config_groups/group_0/targets", ["Conv2d"]), r"targets=\['Conv2d'\]"),
        (changed("config_groups", {}), "0 config groups"),
        (changed("config_groups", [1]), r"config_groups=\[1\]"),
        (changed("config_groups/group_0/targets", 3), "targets=3"),
        (changed("config_groups/group_0/weights", "int8"), "weights='int8'"),
        (changed("ignore", [3]), r"ignore=\[3\]"),
        (changed("config_groups", {"W8A8": ["Linear"]}), "the preset 'W8A8'"),
        (changed("config_groups", {"a": {}, "b": {}}), "2 config groups"),
        (changed("kv_cache_scheme", {"num_bits": 8}), "kv_cache_scheme"),
        (changed("sparsity_config", {"format": "sparse-24"}), "sparsity_config"),
        (changed("transform_config", {"config_groups": {"u": {"type": "hadamard"}}}), "transform_config"),
    ],
)
def test_other_schemes_are_refused_by_name(config, found, tmp_path):
    with pytest.raises(UnsupportedSchemeError, match=f"checkpoint has .*{found}.*INT8 linears need"):
        config_from_compressed_tensors(config)
    edit = save_tiny_llama(tmp_path)
    edit_config(edit, quantization_config=config)
    with pytest.raises(UnsupportedSchemeError, match=found):
        AutoModelForCausalLM.from_pretrained(edit, quantization_config=TLEInt8Config())


@pytest.mark.parametrize(
    "config",
    [
        changed("quantization_status", "frozen"),
        changed("sparsity_config", None),
        changed(
            "sparsity_config",
            {
                "format": "dense",
                "global_sparsity": 0.14,
                "registry_requires_subclass": False,
                "sparsity_structure": "u",
            },
        ),
        changed("transform_config", {"config_groups": {}}),
    ],
)
def test_what_changes_nothing_is_accepted(config):
    assert config_from_compressed_tensors(config).modules_to_not_convert == ["re:lm_head$"]


def test_a_float_checkpoint_is_told_apart(tmp_path):
    with pytest.raises(UnsupportedSchemeError, match="not quantized. Load it with from_pretrained"):
        load_config(str(save_tiny_llama(tmp_path)))


def test_options_have_no_effect_on_a_quantized_checkpoint_and_this_is_said(foreign, caplog):
    config = TLEInt8Config(modules_to_not_convert=["layers.0"])
    model = AutoModelForCausalLM.from_pretrained(foreign, quantization_config=config)
    assert len(int8_layers(model)) == 14
    assert "the options of TLEInt8Config have no effect" in caplog.text


def test_other_methods_are_refused():
    with pytest.raises(UnsupportedSchemeError, match="quant_method='gptq'"):
        config_from_compressed_tensors({"quant_method": "gptq"})
    with pytest.raises(UnsupportedSchemeError, match="quant_method=None"):
        config_from_compressed_tensors("int4")


def test_what_is_no_model_of_transformers_is_refused(tmp_path):
    with pytest.raises(InputTypeError, match="the model is a Linear"):
        save_compressed_tensors(torch.nn.Linear(4, 4), tmp_path)


class TestWriting:
    @pytest.fixture
    def ours(self, tmp_path):
        path = save_tiny_llama(tmp_path / "float", attention_bias=True)
        config = TLEInt8Config(modules_to_not_convert=["layers.1.mlp"])
        return AutoModelForCausalLM.from_pretrained(path, quantization_config=config)

    def test_stock_transformers_loads_it(self, ours, tmp_path):
        save_compressed_tensors(ours, tmp_path / "ct")
        stock = AutoModelForCausalLM.from_pretrained(tmp_path / "ct")
        assert stock.config.quantization_config.quant_method == "compressed-tensors"
        assert not int8_layers(stock)
        # compressed-tensors fake-quantizes activations by absmax / 127.5, we by absmax / 127 (as vLLM does).
        expected = logits(ours)
        assert (logits(stock) - expected).norm() / expected.norm() < 0.03

    def test_stock_transformers_dequantizes_to_our_weights(self, ours, tmp_path):
        save_compressed_tensors(ours, tmp_path / "ct")
        stock = AutoModelForCausalLM.from_pretrained(tmp_path / "ct")
        logits(stock)  # decompresses on the first forward pass
        for name, layer in int8_layers(ours).items():
            torch.testing.assert_close(stock.get_submodule(name).weight, layer.dequantize())

    def test_and_back(self, ours, tmp_path):
        save_compressed_tensors(ours, tmp_path / "ct")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "ct", quantization_config=TLEInt8Config())
        assert set(int8_layers(again)) == set(int8_layers(ours))
        assert torch.equal(logits(again), logits(ours))

    def test_a_stock_model_saved_by_transformers_loads_here(self, ours, tmp_path):
        save_compressed_tensors(ours, tmp_path / "ct")
        AutoModelForCausalLM.from_pretrained(tmp_path / "ct").save_pretrained(tmp_path / "stock")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "stock", quantization_config=TLEInt8Config())
        assert torch.equal(logits(again), logits(ours))

    def test_model_keeps_its_own_configuration(self, ours, tmp_path):
        before = ours.config.quantization_config
        save_compressed_tensors(ours, tmp_path / "ct")
        assert ours.config.quantization_config is before

    def test_float_model_is_refused(self, tmp_path):
        model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "float"))
        with pytest.raises(ConfigError, match="not loaded in INT8"):
            save_compressed_tensors(model, tmp_path / "ct")
        assert not (tmp_path / "ct").exists()
