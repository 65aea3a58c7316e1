"""Converting tensor by tensor gives the files that loading and saving gives."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from moe_support import save_moe
from safetensors.torch import load_file
from support import edit_checkpoint, edit_config, logits, save_tiny_llama
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_tle_int8 import TLEInt8Config, save_compressed_tensors
from hf_tle_int8.errors import CheckpointError, ConfigError, InputValueError
from hf_tle_int8.streaming import conversion
from hf_tle_int8.streaming.conversion import convert_checkpoint
from hf_tle_int8.streaming.options import Options
from hf_tle_int8.streaming.origin import NotStreamableError

SIZES = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}


def save(model: PreTrainedModel, folder: Path, dtype: torch.dtype = torch.float32, **options: object) -> Path:
    model.to(dtype).save_pretrained(folder, **options)
    return folder


def llava() -> PreTrainedModel:
    vision = {**SIZES, "model_type": "clip_vision_model", "image_size": 16, "patch_size": 8}
    text = {**SIZES, "model_type": "llama", "vocab_size": 100, "tie_word_embeddings": False}
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=99))


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(n_embd=48, n_layer=1, n_head=4, vocab_size=100, n_positions=32))


def bert() -> PreTrainedModel:
    return BertForMaskedLM(BertConfig(**SIZES, vocab_size=100, max_position_embeddings=64))


def t5() -> PreTrainedModel:
    sizes = {"d_model": 48, "d_kv": 12, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 100}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Float checkpoints by name."""
    root = tmp_path_factory.mktemp("float")
    save_tiny_llama(root / "llama", torch.bfloat16, attention_bias=True)
    model = AutoModelForCausalLM.from_pretrained(root / "llama")
    model.generation_config.temperature, model.generation_config.do_sample = 0.5, True
    save(model, root / "sharded", torch.bfloat16, max_shard_size="20kB")
    save_tiny_llama(root / "tied", torch.float16, tie_word_embeddings=True, num_hidden_layers=1)
    for make in (bert, gpt2, llava, t5):
        save(make(), root / make.__name__, torch.bfloat16 if make is t5 else torch.float32)
    for kind in ("qwen", "gpt_oss"):
        save_moe(root / kind, kind, torch.bfloat16)
    return root


def written(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """The tensors of a checkpoint, and its other files: JSON parsed, the rest as bytes."""
    tensors = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    others = {file.name: file for file in folder.iterdir() if file.suffix != ".safetensors"}
    return tensors, {n: json.loads(f.read_text()) if f.suffix == ".json" else f.read_bytes() for n, f in others.items()}


def assert_same_checkpoint(actual: Path, expected: Path) -> None:
    (tensors, others), (expected_tensors, expected_others) = written(actual), written(expected)
    assert tensors.keys() == expected_tensors.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected_tensors[name].dtype, name
        assert torch.equal(tensor, expected_tensors[name]), name
    assert others == expected_others


CASES = {
    "llama": ("llama", {}, None),
    "sharded": ("sharded", {}, None),
    "another dtype": ("sharded", {}, torch.float32),
    "rounded to another dtype": ("bert", {}, torch.bfloat16),
    "skips": ("llama", {"modules_to_not_convert": ["k_proj", r"re:.*\.1\.mlp"]}, None),
    "only": ("llama", {"modules_to_convert": ["mlp"]}, None),
    "INT8 head": ("llama", {"quantize_lm_head": True}, None),
    "tied": ("tied", {}, None),
    "INT8 head, tied before": ("tied", {"quantize_lm_head": True}, None),
    "bert": ("bert", {}, None),
    "gpt2": ("gpt2", {}, None),
    "renamed tensors": ("llava", {}, None),
    "kept in fp32": ("t5", {}, None),
    "experts": ("qwen", {}, None),
    "float experts": ("qwen", {"modules_to_not_convert": ["experts"]}, None),
    "experts in one tensor": ("gpt_oss", {}, None),
}


@pytest.mark.parametrize(("name", "options", "dtype"), CASES.values(), ids=CASES)
def test_it_writes_what_loading_and_saving_does(folders, tmp_path, name, options, dtype):
    config, source = TLEInt8Config(**options), folders / name
    cls = getattr(transformers, json.loads((source / "config.json").read_text())["architectures"][0])
    model = cls.from_pretrained(source, quantization_config=config, **({} if dtype is None else {"dtype": dtype}))
    model.save_pretrained(tmp_path / "expected")
    outcome = convert_checkpoint(source, tmp_path / "int8", Options(config, dtype))
    assert outcome.loaded_whole_because is None
    assert outcome.left_out == []
    assert_same_checkpoint(tmp_path / "int8", tmp_path / "expected")
    files = [folder / "model.safetensors" for folder in (tmp_path / "int8", tmp_path / "expected")]
    assert files[0].read_bytes() == files[1].read_bytes()
    if name in ("llama", "sharded", "gpt2", "qwen") and "modules_to_not_convert" not in options:
        assert torch.equal(logits(cls.from_pretrained(tmp_path / "int8")), logits(model))


def test_shards_are_those_of_save_pretrained(folders, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folders / "sharded", quantization_config=TLEInt8Config())
    model.save_pretrained(tmp_path / "expected", max_shard_size="15KB")
    convert_checkpoint(folders / "sharded", tmp_path / "int8", Options(TLEInt8Config(), max_shard_size="15KB"))
    names = sorted(file.name for file in (tmp_path / "expected").glob("*.safetensors"))
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "int8" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    index, expected = (
        json.loads((tmp_path / folder / "model.safetensors.index.json").read_text()) for folder in ("int8", "expected")
    )
    assert index["weight_map"] == expected["weight_map"]
    assert index["metadata"]["total_parameters"] == expected["metadata"]["total_parameters"]
    # Without the padding of weights that were packed.
    tensors, _ = written(tmp_path / "int8")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())


