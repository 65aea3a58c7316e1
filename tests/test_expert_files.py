"""Mixtures of experts from float checkpoints to INT8 ones and back: bit for bit, or an error that names the expert."""

import json
import logging
import re

import pytest
import torch
from moe_support import expected_experts, expert_layers, float_moe, save_moe
from safetensors import safe_open
from safetensors.torch import load_file
from support import FLOATS, assert_same, edit_checkpoint, edit_config, logits, numpy_quantize_weight
from transformers import AutoModel, AutoModelForCausalLM

from hf_tle_int8 import TLEInt8Config, quantize_and_replace_linears, save_compressed_tensors
from hf_tle_int8.errors import CheckpointError, ConfigError
from hf_tle_int8.expert_files import ExpertsConverter

KINDS = ("qwen", "mixtral", "deepseek", "gpt_oss", "nemotron")
EXPERTS = "model.layers.1.mlp.experts"


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, **options)


def quantize(path, *skip, **options):
    return load(path, quantization_config=TLEInt8Config(list(skip)), **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """kind -> (float folder, INT8 model, its folder)."""
    made = {}

    def make(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            save_moe(folder / "float", kind)
            model = quantize(folder / "float")
            model.save_pretrained(folder / "int8")
            made[kind] = folder / "float", model, folder / "int8"
        return made[kind]

    return make


@pytest.fixture
def copied(saved, tmp_path):
    """The folder of an INT8 checkpoint that a test may damage."""
    saved("qwen")[1].save_pretrained(tmp_path)
    return tmp_path


def tensors(path):
    return load_file(path / "model.safetensors")


class TestQuantizing:
    @pytest.mark.parametrize("kind", KINDS)
    def test_experts_compute_what_the_oracle_does(self, saved, kind):
        model, seen = saved(kind)[1], []
        for layer in expert_layers(model).values():
            layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs, output)))
        logits(model, length=5)
        assert len(seen) == len(expert_layers(model)) == {"deepseek": 1, "nemotron": 1}.get(kind, 2)
        for layer, inputs, output in seen:
            layer._forward_hooks.clear()
            torch.testing.assert_close(output, expected_experts(layer, *inputs))

    @pytest.mark.parametrize("kind", KINDS)
    def test_close_to_float(self, saved, kind):
        path, model, _ = saved(kind)
        expected = logits(load(path))
        # Rounding may send a token to other experts: most tokens must be close.
        errors = (logits(model) - expected).norm(dim=-1) / expected.norm(dim=-1)
        assert errors.median() < 0.1

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_dtypes(self, saved, dtype):
        model = quantize(saved("qwen")[0], dtype=dtype)
        assert logits(model).dtype == dtype
        assert logits(model).isfinite().all()
        layer = expert_layers(model)[EXPERTS]
        assert {p.dtype for p in layer.parameters()} == {torch.int8, torch.float32}
        source = tensors(saved("qwen")[0])[f"{EXPERTS}.2.up_proj.weight"].to(dtype)
        assert torch.equal(layer.gate_up_proj[2, 36:], torch.from_numpy(numpy_quantize_weight(source)[0]))

    def test_generate(self, saved):
        model = saved("mixtral")[1]
        ids = torch.arange(8).reshape(2, 4) + 3
        out = model.generate(ids, max_new_tokens=4, do_sample=False)
        assert out.shape == (2, 8)
        assert torch.equal(out, load(saved("mixtral")[2]).generate(ids, max_new_tokens=4, do_sample=False))

    def test_summary_names_what_stays_float(self, saved, caplog):
        with caplog.at_level(logging.INFO, logger="hf_tle_int8"):
            quantize(saved("qwen")[0], "model.layers.0.mlp.experts")
        assert "8 linear layers and the experts of 1 layers in INT8" in caplog.text
        assert "2 of class Qwen3MoeTopKRouter" in caplog.text
        assert "1 skipped by name (model.layers.0.mlp.experts)" in caplog.text
        assert "matched no linear" not in caplog.text

    def test_expert_by_expert(self, saved, monkeypatch):
        """No two float tensors of experts are alive at once."""
        from hf_tle_int8 import expert_files

        alive, most = [0], [0]
        read = expert_files._materialized

        class Counted(torch.Tensor):
            def __del__(self):
                alive[0] -= 1

        def counted(source):
            tensor = read(source).as_subclass(Counted)
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            return tensor

        def quantized(tensor, name):
            return arithmetic(tensor.as_subclass(torch.Tensor), name)

        arithmetic = expert_files.quantize_weight
        monkeypatch.setattr(expert_files, "_materialized", counted)
        monkeypatch.setattr(expert_files, "quantize_weight", quantized)
        quantize(saved("qwen")[0])
        assert most[0] <= 2

    def test_a_weight_with_nan_is_named(self, tmp_path):
        save_moe(tmp_path, "qwen")
        edit_checkpoint(tmp_path, lambda t: t[f"{EXPERTS}.4.up_proj.weight"][3].fill_(float("nan")))
        with pytest.raises(
            CheckpointError, match=r"experts\.4\.up_proj\.weight, for .* NaN or Inf in output channel 3"
        ):
            quantize(tmp_path)


