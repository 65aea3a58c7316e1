"""Checkpoint folders without loading them, and the mistakes one can make with them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from support import edit_checkpoint, edit_config, save_tiny_llama
from transformers import AutoModelForCausalLM

from hf_tle_int8 import TLEInt8Config, explain, save_compressed_tensors
from hf_tle_int8.cli.main import main
from hf_tle_int8.errors import CheckpointError
from hf_tle_int8.inspection import inspect_checkpoint


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    save_tiny_llama(root / "float", torch.bfloat16, attention_bias=True)
    config = TLEInt8Config(modules_to_not_convert=["o_proj"])
    model = AutoModelForCausalLM.from_pretrained(root / "float", quantization_config=config)
    model.save_pretrained(root / "int8")
    model.save_pretrained(root / "sharded", max_shard_size="20kB")
    save_compressed_tensors(model, root / "ct")
    return root


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of a checkpoint to damage."""

    def copy_of(name):
        return shutil.copytree(folders / name, tmp_path / name)

    return copy_of


def comparable(table):
    """What a checkpoint and the model loaded from it have in common."""
    return {row.name: (row.shape, row.state, row.dtype, row.decode, row.prefill, row.saved) for row in table.rows}


@pytest.mark.parametrize("name", ["float", "int8", "sharded"])
def test_it_says_what_loading_would_give(folders, name):
    table = inspect_checkpoint(folders / name)
    assert comparable(table) == comparable(explain(AutoModelForCausalLM.from_pretrained(folders / name)))
    size = sum(file.stat().st_size for file in (folders / name).glob("*.safetensors"))
    assert 0.8 * size < table.total_bytes < size


@pytest.mark.parametrize(
    ("name", "method"), [("int8", "tle_int8"), ("ct", "compressed-tensors"), ("sharded", "tle_int8")]
)
def test_int8_checkpoints(folders, name, method):
    table = inspect_checkpoint(folders / name)
    rows = {row.name: row for row in table.rows}
    assert sum(row.state == "int8" for row in rows.values()) == 12
    assert rows["model.layers.0.mlp.up_proj"].held_bytes == 100 * 48
    assert rows["model.layers.0.self_attn.o_proj"].reason == "skipped by name"
    assert rows["lm_head"].reason == "the output head, by default"
    assert table.notes == (f"{folders / name} holds an INT8 model ({method}).",)


def test_a_float_checkpoint(folders):
    rows = {row.name: row for row in inspect_checkpoint(folders / "float").rows}
    assert sum(row.state == "convertible" for row in rows.values()) == 14
    assert rows["model.layers.0.mlp.up_proj"].dtype == "bfloat16"
    assert rows["model.layers.0.mlp.up_proj"].held_bytes == 2 * 100 * 48
    assert rows["lm_head"].reason == "the output head, by default"


def test_a_tied_head_has_the_dtype_of_the_checkpoint(tmp_path):
    save_tiny_llama(tmp_path, torch.bfloat16, tie_word_embeddings=True, num_hidden_layers=1)
    row = inspect_checkpoint(tmp_path).rows[-1]
    assert (row.name, row.dtype, row.reason) == ("lm_head", "bfloat16", "tied to an embedding")


def test_weights_are_not_read(folders, monkeypatch):
    import safetensors

    opened = []

    class Watched:
        def __init__(self, file, framework):
            self.file = safetensors.safe_open(file, framework=framework)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def keys(self):
            return self.file.keys()

        def get_slice(self, name):
            opened.append(name)
            part = self.file.get_slice(name)
            # Without __getitem__: only the header can be asked.
            return type("Part", (), {"get_dtype": part.get_dtype, "get_shape": part.get_shape})

    monkeypatch.setattr("hf_tle_int8.checkpoint_files.safe_open", Watched)
    assert inspect_checkpoint(folders / "int8").rows
    assert "lm_head.weight" in opened


