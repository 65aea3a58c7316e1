"""save_pretrained -> from_pretrained on INT8 checkpoints: the same bits, or an error that names the tensor."""

import pytest
import torch
from support import FLOATS, assert_same, edit_checkpoint, edit_config, int8_layers, logits, save_tiny_llama
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    pipeline,
)

from hf_tle_int8 import TLEInt8Config
from hf_tle_int8.errors import CheckpointError


@pytest.fixture
def int8(tmp_path):
    """A model in INT8 with biases in its attention, and the folder that it was saved to."""
    path = save_tiny_llama(tmp_path / "float", attention_bias=True)
    model = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())
    model.save_pretrained(tmp_path / "int8")
    return model, tmp_path / "int8"


@pytest.mark.parametrize("saved", FLOATS)
@pytest.mark.parametrize("dtype", ["auto", *FLOATS])
def test_dtypes(tmp_path, saved, dtype):
    path = save_tiny_llama(tmp_path / "float", saved)
    model = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(), dtype=dtype)
    model.save_pretrained(tmp_path / "int8")
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "int8"), model)


@pytest.mark.parametrize("device_map", [None, "cpu", "auto", {"": "cpu"}])
def test_device_maps(int8, device_map):
    model, path = int8
    assert_same(AutoModelForCausalLM.from_pretrained(path, device_map=device_map), model)


@pytest.mark.parametrize("dtype", FLOATS)
def test_dtype_argument_keeps_codes_and_scales(int8, dtype):
    model, path = int8
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    assert loaded.dtype == dtype
    for name, layer in int8_layers(loaded).items():
        assert torch.equal(layer.weight, int8_layers(model)[name].weight)
        assert torch.equal(layer.weight_scale, int8_layers(model)[name].weight_scale)
        assert layer.bias is None or layer.bias.dtype == dtype
    assert logits(loaded).dtype == dtype


def test_second_generation(int8, tmp_path):
    model, path = int8
    AutoModelForCausalLM.from_pretrained(path).save_pretrained(tmp_path / "second")
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "second"), model)


def test_sharded(int8, tmp_path):
    model, _ = int8
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20kB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "sharded"), model)


def test_disk_offload(int8, tmp_path):
    model, path = int8
    device_map = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
    device_map["model.rotary_emb"] = "cpu"
    offloaded = AutoModelForCausalLM.from_pretrained(path, device_map=device_map, offload_folder=tmp_path / "offload")
    assert torch.equal(logits(offloaded), logits(model))


def test_checkpoint_layout(int8):
    from safetensors.torch import load_file

    model, path = int8
    tensors = load_file(path / "model.safetensors")
    for name, layer in int8_layers(model).items():
        assert tensors[f"{name}.weight"].dtype == torch.int8
        assert tensors[f"{name}.weight_scale"].dtype == torch.float32
        assert tensors[f"{name}.weight_scale"].shape == (layer.out_features, 1)
    assert tensors["lm_head.weight"].dtype == torch.float32


def test_skips_are_saved(tmp_path):
    path = save_tiny_llama(tmp_path / "float")
    config = TLEInt8Config(modules_to_not_convert=["model.layers.0.mlp", r"re:model\.layers\.1\..*k_proj"])
    model = AutoModelForCausalLM.from_pretrained(path, quantization_config=config)
    model.save_pretrained(tmp_path / "int8")
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "int8"), model)
    base = AutoModel.from_pretrained(tmp_path / "int8")
    assert_same(base, model.model)
    base.save_pretrained(tmp_path / "base")
    assert_same(AutoModel.from_pretrained(tmp_path / "base"), base)


def test_quantized_head(tmp_path):
    path = save_tiny_llama(tmp_path / "float")
    model = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(quantize_lm_head=True))
    model.save_pretrained(tmp_path / "int8")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "int8")
    assert "lm_head" in int8_layers(again)
    assert_same(again, model)


def test_other_heads_on_an_int8_checkpoint(int8):
    model, path = int8
    assert_same(AutoModel.from_pretrained(path), model.model)
    classifier = AutoModelForSequenceClassification.from_pretrained(path)
    assert type(classifier.score) is torch.nn.Linear
    assert classifier.score.weight.isfinite().all()
    assert_same(classifier.model, model.model)


def test_a_head_that_was_added_stays_float_when_saved(int8, tmp_path):
    _, path = int8
    classifier = AutoModelForSequenceClassification.from_pretrained(path)
    classifier.save_pretrained(tmp_path / "classifier")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier")
    assert type(again.score) is torch.nn.Linear
    assert torch.equal(again.score.weight, classifier.score.weight)
    assert_same(again.model, classifier.model)


def test_configuration_argument_on_an_int8_checkpoint(int8):
    model, path = int8
    with pytest.warns(UserWarning, match="already has a `quantization_config`"):
        loaded = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())
    assert_same(loaded, model)


