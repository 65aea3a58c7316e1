"""What models of transformers answer about themselves in INT8, and what they refuse to do."""

import copy

import pytest
import torch
from support import int8_layers, logits, save_tiny_llama
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from hf_tle_int8 import TLEInt8Config, quantize_and_replace_linears
from hf_tle_int8.errors import ConfigError, UnsupportedTrainingError
from hf_tle_int8.packing import is_packed


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    # 100 and 172 are padded in every packing.
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), attention_bias=True, intermediate_size=172)


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(**options))


@pytest.fixture(scope="module")
def float_model(path):
    return AutoModelForCausalLM.from_pretrained(path)


@pytest.fixture(scope="module")
def model(path):
    return load(path, quantize_lm_head=True)


def weights_as_held(model) -> list[torch.Tensor]:
    return [layer._parameters["weight"] for layer in int8_layers(model).values()]


class TestSizes:
    def test_parameters_are_those_of_the_float_model(self, model, float_model):
        logits(model)
        padded = sum(weight.numel() for weight in weights_as_held(model))
        assert padded > sum(layer.in_features * layer.out_features for layer in int8_layers(model).values())
        assert model.num_parameters() == float_model.num_parameters()
        assert model.num_parameters(exclude_embeddings=True) == float_model.num_parameters(exclude_embeddings=True)
        assert model.model.num_parameters() == float_model.model.num_parameters()

    def test_row_major_weights_count_the_same(self, path, float_model):
        loaded = load(path)
        loaded.state_dict()
        assert not any(map(is_packed, weights_as_held(loaded)))
        assert loaded.num_parameters() == float_model.num_parameters()

    def test_trainable_ones_are_what_is_in_float(self, path):
        loaded = load(path)
        expected = sum(parameter.numel() for parameter in loaded.parameters() if parameter.requires_grad)
        assert loaded.num_parameters(only_trainable=True) == loaded.num_parameters(True) == expected > 0

    def test_a_shared_weight_counts_once(self, float_model):
        shared = copy.deepcopy(float_model)
        shared.model.layers[1].mlp.up_proj.weight = shared.model.layers[0].mlp.up_proj.weight
        expected = shared.num_parameters()
        quantize_and_replace_linears(shared)
        assert shared.num_parameters() == expected < float_model.num_parameters()

    def test_footprint_is_what_is_held(self, path):
        loaded = load(path)
        tensors = [*loaded.parameters(), *loaded.buffers()]
        held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        assert loaded.get_memory_footprint() == held
        assert held > sum(tensor.nbytes for tensor in loaded.state_dict().values())

    def test_sharded_index(self, model, float_model, tmp_path):
        import json

        model.save_pretrained(tmp_path, max_shard_size="50kB")
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_parameters"] == float_model.num_parameters()

    def test_print_shows_shapes_and_int8(self, model):
        shown = repr(model)
        assert (
            "(down_proj): TLEInt8Linear(in_features=172, out_features=48, bias=False, weights=int8 per channel, "
            "activations=int8 per token)"
        ) in shown
        assert "(lm_head): TLEInt8Linear(in_features=48, out_features=96, bias=False" in shown


class FirstLinearConfig(PreTrainedConfig):
    model_type = "first_linear"


class FirstLinear(PreTrainedModel):
    config_class = FirstLinearConfig

    def __init__(self, config):
        super().__init__(config)
        self.first = nn.Linear(8, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.post_init()

    def forward(self, x):
        return self.norm(self.first(x.to(self.dtype)))


class TestDtype:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_is_not_that_of_a_scale(self, dtype, tmp_path):
        FirstLinear(FirstLinearConfig()).save_pretrained(tmp_path / "float")
        loaded = FirstLinear.from_pretrained(tmp_path / "float", quantization_config=TLEInt8Config(), dtype=dtype)
        assert loaded.dtype == dtype
        loaded.save_pretrained(tmp_path / "int8")
        assert FirstLinear.from_pretrained(tmp_path / "int8").norm.weight.dtype == dtype

    def test_compiles_without_graph_breaks(self):
        model = FirstLinear(FirstLinearConfig()).eval()
        quantize_and_replace_linears(model)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        x = torch.randn(2, 8)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x))

    def test_is_that_of_the_rest(self, path):
        for dtype in (torch.float32, torch.bfloat16):
            loaded = AutoModel.from_pretrained(path, quantization_config=TLEInt8Config(), dtype=dtype)
            assert loaded.dtype == dtype

    def test_a_scale_of_another_kind_of_layer_counts(self):
        other = FirstLinear(FirstLinearConfig())
        other.first.register_parameter("weight", nn.Parameter(torch.ones(8, 8, dtype=torch.int8), requires_grad=False))
        other.first.register_parameter("weight_scale", nn.Parameter(torch.ones(8, dtype=torch.float64)))
        assert other.dtype == torch.float64