class TestDamage:
    def test_int8_tensors_beyond_the_configuration_are_counted(self, copy):
        folder = copy("int8")
        edit_checkpoint(folder, lambda tensors: tensors.update({"extra.weight": torch.ones(2, 2, dtype=torch.int8)}))
        assert "13 int8 tensors, and its configuration expects 12" in inspect_checkpoint(folder).notes[1]

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("up_proj.weight", torch.ones(100, 48), "has dtype float32, and its configuration says that it is INT8"),
            (
                "up_proj.weight",
                torch.ones(9, 48, dtype=torch.int8),
                r"has shape \(9, 48\), .* needs \(100, 48\)",
            ),
            ("up_proj.weight_scale", None, "is int8 without its weight_scale"),
        ],
    )
    def test_tensors(self, copy, key, value, message):
        folder = copy("int8")

        def edit(tensors):
            del tensors[f"model.layers.0.mlp.{key}"]
            if value is not None:
                tensors[f"model.layers.0.mlp.{key}"] = value

        edit_checkpoint(folder, edit)
        with pytest.raises(CheckpointError, match=rf"layers\.0\.mlp\.up_proj\.weight {message}.*damaged"):
            inspect_checkpoint(folder)

    def test_codes_in_a_float_checkpoint(self, copy):
        folder, name = copy("float"), "model.layers.1.mlp.up_proj.weight"
        edit_checkpoint(folder, lambda tensors: tensors.update({name: tensors[name].to(torch.uint8)}))
        with pytest.raises(CheckpointError, match="has dtype uint8, and its configuration says that it is float"):
            inspect_checkpoint(folder)


def truncated(file):
    file.write_bytes(file.read_bytes()[:-8])


def only_bin(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


MISTAKES = {
    "no folder": (shutil.rmtree, "is no folder"),
    "a file": (lambda folder: [shutil.rmtree(folder), folder.write_text("")], "is no folder"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "a cut configuration": (lambda folder: (folder / "config.json").write_text('{"a":'), "config.json is damaged"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "holds a list, not an object"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no safetensors file. Save it"),
    "only .bin": (only_bin, "only pytorch_model.bin"),
    "a cut file": (lambda folder: truncated(folder / "model.safetensors"), "is missing or damaged"),
    "no header": (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "is missing or damaged"),
    "a cut index": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
        "model.safetensors.index.json is damaged",
    ),
    "a missing shard": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"lm_head.weight": "model-00009.safetensors"}})
        ),
        "model-00009.safetensors is missing or damaged",
    ),
    "another method": (
        lambda folder: edit_config(folder, quantization_config={"quant_method": "gptq"}),
        "quant_method='gptq', which is none of ours",
    ),
    "no method at all": (lambda folder: edit_config(folder, quantization_config="int4"), "quant_method='int4'"),
    "a later format": (
        lambda folder: edit_config(folder, quantization_config={"quant_method": "tle_int8", "format_version": 9}),
        "format_version=9",
    ),
    "an unknown class": (lambda folder: edit_config(folder, architectures=["Foo"]), "architectures=['Foo'], which"),
    "a class that is none": (lambda folder: edit_config(folder, architectures=[3]), "architectures=[3], which"),
    "a function": (lambda folder: edit_config(folder, architectures=["pipeline"]), "architectures=['pipeline'], which"),
    "groups that are none": (
        lambda folder: edit_config(
            folder, quantization_config={"quant_method": "compressed-tensors", "config_groups": 3}
        ),
        "config_groups=3",
    ),
    "no class": (lambda folder: edit_config(folder, architectures=None), "architectures=None"),
    "a bad size": (lambda folder: edit_config(folder, hidden_size="x"), "describes no LlamaForCausalLM"),
}


class TestCommand:
    @pytest.mark.parametrize(("damage", "message"), MISTAKES.values(), ids=MISTAKES)
    def test_mistakes_end_in_a_sentence(self, copy, capsys, damage, message):
        folder = copy("float")
        damage(folder)
        assert main(["inspect", str(folder)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("hf-tle-int8: error: ")
        assert message in line

    def test_table(self, folders, capsys):
        assert main(["inspect", str(folders / "int8")]) == 0
        output = capsys.readouterr().out
        assert "holds an INT8 model (tle_int8)" in output
        assert "model.layers.*.mlp.down_proj" in output

    def test_json(self, folders, capsys):
        assert main(["inspect", str(folders / "int8"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == inspect_checkpoint(folders / "int8").to_dict()


def test_several_files_without_an_index(folders, tmp_path):
    from safetensors.torch import load_file

    shutil.copy(folders / "float" / "config.json", tmp_path)
    tensors = list(load_file(folders / "float" / "model.safetensors").items())
    for i in (0, 1):
        save_file(dict(tensors[i::2]), tmp_path / f"part{i}.safetensors")
    assert comparable(inspect_checkpoint(tmp_path)) == comparable(inspect_checkpoint(folders / "float"))
