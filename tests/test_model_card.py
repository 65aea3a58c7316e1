"""README.md of an INT8 checkpoint: written where there is none, never over one."""

from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError
from support import save_tiny_llama
from transformers import AutoModelForCausalLM
from transformers.utils import hub

from hf_tle_int8 import TLEInt8Config, quantize_and_replace_linears, save_compressed_tensors


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


@pytest.fixture
def model(path):
    """As if it had been loaded from the Hub."""
    loaded = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())
    loaded.config.name_or_path = "someone/tiny-llama"
    return loaded


def test_metadata_and_instructions(model, tmp_path):
    model.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    data = card.data.to_dict()
    assert data["base_model"] == "someone/tiny-llama"
    assert data["base_model_relation"] == "quantized"
    assert data["library_name"] == "transformers"
    assert {"int8", "w8a8"} <= set(data["tags"])
    assert "import hf_tle_int8" in card.text
    assert "LlamaForCausalLM.from_pretrained(" in card.text
    assert "7 linear layers" in card.text


def test_the_instructions_run(model, tmp_path):
    model.save_pretrained(tmp_path)
    code = ModelCard.load(tmp_path / "README.md").text.split("```python\n")[1].split("```")[0]
    namespace: dict[str, object] = {}
    exec(code.replace("the name or folder of this model", str(tmp_path)), namespace)
    assert type(namespace["model"]).__name__ == "LlamaForCausalLM"


def test_a_card_that_is_there_stays(model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "no/hub/name", "gone folder/x"])
def test_no_base_model_where_none_is_known(model, tmp_path, name):
    model.config.name_or_path = name
    model.save_pretrained(tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert "base_model" not in data
    assert "base_model_relation" not in data


def test_a_local_original_has_no_name(path, tmp_path):
    loaded = AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())
    loaded.save_pretrained(tmp_path)
    assert ModelCard.load(tmp_path / "README.md").data.base_model is None


def test_the_base_model_survives_generations(model, tmp_path):
    model.save_pretrained(tmp_path / "first")
    AutoModelForCausalLM.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    assert ModelCard.load(tmp_path / "second" / "README.md").data.base_model == "someone/tiny-llama"


def test_an_int8_checkpoint_is_no_base_of_itself(model, tmp_path):
    model.save_pretrained(tmp_path / "first")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    again.config.name_or_path = "someone/tiny-llama-int8"
    again.save_pretrained(tmp_path / "second")
    assert ModelCard.load(tmp_path / "second" / "README.md").data.base_model is None


def test_a_model_that_was_converted_in_memory(path, tmp_path):
    loaded = AutoModelForCausalLM.from_pretrained(path)
    loaded.config.name_or_path = "someone/tiny-llama"
    quantize_and_replace_linears(loaded)
    loaded.save_pretrained(tmp_path)
    assert ModelCard.load(tmp_path / "README.md").data.base_model == "someone/tiny-llama"


def test_a_part_of_a_model(model, tmp_path):
    model.model.save_pretrained(tmp_path)
    assert "LlamaModel.from_pretrained(" in ModelCard.load(tmp_path / "README.md").text
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)).__name__ == "LlamaForCausalLM"


def test_float_models_get_none(path, model, tmp_path):
    AutoModelForCausalLM.from_pretrained(path).save_pretrained(tmp_path / "float")
    model.dequantize().save_pretrained(tmp_path / "dequantized")
    assert not list(tmp_path.rglob("README.md"))


def test_a_rank_that_does_not_save_writes_none(model, tmp_path):
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "README.md").exists()


def test_compressed_tensors(model, tmp_path):
    save_compressed_tensors(model, tmp_path)
    text = ModelCard.load(tmp_path / "README.md").text
    assert "quantization_config=hf_tle_int8.TLEInt8Config()" in text
    assert "compressed-tensors package" in text


class TestHub:
    """``push_to_hub`` up to the commit, of which the README.md is kept."""

    @pytest.fixture
    def pushed(self, monkeypatch):
        cards: list[str] = []

        def create_commit(operations, **_):
            (card,) = (o.path_or_fileobj for o in operations if o.path_in_repo == "README.md")
            with open(card) as file:
                cards.append(file.read())

        api = SimpleNamespace(create_repo=lambda name, **_: SimpleNamespace(repo_id=name), create_commit=create_commit)
        monkeypatch.setattr(hub, "hf_api", lambda *_: api)
        monkeypatch.setattr("transformers.modeling_utils.hf_api", lambda *_: api)
        return cards

    @staticmethod
    def push(model, how, folder):
        if how == "push_to_hub":
            model.push_to_hub("me/tiny-int8", tags=["story"])
        else:
            model.save_pretrained(folder, push_to_hub=True, repo_id="me/tiny-int8")

    @pytest.fixture(params=["push_to_hub", "save_pretrained"])
    def how(self, request):
        return request.param

    def test_a_new_repository_gets_ours(self, model, pushed, how, tmp_path, monkeypatch):
        def missing(*_, **__):
            raise EntryNotFoundError("no README.md", SimpleNamespace(headers={}, request=None))

        load = ModelCard.load
        monkeypatch.setattr(
            ModelCard, "load", lambda name, **options: missing() if name == "me/tiny-int8" else load(name, **options)
        )
        self.push(model, how, tmp_path)
        data = ModelCard(pushed[0]).data
        assert data.base_model == "someone/tiny-llama"
        assert "import hf_tle_int8" in pushed[0]
        assert ("story" in data.tags) == (how == "push_to_hub")

    def test_the_card_of_a_repository_stays(self, model, pushed, how, tmp_path, monkeypatch):
        monkeypatch.setattr(ModelCard, "load", lambda *_, **__: ModelCard("---\nlicense: mit\n---\ntheirs"))
        self.push(model, how, tmp_path)
        assert "theirs" in pushed[0]
        assert "hf_tle_int8" not in pushed[0]