class TestTraining:
    def test_requires_grad_is_refused_and_changes_nothing(self, path):
        loaded = load(path).requires_grad_(False)
        with pytest.raises(UnsupportedTrainingError, match=r"LlamaForCausalLM with INT8 layers.*PEFT.*dequantize\(\)"):
            loaded.requires_grad_(True)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())

    @pytest.mark.parametrize("name", ["model", "model.layers", "model.layers.0", "model.layers.0.mlp"])
    def test_requires_grad_of_a_part_is_refused_and_changes_nothing(self, path, name):
        part = load(path).requires_grad_(False).get_submodule(name)
        with pytest.raises(UnsupportedTrainingError, match=f"{type(part).__name__} with INT8 layers.*PEFT"):
            part.requires_grad_()
        assert not any(parameter.requires_grad for parameter in part.parameters())

    def test_requires_grad_of_a_float_part(self, path):
        part = load(path).requires_grad_(False).model.norm
        assert all(parameter.requires_grad for parameter in part.requires_grad_().parameters())

    def test_requires_grad_of_a_layer(self, model):
        layer = model.model.layers[0].mlp.up_proj
        with pytest.raises(UnsupportedTrainingError, match=r"TLEInt8Linear.*no gradient.*to_linear\(\)"):
            layer.requires_grad_(True)
        assert layer.requires_grad_(False) is layer

    def test_a_float_model_trains_as_ever(self, path):
        load(path)
        assert all(p.requires_grad for p in AutoModelForCausalLM.from_pretrained(path).requires_grad_().parameters())

    def test_an_optimizer_leaves_the_codes(self, path):
        loaded = load(path)
        before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
        optimizer = torch.optim.AdamW(loaded.parameters(), lr=0.1, weight_decay=0.5)
        ids = torch.arange(8)[None]
        loaded(ids, labels=ids).loss.backward()
        optimizer.step()
        after = loaded.state_dict()
        changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
        assert "model.embed_tokens.weight" in changed
        assert not any(name.startswith(layer) for name in changed for layer in int8_layers(loaded))

    def test_the_trainer_refuses(self, model, tmp_path):
        with pytest.raises(ValueError, match="cannot perform fine-tuning on purely quantized models.*adapters"):
            Trainer(model=model, args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


class TestResize:
    @pytest.mark.parametrize(("arguments", "rows"), [((97,), 97), ((40,), 40), ((97, 32), 128), ((None, 64), 128)])
    def test_an_int8_head_is_refused_and_nothing_changes(self, path, arguments, rows):
        loaded = load(path, quantize_lm_head=True)
        expected = logits(loaded)
        with pytest.raises(ConfigError, match=rf"to {rows} rows: .*INT8 with 96 rows.*Resize the float model"):
            loaded.resize_token_embeddings(*arguments)
        assert loaded.config.vocab_size == 96
        assert torch.equal(logits(loaded), expected)

    @pytest.mark.parametrize("arguments", [(), (96,), (None, 32)])
    def test_the_same_size_is_no_resize(self, path, arguments):
        loaded = load(path, quantize_lm_head=True)
        expected = logits(loaded)
        assert loaded.resize_token_embeddings(*arguments).weight.shape == (96, 48)
        assert torch.equal(logits(loaded), expected)

    def test_a_float_head_grows(self, path, tmp_path):
        loaded = load(path)
        loaded.resize_token_embeddings(100)
        assert loaded.lm_head.weight.shape == (100, 48)
        loaded.save_pretrained(tmp_path)
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(loaded))

    def test_a_model_without_a_head_grows(self, path):
        loaded = AutoModelForSequenceClassification.from_pretrained(path, quantization_config=TLEInt8Config())
        assert loaded.resize_token_embeddings(100).weight.shape == (100, 48)


def test_methods_are_wrapped_once():
    from hf_tle_int8 import model_methods
    from hf_tle_int8.quantizer import describe

    model_methods.install(describe)
    before = {name: getattr(PreTrainedModel, name) for name in (*model_methods._METHODS, "save_pretrained", "dtype")}
    model_methods.install(describe)
    assert {name: getattr(PreTrainedModel, name) for name in before} == before
