"""Ways to generate from an INT8 model: all give the tokens that greedy decoding of one prompt gives."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_tle_int8 import TLEInt8Config

PROMPTS = ["Once upon a time", "The little dog ran to the big tree and", "Lily"]


@pytest.fixture(scope="module")
def stories(stories_path):
    model = AutoModelForCausalLM.from_pretrained(stories_path, quantization_config=TLEInt8Config())
    tokenizer = AutoTokenizer.from_pretrained(stories_path)
    return model, [tokenizer(prompt, return_tensors="pt").input_ids for prompt in PROMPTS]


def generate(model, ids, **options):
    common = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
    mask = options.pop("attention_mask", torch.ones_like(ids))
    return model.generate(ids, attention_mask=mask, **{**common, **options})[:, ids.shape[1] :]


def left_padded(prompts):
    length = max(ids.shape[1] for ids in prompts)
    pads = [length - ids.shape[1] for ids in prompts]
    ids = torch.cat([torch.nn.functional.pad(ids, (n, 0)) for ids, n in zip(prompts, pads, strict=True)])
    return ids, torch.arange(length) >= torch.tensor(pads)[:, None]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str)
def test_left_padded_batches_give_the_tokens_of_single_prompts(stories, options):
    model, prompts = stories
    ids, mask = left_padded(prompts)
    batch = generate(model, ids, attention_mask=mask.long(), **options)
    for row, prompt in zip(batch, prompts, strict=True):
        alone = generate(model, prompt, **options)[0]
        assert torch.equal(row[: len(alone)], alone)


def test_beams_find_what_is_at_least_as_likely(stories):
    model, prompts = stories

    def log_likelihood(prompt, tokens):
        with torch.no_grad():
            logits = model(torch.cat([prompt, tokens], 1)).logits[:, prompt.shape[1] - 1 : -1]
        return logits.log_softmax(-1).gather(2, tokens[..., None]).sum()

    found = [generate(model, prompts[1], num_beams=beams, length_penalty=0.0) for beams in (1, 4)]
    greedy, beams = (log_likelihood(prompts[1], tokens) for tokens in found)
    assert beams >= greedy


@pytest.mark.parametrize("prompt", range(len(PROMPTS)))
def test_assistants_and_prompt_lookup_change_no_token(stories, stories_path, prompt):
    model, prompts = stories
    expected = generate(model, prompts[prompt])
    assistants = {
        "the float model": AutoModelForCausalLM.from_pretrained(stories_path),
        "an INT8 model": AutoModelForCausalLM.from_pretrained(stories_path, quantization_config=TLEInt8Config()),
    }
    for assistant in assistants.values():
        assert torch.equal(generate(model, prompts[prompt], assistant_model=assistant), expected)
    assert torch.equal(generate(model, prompts[prompt], prompt_lookup_num_tokens=4), expected)
    assert torch.equal(generate(model, prompts[prompt], cache_implementation="static"), expected)
    assert torch.equal(generate(model, prompts[prompt], use_cache=False), expected)
