"""Trained models: what INT8 costs in text, perplexity and embeddings."""

import math

import pytest
import torch
from support import int8_layers
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from hf_tle_int8 import TLEInt8Config
from hf_tle_int8.cli.demo_encoder import QUERIES, SENTENCES, Encoder

WINDOW = 256


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


def perplexity(model, ids: torch.Tensor) -> float:
    windows = ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW)
    with torch.no_grad():
        return math.exp(sum(model(row[None], labels=row[None]).loss.item() for row in windows) / len(windows))


@pytest.mark.parametrize("name", ["int8", "int8 head"])
def test_perplexity(stories, stories_path, name):
    ids = stories["tokenizer"]((stories_path / "eval.txt").read_text(), return_tensors="pt").input_ids[0]
    reference = perplexity(stories["float"], ids)
    assert 2 < reference < 5
    assert perplexity(stories[name], ids) == pytest.approx(reference, rel=0.005)


@pytest.mark.parametrize("name", ["int8", "int8 head"])
def test_next_token_and_distribution(stories, stories_path, name):
    ids = stories["tokenizer"]((stories_path / "eval.txt").read_text(), return_tensors="pt").input_ids[0]
    windows = ids[: 16 * WINDOW].reshape(-1, WINDOW)
    with torch.no_grad():
        reference, int8 = (stories[which](windows).logits.log_softmax(-1) for which in ("float", name))
    assert (reference.argmax(-1) == int8.argmax(-1)).float().mean() > 0.95
    assert (reference.exp() * (reference - int8)).sum(-1).mean() < 0.01


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
