"""Trained models: what INT8 costs in text, perplexity and embeddings."""

import io
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import int8_layers
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from hf_tle_int8 import TLEInt8Config, accuracy
from hf_tle_int8.cli.demo_encoder import QUERIES, SENTENCES, Encoder
from hf_tle_int8.errors import InputValueError

WINDOW = 256


def windows_of(path: Path, tokenizer: object) -> Iterator[torch.Tensor]:
    with path.open(encoding="utf-8") as file:
        yield from accuracy.Windows(tokenizer, WINDOW).of(accuracy.blocks(file))


@pytest.fixture(scope="module")
def stories(stories_path):
    return {
        "tokenizer": AutoTokenizer.from_pretrained(stories_path),
        "float": AutoModelForCausalLM.from_pretrained(stories_path),
        "int8": AutoModelForCausalLM.from_pretrained(stories_path, quantization_config=TLEInt8Config()),
        "int8 head": AutoModelForCausalLM.from_pretrained(
            stories_path, quantization_config=TLEInt8Config(quantize_lm_head=True)
        ),
    }


@pytest.mark.parametrize("name", ["int8", "int8 head"])
def test_perplexity_and_distribution(stories, stories_path, name):
    windows = windows_of(stories_path / "eval.txt", stories["tokenizer"])
    found = accuracy.measure(windows, stories[name], stories["float"])
    assert 2 < found.reference_perplexity < 5
    assert found.perplexity == pytest.approx(found.reference_perplexity, rel=0.005)
    assert found.same_top1 > 0.95
    assert 0 < found.kl_divergence < 0.01


def test_perplexity_is_by_the_loss_of_the_model(stories, stories_path):
    ids = stories["tokenizer"]((stories_path / "eval.txt").read_text(), return_tensors="pt").input_ids[0]
    rows = ids[: 8 * WINDOW].reshape(-1, WINDOW)
    windows = itertools.islice(windows_of(stories_path / "eval.txt", stories["tokenizer"]), 8)
    found = accuracy.measure(windows, stories["float"])
    with torch.no_grad():
        losses = [stories["float"](row[None], labels=row[None]).loss.item() for row in rows]
    assert found.windows == len(rows) == 8
    assert found.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-6)
    assert found.kl_divergence is None


def fixed(logits: torch.Tensor):
    """A model that has the logits ``[length, vocabulary]`` for whatever it is given."""
    return lambda ids: SimpleNamespace(logits=logits[None])


def test_measures_are_those_of_their_definition():
    p, q = torch.randn(2, 40, 7, dtype=torch.float64).softmax(-1)
    ids = torch.randint(7, (40,))
    found = accuracy.measure([ids, ids], fixed(q.log()), fixed(p.log()))
    chosen = [each[:-1].gather(1, ids[1:, None]).log().mean().item() for each in (q, p)]
    assert (found.windows, found.window) == (2, 40)
    assert found.perplexity == pytest.approx(math.exp(-chosen[0]), rel=1e-6)
    assert found.reference_perplexity == pytest.approx(math.exp(-chosen[1]), rel=1e-6)
    assert found.kl_divergence == pytest.approx((p * (p / q).log()).sum(-1).mean().item(), rel=1e-5)
    assert found.same_top1 == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())
    assert 0 < found.same_top1 < 1


def test_what_cannot_be_measured_is_refused():
    ids, logits = torch.zeros(4, dtype=torch.long), torch.zeros(4, 7)
    with pytest.raises(InputValueError, match="no window"):
        accuracy.measure([], fixed(logits))
    with pytest.raises(InputValueError, match="7 and 8 tokens"):
        accuracy.measure([ids], fixed(logits), fixed(torch.zeros(4, 8)))
    with pytest.raises(InputValueError, match="NaN"):
        accuracy.measure([ids], fixed(logits / 0))


class Letters:
    """A tokenizer of letters, with 0 at the beginning of a text."""

    def __call__(self, text: str, add_special_tokens: bool, verbose: bool) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[0] * add_special_tokens + [ord(letter) for letter in text])


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_text_has_the_same_windows_in_blocks(size):
    text = "".join(f"line {number}\n" for number in range(40))
    pieces = list(accuracy.blocks(io.StringIO(text), size))
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") or len(piece) <= 2 * size for piece in pieces)
    windows = accuracy.Windows(Letters(), 7)
    found = torch.cat(list(windows.of(pieces))).tolist()
    assert windows.tokens == len(text) + 1
    assert found == [0, *map(ord, text)][: windows.tokens // 7 * 7]


@pytest.mark.parametrize("prompt", ["Once upon a time", "One day, a little girl named Lily"])
def test_greedy_text_begins_as_the_float_models(stories, prompt):
    inputs = stories["tokenizer"](prompt, return_tensors="pt")
    length = inputs.input_ids.shape[1] + 24
    texts = [stories[name].generate(**inputs, max_new_tokens=24, do_sample=False)[0] for name in ("float", "int8")]
    assert torch.equal(texts[0][:length], texts[1][:length])


def test_a_text_does_not_depend_on_its_batch(stories):
    tokenizer, model = stories["tokenizer"], stories["int8"]
    ids = tokenizer("Once upon a time, there was a little girl", return_tensors="pt").input_ids
    other = torch.randint(3, 500, ids.shape)
    layer = next(iter(int8_layers(model).values()))
    hidden = model.model.embed_tokens(torch.cat([ids, other]))
    assert torch.equal(layer(hidden)[0], layer(model.model.embed_tokens(ids))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_minilm_embeddings(minilm_path, dtype):
    tokenizer = AutoTokenizer.from_pretrained(minilm_path)
    embeddings = [
        Encoder(tokenizer, AutoModel.from_pretrained(minilm_path, dtype=dtype, **options)).embed(SENTENCES + QUERIES)
        for options in ({}, {"quantization_config": TLEInt8Config()})
    ]
    cosine = (embeddings[0] * embeddings[1]).sum(1)
    assert cosine.min() >= 0.99