class TestSkips:
    def test_experts_of_a_layer_stay_float(self, saved, tmp_path):
        model = quantize(saved("qwen")[0], "layers.0.mlp")
        assert list(expert_layers(model)) == [EXPERTS]
        model.save_pretrained(tmp_path)
        again = load(tmp_path)
        assert list(expert_layers(again)) == [EXPERTS]
        assert_same(again, model)
        assert tensors(tmp_path)["model.layers.0.mlp.experts.5.gate_proj.weight"].dtype == torch.float32

    @pytest.mark.parametrize("entry", [r"re:.*\.experts\.\d+\.", "experts", "mlp"])
    def test_all_experts_by_the_names_of_files(self, saved, entry):
        assert not expert_layers(quantize(saved("qwen")[0], entry))

    @pytest.mark.parametrize("entry", ["experts.3", r"re:.*experts\.\d+\.up_proj", "layers.1.mlp.experts.0.gate_proj"])
    def test_some_experts_are_refused(self, saved, entry):
        with pytest.raises(ConfigError, match=r"mlp\.experts\.\d\.\w+ and other experts, \d+ of 18 matrices"):
            quantize(saved("qwen")[0], entry)

    def test_what_the_model_keeps_in_fp32(self, saved, monkeypatch, caplog):
        cls = type(saved("qwen")[1])
        monkeypatch.setattr(cls, "_keep_in_fp32_modules", ["layers.0.mlp.experts.down_proj"])
        with caplog.at_level(logging.INFO, logger="hf_tle_int8"):
            model = quantize(saved("qwen")[0], dtype=torch.bfloat16)
        assert list(expert_layers(model)) == [EXPERTS]
        assert "1 kept in fp32 by its model (model.layers.0.mlp.experts)" in caplog.text

    def test_checkpoints_with_float_experts_load(self, saved, tmp_path):
        """Those that list no experts among their INT8 layers, wherever they come from."""
        model = quantize(saved("qwen")[0], "experts")
        model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
        edit_config(tmp_path, quantization_config={**config, "modules_to_not_convert": ["lm_head"]})
        assert_same(load(tmp_path), model)


