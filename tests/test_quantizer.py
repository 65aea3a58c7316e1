"""Loading on the fly: what becomes INT8, what does not, and what is refused."""

import copy
import logging

import pytest
import torch
from support import (
    FLOATS,
    edit_checkpoint,
    edit_config,
    int8_layers,
    logits,
    save_tiny_llama,
    tiny_llama_config,
)
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    T5Config,
)

from hf_tle_int8 import TLEInt8Config, TLEInt8Error, TLEInt8Linear, arithmetic
from hf_tle_int8.errors import CheckpointError, ConfigError, UnsupportedPlacementError, UnsupportedSchemeError
from hf_tle_int8.quantizer import TLEInt8HfQuantizer


@pytest.fixture
def llama(tmp_path):
    return save_tiny_llama(tmp_path / "llama")


def load(path, config=None, **options):
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=config or TLEInt8Config(), **options)


class TestOnTheFly:
    @pytest.mark.parametrize("saved", FLOATS)
    def test_codes_are_those_of_the_float_weights(self, tmp_path, saved):
        path = save_tiny_llama(tmp_path, saved, attention_bias=True)
        reference = AutoModelForCausalLM.from_pretrained(path)
        model = load(path)
        layers = int8_layers(model)
        assert len(layers) == 14
        for name, layer in layers.items():
            q, scale = arithmetic.quantize_weight(reference.get_submodule(name).weight)
            assert torch.equal(layer.weight, q)
            assert torch.equal(layer.weight_scale, scale)
            assert layer.bias is None or torch.equal(layer.bias, reference.get_submodule(name).bias)
        assert type(model.lm_head) is nn.Linear

    @pytest.mark.parametrize("dtype", ["auto", *FLOATS])
    def test_dtype(self, llama, dtype):
        model = load(llama, dtype=dtype)
        expected = torch.float32 if dtype == "auto" else dtype
        assert model.dtype == expected
        assert model.model.norm.weight.dtype == expected
        output = logits(model)
        assert output.dtype == expected
        assert output.isfinite().all()
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32

    def test_close_to_float(self, llama):
        expected = logits(AutoModelForCausalLM.from_pretrained(llama))
        assert (logits(load(llama)) - expected).norm() / expected.norm() < 0.05

    @pytest.mark.parametrize("device_map", [None, "cpu", "auto", {"": "cpu"}])
    def test_device_map(self, llama, device_map):
        model = load(llama, device_map=device_map)
        assert len(int8_layers(model)) == 14
        assert torch.equal(logits(model), logits(load(llama)))

    def test_linears_are_replaced_before_loading(self, llama, monkeypatch):
        seen = []
        process = TLEInt8HfQuantizer._process_model_before_weight_loading

        def spy(self, model, **options):
            process(self, model, **options)
            seen.append(
                [parameter.device.type for layer in int8_layers(model).values() for parameter in [layer.weight]]
            )

        monkeypatch.setattr(TLEInt8HfQuantizer, "_process_model_before_weight_loading", spy)
        load(llama)
        assert seen == [["meta"] * 14]

    def test_parameters_are_frozen(self, llama):
        for layer in int8_layers(load(llama)).values():
            assert not any(parameter.requires_grad for parameter in layer.parameters())

    def test_state_dict_argument(self, llama):
        reference = AutoModelForCausalLM.from_pretrained(llama)
        model = type(reference).from_pretrained(
            None, config=reference.config, state_dict=reference.state_dict(), quantization_config=TLEInt8Config()
        )
        assert torch.equal(logits(model), logits(load(llama)))

    def test_user_config_is_not_changed(self, llama):
        config = TLEInt8Config(modules_to_not_convert=["layers.1"])
        before = copy.deepcopy(config)
        first, second = load(llama, config), load(llama, config)
        assert config == before
        assert first.config.quantization_config is not second.config.quantization_config

    def test_footprint(self, llama):
        model = load(llama)
        reference = AutoModelForCausalLM.from_pretrained(llama)
        saved = sum(3 * layer.weight.nbytes - layer.weight_scale.nbytes for layer in int8_layers(model).values())
        assert model.get_memory_footprint() == reference.get_memory_footprint() - saved