def test_encoder_with_biases(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    AutoModel.from_config(BertConfig(**sizes, vocab_size=64)).save_pretrained(tmp_path / "float")
    model = AutoModel.from_pretrained(tmp_path / "float", quantization_config=TLEInt8Config())
    assert len(int8_layers(model)) == 13
    model.save_pretrained(tmp_path / "int8")
    assert_same(AutoModel.from_pretrained(tmp_path / "int8"), model)


def test_generate_and_pipeline(stories_path, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(stories_path, quantization_config=TLEInt8Config())
    tokenizer = AutoTokenizer.from_pretrained(stories_path)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    expected = tokenizer.decode(model.generate(**inputs, max_new_tokens=20, do_sample=False)[0], True)
    writer = pipeline("text-generation", model=str(tmp_path), device="cpu")
    (story,) = writer("Once upon a time", max_new_tokens=20, do_sample=False)
    assert story["generated_text"] == expected
    assert len(int8_layers(writer.model)) == 35


NAME = "model.layers.1.self_attn.v_proj"


@pytest.mark.parametrize(
    ("key", "damage", "message"),
    [
        ("weight", None, "is missing from the checkpoint"),
        ("weight_scale", None, "is missing from the checkpoint"),
        ("bias", None, "is missing from the checkpoint"),
        ("weight", lambda t: t.float(), r"has dtype torch\.float32, int8 codes"),
        ("weight", lambda t: t.to(torch.bfloat16), r"has dtype torch\.float32, int8 codes"),
        ("weight", lambda t: t.to(torch.uint8), r"has dtype torch\.uint8, int8 codes"),
        ("weight", lambda t: t.to(torch.int32), r"has dtype torch\.int32, int8 codes"),
        ("weight_scale", lambda t: t.to(torch.int32), r"has dtype torch\.int32, floating point"),
        ("bias", lambda t: t.to(torch.int32), r"has dtype torch\.int32, floating point"),
        ("weight_scale", lambda t: t.mul(0), r"is 0\.0 for output channel 0"),
        ("weight_scale", lambda t: -t, r"is -\S+ for output channel 0"),
        ("weight_scale", lambda t: t / 0, "is inf for output channel 0"),
        ("weight_scale", lambda t: t * float("nan"), "is nan for output channel 0"),
    ],
)
def test_damage_is_named(int8, key, damage, message):
    _, path = int8

    def edit(tensors):
        tensor = tensors.pop(f"{NAME}.{key}")
        if damage is not None:
            tensors[f"{NAME}.{key}"] = damage(tensor)

    edit_checkpoint(path, edit)
    with pytest.raises(CheckpointError, match=rf"{NAME}\.{key} {message}"):
        AutoModelForCausalLM.from_pretrained(path)


@pytest.mark.parametrize(
    ("key", "shape"),
    [("weight", (24, 47)), ("weight", (23, 48)), ("weight_scale", (24,)), ("weight_scale", (1, 24)), ("bias", (5,))],
)
def test_wrong_shape_is_refused(int8, key, shape):
    _, path = int8
    name = f"{NAME}.{key}"
    edit_checkpoint(path, lambda tensors: tensors.update({name: torch.ones(shape).to(tensors[name].dtype)}))
    for options in ({}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(CheckpointError, match=rf"{name} has shape"):
            AutoModelForCausalLM.from_pretrained(path, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scales_of_another_precision_load(int8, dtype):
    _, path = int8
    name = f"{NAME}.weight_scale"
    edit_checkpoint(path, lambda tensors: tensors.update({name: torch.full((24, 1), 0.25, dtype=dtype)}))
    layer = AutoModelForCausalLM.from_pretrained(path).get_submodule(NAME)
    assert torch.equal(layer.weight_scale, torch.full((24, 1), 0.25))


def test_int8_weight_where_float_is_configured(int8):
    _, path = int8
    name = "lm_head.weight"
    edit_checkpoint(path, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has dtype torch\.int8, but lm_head is configured"):
        AutoModelForCausalLM.from_pretrained(path)


def test_a_lost_layer_is_not_taken_for_a_new_one(int8):
    _, path = int8
    names = [f"{NAME}.{key}" for key in ("weight", "weight_scale", "bias")]
    edit_checkpoint(path, lambda tensors: [tensors.pop(name) for name in names])
    for cls in (AutoModelForCausalLM, AutoModel, AutoModelForSequenceClassification):
        with pytest.raises(CheckpointError, match=r"layers\.1\.self_attn\.v_proj\.weight is missing"):
            cls.from_pretrained(path)


def test_without_architectures_nothing_is_new(int8):
    _, path = int8
    edit_config(path, architectures=None)
    assert len(int8_layers(AutoModelForCausalLM.from_pretrained(path))) == 14
    with pytest.raises(CheckpointError, match=r"score\.weight is missing"):
        AutoModelForSequenceClassification.from_pretrained(path)