def test_compressed_tensors(folders, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folders / "llama", quantization_config=TLEInt8Config())
    save_compressed_tensors(model, tmp_path / "expected")
    options = Options(TLEInt8Config(), format="compressed-tensors")
    convert_checkpoint(folders / "llama", tmp_path / "int8", options)
    assert_same_checkpoint(tmp_path / "int8", tmp_path / "expected")
    with pytest.raises(ConfigError, match="are Conv1D in float"):
        convert_checkpoint(folders / "gpt2", tmp_path / "gpt2", options)
    assert not (tmp_path / "gpt2").exists()


def test_other_formats_are_refused():
    with pytest.raises(ConfigError, match="format='gguf' is not one of tle_int8, compressed-tensors"):
        Options(TLEInt8Config(), format="gguf")


def copy_with(folder: Path, to: Path, **changes: torch.Tensor | None) -> Path:
    shutil.copytree(folder, to)
    edit_checkpoint(to, lambda tensors: tensors.update({name.replace("__", "."): t for name, t in changes.items()}))
    return to


def test_a_tied_weight_that_the_files_have_twice(folders, tmp_path):
    embedding = load_file(folders / "tied" / "model.safetensors")["model.embed_tokens.weight"]
    same = copy_with(folders / "tied", tmp_path / "same", lm_head__weight=embedding)
    assert convert_checkpoint(same, tmp_path / "int8", Options(TLEInt8Config())).loaded_whole_because is None
    assert "lm_head.weight" not in load_file(tmp_path / "int8" / "model.safetensors")


def test_what_cannot_be_streamed_is_loaded_whole(folders, tmp_path, caplog):
    embedding = load_file(folders / "tied" / "model.safetensors")["model.embed_tokens.weight"]
    other = copy_with(folders / "tied", tmp_path / "other", lm_head__weight=embedding + 1)
    outcome = convert_checkpoint(other, tmp_path / "int8", Options(TLEInt8Config()))
    assert "ties lm_head.weight to model.embed_tokens.weight" in outcome.loaded_whole_because
    assert "the whole model is loaded, instead of tensor by tensor" in caplog.text
    model = AutoModelForCausalLM.from_pretrained(other, quantization_config=TLEInt8Config())
    model.save_pretrained(tmp_path / "expected")
    assert_same_checkpoint(tmp_path / "int8", tmp_path / "expected")