class TestSkips:
    def test_user_list_adds_to_the_defaults(self, llama):
        model = load(llama, TLEInt8Config(modules_to_not_convert=["layers.0", "re:.*down_proj"]))
        assert set(int8_layers(model)) == {
            f"model.layers.1.{name}"
            for name in (*(f"self_attn.{x}_proj" for x in "qkvo"), "mlp.gate_proj", "mlp.up_proj")
        }
        saved = model.config.quantization_config.modules_to_not_convert
        assert saved == ["layers.0", "re:.*down_proj", "lm_head"]

    def test_empty_list_on_a_tied_model(self, tmp_path):
        path = save_tiny_llama(tmp_path, tie_word_embeddings=True)
        model = load(path, TLEInt8Config(modules_to_not_convert=[]))
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert logits(model).isfinite().all()

    def test_untied_head_on_request(self, llama):
        model = load(llama, TLEInt8Config(quantize_lm_head=True))
        assert isinstance(model.lm_head, TLEInt8Linear)

    def test_pattern_without_match_warns(self, llama, caplog):
        load(llama, TLEInt8Config(modules_to_not_convert=["layers.7"]))
        assert "modules_to_not_convert: 'layers.7' matched no linear layer" in caplog.text

    def test_summary_is_one_line(self, llama, caplog):
        with caplog.at_level(logging.INFO, logger="hf_tle_int8"):
            load(llama, TLEInt8Config(modules_to_not_convert=["layers.1"]))
        (record,) = [r for r in caplog.records if "linear layers in INT8" in r.getMessage()]
        assert record.levelno == logging.INFO
        assert record.getMessage().startswith("7 linear layers in INT8; left in floating point: ")
        assert "1 the output head, by default, (lm_head)" in record.getMessage()
        assert "7 skipped by name" in record.getMessage()

    def test_nothing_to_convert_warns(self, tmp_path, caplog):
        load(save_tiny_llama(tmp_path), TLEInt8Config(modules_to_not_convert=["model"]))
        (record,) = [r for r in caplog.records if "linear layers in INT8" in r.getMessage()]
        assert record.levelno == logging.WARNING
        assert "14 skipped by name" in record.getMessage()

    def test_fp32_modules_of_the_model_stay(self, tmp_path):
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
        AutoModel.from_config(T5Config(**sizes)).save_pretrained(tmp_path)
        model = AutoModel.from_pretrained(tmp_path, quantization_config=TLEInt8Config())
        assert type(model.encoder.block[0].layer[1].DenseReluDense.wo) is nn.Linear
        assert isinstance(model.encoder.block[0].layer[1].DenseReluDense.wi, TLEInt8Linear)
        assert "encoder.block.0.layer.1.DenseReluDense.wo" in model.config.quantization_config.modules_to_not_convert


class TestNewHeads:
    def test_new_head_is_float_initialized_and_trainable(self, llama, caplog):
        with caplog.at_level(logging.INFO, logger="hf_tle_int8"):
            model = AutoModelForSequenceClassification.from_pretrained(llama, quantization_config=TLEInt8Config())
        assert type(model.score) is nn.Linear
        assert 0.01 < model.score.weight.std() < 0.04
        assert model.score.weight.requires_grad
        assert len(int8_layers(model)) == 14
        assert "1 newly initialized, absent from the checkpoint, (score)" in caplog.text

    def test_trained_head_is_quantized_and_comes_back(self, tmp_path):
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = BertConfig(**sizes, vocab_size=32)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "float")
        model = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "float", quantization_config=TLEInt8Config()
        )
        assert isinstance(model.classifier, TLEInt8Linear)
        model.save_pretrained(tmp_path / "int8")
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8")
        assert torch.equal(logits(again), logits(model))

    def test_ignored_mismatch_becomes_a_new_head(self, tmp_path):
        save_classifier(tmp_path, num_labels=2)
        options = {"quantization_config": TLEInt8Config(), "num_labels": 5, "ignore_mismatched_sizes": True}
        if not reports_mismatches():
            with pytest.raises(CheckpointError, match=r"score\.weight has shape"):
                AutoModelForSequenceClassification.from_pretrained(tmp_path, **options)
            return
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path, **options)
        assert type(model.score) is nn.Linear
        assert model.score.weight.shape == (5, 48)
        assert model.score.weight.isfinite().all()


def save_classifier(folder, num_labels):
    config = tiny_llama_config(num_labels=num_labels, pad_token_id=0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def reports_mismatches() -> bool:
    """Up to transformers 5.22, the loader sets tensors of any shape where a model is quantized."""
    import transformers

    return tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 23)