class TestRoundTrips:
    @pytest.mark.parametrize("kind", KINDS)
    def test_exact(self, saved, tmp_path, kind):
        _, model, path = saved(kind)
        again = load(path)
        assert_same(again, model)
        again.save_pretrained(tmp_path)
        files = tensors(tmp_path), tensors(path)
        assert files[0].keys() == files[1].keys()
        assert all(torch.equal(value, files[1][key]) for key, value in files[0].items())

    @pytest.mark.parametrize("kind", KINDS)
    def test_names_are_those_of_the_float_checkpoint(self, saved, kind):
        source, _, path = saved(kind)
        floats, codes = tensors(source), tensors(path)
        scales = {name for name in codes if name.endswith("_scale")}
        assert codes.keys() - scales == floats.keys()
        assert {name.removesuffix("_scale") for name in scales} == {
            n for n, t in codes.items() if t.dtype == torch.int8
        }
        for name in scales:
            assert codes[name].dtype == torch.float32
            assert codes[name].shape == (*codes[name.removesuffix("_scale")].shape[:-1], 1)
        by_expert = [name for name in codes if re.search(r"experts\.\d+\.\w+\.weight$", name)]
        assert bool(by_expert) == (kind != "gpt_oss")
        for name in by_expert:
            expected, scale = numpy_quantize_weight(floats[name])
            assert torch.equal(codes[name], torch.from_numpy(expected))
            assert torch.equal(codes[f"{name}_scale"], torch.from_numpy(scale))

    def test_sharded(self, saved, tmp_path):
        _, model, _ = saved("qwen")
        model.save_pretrained(tmp_path, max_shard_size="20kB")
        files = list(tmp_path.glob("*.safetensors"))
        assert len(files) > 3
        assert_same(load(tmp_path), model)

    def test_saving_copies_no_codes(self, saved, tmp_path, monkeypatch):
        model, seen = saved("qwen")[1], {}

        def spy(self, *arguments, **options):
            result = convert(self, *arguments, **options)
            seen.update(result)
            return result

        convert = ExpertsConverter.convert
        monkeypatch.setattr(ExpertsConverter, "convert", spy)
        model.save_pretrained(tmp_path)
        held = {p.untyped_storage().data_ptr() for layer in expert_layers(model).values() for p in layer.parameters()}
        assert len(seen) == 2 * 6 * 3 * 2
        assert {tensor.untyped_storage().data_ptr() for tensor in seen.values()} <= held
        expert_layers(model)[EXPERTS].pack_()

    def test_base_model(self, saved):
        _, model, path = saved("mixtral")
        assert_same(AutoModel.from_pretrained(path), model.model)

    def test_disk_offload(self, saved, tmp_path):
        _, model, path = saved("qwen")
        device_map = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
        offloaded = load(path, device_map={**device_map, "model.rotary_emb": "cpu"}, offload_folder=tmp_path)
        assert torch.equal(logits(offloaded), logits(model))

    @pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
    def test_converted_in_memory(self, saved, tmp_path, kind):
        _, expected, path = saved(kind)
        model = float_moe(kind)
        quantize_and_replace_linears(model, skip=["lm_head"])
        assert_same(model, expected)
        model.save_pretrained(tmp_path)
        assert tensors(tmp_path).keys() == tensors(path).keys()
        assert_same(load(tmp_path), expected)

    @pytest.mark.parametrize("kind", ["qwen", "gpt_oss"])
    def test_dequantized(self, saved, tmp_path, kind):
        source, _, path = saved(kind)
        model = load(path)
        expected = [layer.dequantize("down_proj") for layer in expert_layers(model).values()]
        model.dequantize()
        assert not expert_layers(model)
        model.save_pretrained(tmp_path)
        assert tensors(tmp_path).keys() == tensors(source).keys()
        again = load(tmp_path)
        assert_same(again, model)
        for layer, weight in zip(again.model.layers, expected, strict=True):
            held = layer.mlp.experts.down_proj
            assert torch.equal(held.transpose(1, 2) if kind == "gpt_oss" else held, weight)


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "damage", "message"),
        [
            ("3.up_proj.weight", None, r"gate_up_proj is incomplete: the checkpoint has 5 tensors .*up_proj\.weight"),
            ("3.up_proj.weight_scale", None, r"gate_up_proj_scale is incomplete"),
            (
                "3.up_proj.weight",
                lambda t: t[:30],
                r"experts\.3\.up_proj\.weight, for .* has shape \(30, 48\), the model needs \(36, 48\)",
            ),
            (
                "3.up_proj.weight",
                lambda t: t.float(),
                r"experts\.3\.up_proj\.weight, for .* has dtype torch\.float32, others have torch",
            ),
            ("0.down_proj.weight_scale", lambda t: -t, r"down_proj_scale\[0\] is -\S+ for output channel 0"),
            ("5.down_proj.weight_scale", lambda t: t * float("nan"), r"down_proj_scale\[5\] is nan for output channel"),
        ],
    )
    def test_is_named(self, copied, name, damage, message):
        def edit(tensors):
            tensor = tensors.pop(f"{EXPERTS}.{name}")
            if damage is not None:
                tensors[f"{EXPERTS}.{name}"] = damage(tensor)

        edit_checkpoint(copied, edit)
        with pytest.raises(CheckpointError, match=message):
            load(copied)

    @pytest.mark.parametrize("tail", ["", "_scale"])
    def test_all_of_a_layer_is_missing(self, copied, tail):
        names = [f"{EXPERTS}.{expert}.down_proj.weight{tail}" for expert in range(6)]
        edit_checkpoint(copied, lambda tensors: [tensors.pop(name) for name in names])
        for cls in (AutoModelForCausalLM, AutoModel):
            with pytest.raises(CheckpointError, match=rf"mlp\.experts\.down_proj{tail} is missing"):
                cls.from_pretrained(copied)

    def test_codes_where_float_is_configured(self, copied):
        config = json.loads((copied / "config.json").read_text())["quantization_config"]
        edit_config(copied, quantization_config={**config, "modules_to_not_convert": ["lm_head", EXPERTS]})
        with pytest.raises(
            CheckpointError, match=rf"{EXPERTS}\.\w+ has dtype torch\.int8, but {EXPERTS} is configured"
        ):
            load(copied)


class TestCompressedTensors:
    def test_there_and_back(self, saved, tmp_path, caplog):
        model = quantize(saved("qwen")[0], "layers.0.mlp")
        save_compressed_tensors(model, tmp_path)
        assert "Qwen3MoeForCausalLM has INT8 experts: stock transformers" in caplog.text
        config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
        assert config["ignore"] == ["lm_head", r"re:model\.layers\.0\.mlp\.experts\..*"]
        again = quantize(tmp_path)
        assert list(expert_layers(again)) == [EXPERTS]
        assert_same(again, model)

    def test_experts_in_one_tensor_are_refused(self, saved, tmp_path):
        with pytest.raises(
            ConfigError, match="GptOssForCausalLM have all experts of model.layers.0.mlp.experts in one"
        ):
            save_compressed_tensors(saved("gpt_oss")[1], tmp_path)
        assert not list(tmp_path.iterdir())

    def test_scales_of_one_dimension(self, copied, saved):
        def flatten(tensors):
            for name, tensor in tensors.items():
                if re.search(r"experts\.\d+\..*_scale$", name):
                    tensors[name] = tensor.flatten()

        edit_checkpoint(copied, flatten)
        with safe_open(copied / "model.safetensors", "pt") as file:
            assert len(file.get_slice(f"{EXPERTS}.0.up_proj.weight_scale").get_shape()) == 1
        assert_same(load(copied), saved("qwen")[1])