def test_damage_is_named_and_nothing_is_left(folders, tmp_path):
    tensors = load_file(folders / "llama" / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    key = name.replace(".", "__")
    nan = tensors[name].clone()
    nan[3, 4] = torch.nan
    damage = {"shape": tensors[name][1:].clone(), "nan": nan, "codes": tensors[name].to(torch.int8)}
    errors = {
        "shape": (CheckpointError, rf"{name} has shape \(99, 48\), the model needs \(100, 48\)"),
        "nan": (InputValueError, f"{name} holds NaN or Inf"),
        "codes": (CheckpointError, f"{name} has dtype I8 in the checkpoint: it is already quantized"),
    }
    for kind, tensor in damage.items():
        source = copy_with(folders / "llama", tmp_path / kind, **{key: tensor})
        error, message = errors[kind]
        with pytest.raises(error, match=message):
            convert_checkpoint(source, tmp_path / "int8", Options(TLEInt8Config()))
        assert not list(tmp_path.glob("int8*"))


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"])
@pytest.mark.parametrize("whole", [False, True])
def test_what_the_files_lack_is_not_made_up(folders, tmp_path, monkeypatch, name, whole):
    def not_streamable(*arguments):
        raise NotStreamableError("of this test")

    if whole:
        monkeypatch.setattr(conversion, "place", not_streamable)
    source = shutil.copytree(folders / "llama", tmp_path / "source")
    edit_checkpoint(source, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=rf"lacks {name}: transformers would initialize that at random"):
        convert_checkpoint(source, tmp_path / "int8", Options(TLEInt8Config()))
    assert not (tmp_path / "int8").exists()


def test_what_a_class_expects_to_be_missing(folders, tmp_path, monkeypatch):
    source = shutil.copytree(folders / "llama", tmp_path / "source")
    edit_checkpoint(source, lambda tensors: tensors.pop("model.norm.weight"))
    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_missing", [r"norm\.weight"])
    outcome = convert_checkpoint(source, tmp_path / "int8", Options(TLEInt8Config()))
    assert outcome.loaded_whole_because == "the files lack model.norm.weight, which transformers initializes"


def test_experts_of_which_a_projection_is_missing(tmp_path):
    source = save_moe(tmp_path / "float", "qwen")
    up = [f"model.layers.0.mlp.experts.{expert}.up_proj.weight" for expert in range(6)]
    edit_checkpoint(source, lambda tensors: [tensors.pop(name) for name in up])
    with pytest.raises(
        CheckpointError, match=r"has 0 tensors \S*up_proj\.weight, and the model 6 experts.*save it again"
    ):
        convert_checkpoint(source, tmp_path / "int8", Options(TLEInt8Config()))
    assert not list(tmp_path.glob("int8*"))


def test_tensors_that_the_model_does_not_have(folders, tmp_path):
    source = copy_with(folders / "llama", tmp_path / "more", extra__weight=torch.ones(2, 2))
    assert convert_checkpoint(source, tmp_path / "int8", Options(TLEInt8Config())).left_out == ["extra.weight"]


def test_files_beside_the_weights_are_not_read(folders, tmp_path):
    source = shutil.copytree(folders / "llama", tmp_path / "source")
    shutil.copy(folders / "tied" / "model.safetensors", source / "adapter_model.safetensors")
    edit_config(source, dtype=None)
    convert_checkpoint(source, tmp_path / "int8", Options(TLEInt8Config()))
    convert_checkpoint(folders / "llama", tmp_path / "expected", Options(TLEInt8Config()))
    assert_same_checkpoint(tmp_path / "int8", tmp_path / "expected")


def test_small_files_are_copied(folders, tmp_path):
    source = shutil.copytree(folders / "llama", tmp_path / "source")
    for name in ("tokenizer.json", "LICENSE", "README.md", "pytorch_model.bin", ".git", "1_Pooling"):
        (source / name).write_text("of the float model") if "_P" not in name else (source / name).mkdir()
    (source / "1_Pooling" / "config.json").write_text("{}")
    convert_checkpoint(source, tmp_path / "int8", Options(TLEInt8Config()))
    names = {str(path.relative_to(tmp_path / "int8")) for path in (tmp_path / "int8").rglob("*") if path.is_file()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "README.md", "tokenizer.json", "LICENSE",
        "1_Pooling/config.json",
    }  # fmt: skip
    assert "int8" in (tmp_path / "int8" / "README.md").read_text()