class TestRefusals:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, llama, bad):
        name = "model.layers.1.mlp.up_proj.weight"
        edit_checkpoint(llama, lambda tensors: tensors[name][5].fill_(bad))
        with pytest.raises(CheckpointError, match=rf"{name} holds NaN or Inf in output channel 5"):
            load(llama)

    def test_misshapen_weight(self, llama, caplog):
        name = "model.layers.1.mlp.up_proj.weight"
        edit_checkpoint(llama, lambda tensors: tensors.update({name: torch.randn(7, 7)}))
        if reports_mismatches():
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                load(llama)
            assert "layers.1.mlp.up_proj.weight" in caplog.text
        else:
            with pytest.raises(CheckpointError, match=rf"{name} has shape \(7, 7\)"):
                load(llama)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn])
    def test_quantized_weights_without_a_configuration(self, llama, dtype):
        name = "model.layers.1.mlp.up_proj.weight"
        edit_checkpoint(llama, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
        with pytest.raises(CheckpointError, match=rf"{name} has dtype .*already quantized.*Load the float original"):
            load(llama)

    def test_disk_offload_on_the_fly(self, llama, tmp_path):
        device_map = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
        device_map["model.rotary_emb"] = "cpu"
        with pytest.raises(UnsupportedPlacementError, match="'disk'.*Save an INT8 checkpoint first"):
            load(llama, device_map=device_map, offload_folder=tmp_path / "offload")

    def test_distributed(self, llama):
        config = tiny_llama_config()
        config.distributed_config = {"tp_size": 2}
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        quantizer = TLEInt8HfQuantizer(TLEInt8Config(), pre_quantized=False)
        with pytest.raises(UnsupportedPlacementError, match="distributed_config.*Load without tp_plan"):
            quantizer.preprocess_model(model)
        assert not int8_layers(model)

    @pytest.mark.parametrize("extra", [{"quant_method": name} for name in ("gptq", "awq", "fp8")])
    def test_checkpoint_of_another_method(self, llama, extra):
        edit_config(llama, quantization_config={"bits": 8, **extra})
        with pytest.raises(TLEInt8Error, match=f"quant_method='{extra['quant_method']}'.*Load the float original"):
            load(llama)

    def test_checkpoint_of_bitsandbytes(self, llama):
        edit_config(llama, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
        with pytest.raises(TLEInt8Error, match="quant_method='bitsandbytes'.*Load the float original"):
            load(llama)

    def test_checkpoint_of_a_method_that_transformers_does_not_know(self, llama):
        # Its tensors have other names: transformers would initialize the weights at random.
        edit_checkpoint(llama, lambda tensors: tensors.update({"x.trellis": tensors.pop("model.norm.weight").short()}))
        edit_config(llama, quantization_config={"quant_method": "exl3"})
        with pytest.raises(UnsupportedSchemeError, match=r"config\.json says quant_method='exl3'.*the float original"):
            load(llama)

    def test_unknown_key_in_a_saved_config(self, llama):
        load(llama).save_pretrained(llama)
        edit_config(llama, quantization_config={"quant_method": "tle_int8", "quantise_lm_head": True})
        with pytest.raises(ConfigError, match="Did you mean 'quantize_lm_head'"):
            AutoModelForCausalLM.from_pretrained(llama)


class TestLoadedModel:
    def test_dequantize(self, llama, tmp_path):
        model = load(llama)
        expected = {name: layer.dequantize() for name, layer in int8_layers(model).items()}
        buffer = model.model.rotary_emb.inv_freq.clone()
        model.dequantize()
        assert not int8_layers(model)
        for name, weight in expected.items():
            assert torch.equal(model.get_submodule(name).weight, weight)
        assert torch.equal(model.model.rotary_emb.inv_freq, buffer)
        model.save_pretrained(tmp_path / "float")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "float")
        assert not hasattr(again.config, "quantization_config")
        assert torch.equal(logits(again), logits(model))

    def test_deepcopy(self, llama):
        model = load(llama)
        assert torch.equal(logits(copy.deepcopy(model)), logits(model))

    def test_cast_after_loading(self, llama):
        model = load(llama)
        expected = {name: layer.weight_scale.clone() for name, layer in int8_layers(model).items()}
        model.to(torch.bfloat16)
        for name, layer in int8_layers(model).items():
            assert torch.equal(layer.weight_scale, expected[name])
        assert logits(model).dtype == torch.bfloat16

    def test_compiles_without_graph_breaks(self, llama):
        model = load(llama)
        ids = torch.arange(8).reshape(1, 8)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits)

    def test_gradient_reaches_the_embedding(self, llama):
        model = load(llama)
        ids = torch.arange(8).reshape(1, 8)
        model(ids, labels=ids).loss.backward()
        assert model.model.embed_tokens.weight.grad.abs().sum() > 0
        assert all(layer.weight.grad is None for layer in int8_layers(model).values())


class TestRefusalsBeforeLoading:
    def test_dtype_that_linears_do_not_take(self, llama):
        with pytest.raises(ConfigError, match=r"dtype=torch\.float64: INT8 linears take float32, float16 or bfloat16"):
            load(llama, dtype=torch.float64)

    def test_unknown_devices(self, llama):
        with pytest.raises(UnsupportedPlacementError, match="'xla:0'"):
            load(llama, device_map={"": "xla:0"})

    def test_quantized_weights_in_a_bin_file(self, llama):
        from safetensors.torch import load_file

        tensors = load_file(llama / "model.safetensors")
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = tensors[name].to(torch.int8)
        torch.save(tensors, llama / "pytorch_model.bin")
        (llama / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=rf"{name} has dtype torch\.int8 .*already quantized"):
            load(llama)

    def test_one_bad_weight_is_one_problem(self, llama):
        edit_checkpoint(llama, lambda tensors: tensors["model.layers.0.mlp.up_proj.weight"][0].fill_(float("nan")))
        with pytest.raises(
            CheckpointError, match=r"problems found: 1\n- model\.layers\.0\.mlp\.up_proj\.weight holds NaN"
        ):
            load(llama)
