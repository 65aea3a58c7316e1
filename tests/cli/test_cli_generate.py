import json
import shutil
import signal

import pytest
import torch
from support import edit_checkpoint, edit_config, save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, LlamaConfig, T5Config

from hf_tle_int8.cli import causal, generation
from hf_tle_int8.cli.main import build_parser, main

PROMPT = "Once upon a time"


def answer(capsys, path, *options: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["generate", str(path), "--prompt", PROMPT, "--max-new-tokens", "20", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def generator(stories_path, *options: str) -> generation.Generator:
    arguments = build_parser().parse_args(["generate", str(stories_path), "--prompt", PROMPT, *options])
    checkpoint = causal.find(arguments.model)
    return generation.Generator(checkpoint, checkpoint.load(), causal.load_tokenizer(arguments.model), arguments)


def expected(model, tokenizer) -> str:
    inputs = tokenizer(PROMPT, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    return tokenizer.decode(output[0], skip_special_tokens=True)


def test_the_text_is_that_of_the_model(stories_path, int8_path, capsys):
    assert main(["generate", str(stories_path), "--prompt", PROMPT, "--max-new-tokens", "20"]) == 0
    printed = capsys.readouterr()
    int8 = AutoModelForCausalLM.from_pretrained(int8_path)
    assert printed.out == expected(int8, AutoTokenizer.from_pretrained(int8_path)) + "\n"
    assert "20 new tokens]" in printed.err
    assert printed.err.count("tokens/s") == 2


def test_json_of_float_and_int8_checkpoints(stories_path, int8_path, capsys):
    found, saved = answer(capsys, stories_path), answer(capsys, int8_path)
    assert found["text"] == saved["text"]
    assert PROMPT not in found["text"]
    assert (found["new_tokens"], found["stopped"]) == (20, False)
    tokens = len(AutoTokenizer.from_pretrained(stories_path)(PROMPT).input_ids)
    assert found["prompt_tokens"] == found["prefill_tokens"] == tokens
    assert found["decode_tokens_per_second"] == pytest.approx(19 / found["decode_seconds"])
    assert found["prefill_tokens_per_second"] == pytest.approx(tokens / found["prefill_seconds"])


def test_an_int8_checkpoint_in_float_is_dequantized(stories_path, int8_path):
    checkpoint = causal.find(str(int8_path))
    assert checkpoint.quantized
    assert not causal.find(str(stories_path)).quantized
    model = checkpoint.load("bfloat16", int8=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    floats = causal.find(str(stories_path)).load(int8=False)
    assert {parameter.dtype for parameter in floats.parameters()} == {torch.float32}


def test_a_seed_repeats_a_sample(stories_path, capsys):
    sampled = [answer(capsys, stories_path, "--temperature", "1.2", "--seed", seed)["text"] for seed in "112"]
    assert sampled[0] == sampled[1] != sampled[2]


def test_ctrl_c_ends_the_text_and_is_given_back(stories_path):
    before, pieces = signal.getsignal(signal.SIGINT), []

    def write(text: str) -> None:
        pieces.append(text)
        if len(pieces) == 5:
            signal.raise_signal(signal.SIGINT)

    long = generator(stories_path, "--max-new-tokens", "200")
    found = long(long.tokenizer(PROMPT, return_tensors="pt").input_ids, write)
    assert found.stopped
    assert found.new_tokens == 6  # the prompt is skipped, and the token at hand comes to its end
    assert ", stopped]" in found.summary()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_text_ends_where_positions_do(stories_path):
    long = generator(stories_path)
    long.model.generation_config.eos_token_id = None
    found = long(torch.full((1, 500), 5), lambda _: None)
    assert found.new_tokens == 12


def test_what_a_longer_prompt_shares_is_computed_once(stories_path):
    kept, fresh = (generator(stories_path, "--max-new-tokens", "8") for _ in range(2))
    first = kept.tokenizer(PROMPT, return_tensors="pt").input_ids
    kept(first, lambda _: None)
    cached = kept._cached
    assert cached.shape[1] == first.shape[1] + 7
    longer = torch.cat([cached, torch.tensor([[50, 60, 70]])], dim=1)
    again, whole = kept(longer, lambda _: None), fresh(longer, lambda _: None)
    assert (again.prefill_tokens, whole.prefill_tokens) == (3, longer.shape[1])
    assert again.text == whole.text
    other = kept(first, lambda _: None)
    assert other.prefill_tokens == first.shape[1]


@pytest.fixture(scope="module")
def refused(stories_path, tmp_path_factory):
    """Folders that cannot generate, by name."""
    root = tmp_path_factory.mktemp("refused")
    BertConfig(architectures=["BertModel"]).save_pretrained(root / "encoder")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=100, **sizes)).save_pretrained(root / "whole encoder")
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(root / "translator")
    save_tiny_llama(root / "no tokenizer")
    save_tiny_llama(root / "other method", vocab_size=512)
    AutoTokenizer.from_pretrained(stories_path).save_pretrained(root / "other method")
    edit_config(root / "other method", quantization_config={"quant_method": "fp8"})
    save_tiny_llama(root / "no weights", vocab_size=512)
    AutoTokenizer.from_pretrained(stories_path).save_pretrained(root / "no weights")
    (root / "no weights" / "model.safetensors").unlink()
    save_tiny_llama(root / "damaged", vocab_size=512)
    AutoTokenizer.from_pretrained(stories_path).save_pretrained(root / "damaged")
    (root / "damaged" / "model.safetensors").write_bytes(b"0" * 100)
    save_tiny_llama(root / "other tokenizer")
    AutoTokenizer.from_pretrained(stories_path).save_pretrained(root / "other tokenizer")
    save_tiny_llama(root / "other sizes", vocab_size=512)
    AutoTokenizer.from_pretrained(stories_path).save_pretrained(root / "other sizes")
    edit_config(root / "other sizes", intermediate_size=64)
    save_tiny_llama(root / "incomplete", vocab_size=512)
    AutoTokenizer.from_pretrained(stories_path).save_pretrained(root / "incomplete")
    edit_checkpoint(root / "incomplete", lambda tensors: tensors.pop("model.norm.weight"))
    shutil.copytree(stories_path, root / "damaged tokenizer")
    (root / "damaged tokenizer" / "tokenizer_config.json").write_text('{"model_max_length": "long"}')
    for name, change in {"text for a size": {"hidden_size": "x"}, "no heads": {"num_attention_heads": 0}}.items():
        LlamaConfig().save_pretrained(root / name)
        edit_config(root / name, **change)
    (root / "empty").mkdir()
    (root / "file").write_text("")
    return root


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("encoder", "no causal language model"),
        ("whole encoder", "no causal language model"),
        ("translator", "no causal language model"),
        ("no tokenizer", "has no tokenizer"),
        ("damaged tokenizer", "has no tokenizer that can be read"),
        ("other method", "quant_method='fp8'"),
        ("other tokenizer", "a vocabulary of 96"),
        ("no weights", "cannot be loaded"),
        ("damaged", "cannot be loaded"),
        ("incomplete", "lacks model.norm.weight: transformers would initialize that at random"),
        ("other sizes", "cannot be loaded: RuntimeError: "),
        ("text for a size", "'hidden_size' expected int"),
        ("no heads", "cannot be loaded: ZeroDivisionError: "),
        ("empty", "cannot be loaded"),
        ("file", "is no folder"),
        ("absent/or/elsewhere", "is no folder"),
    ],
)
def test_what_cannot_generate_is_told_in_one_line(refused, folder, reason, capsys):
    assert main(["generate", str(refused / folder), "--prompt", PROMPT]) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("hf-tle-int8: error: ")]
    assert len(lines) == 1
    assert reason in lines[0]
    assert printed.err.splitlines()[-1] == lines[0]
    assert printed.out == ""


def test_names_that_nobody_has_are_told_in_one_line(capsys):
    assert main(["generate", "nobody/nothing", "--prompt", PROMPT]) == 2
    wanted = "hf-tle-int8: error: nobody/nothing is no folder here. From the Hub: nobody/nothing cannot be loaded: "
    assert capsys.readouterr().err.startswith(wanted)


def test_bytes_that_are_no_text_are_refused(stories_path, capsys):
    assert main(["generate", str(stories_path), "--prompt", "\udcff"]) == 2
    assert "is no text in UTF-8" in capsys.readouterr().err


def test_an_end_that_is_no_token_is_refused(stories_path, tmp_path, capsys):
    shutil.copytree(stories_path, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    assert main(["generate", str(tmp_path / "model"), "--prompt", PROMPT]) == 2
    assert "eos_token_id='</s>'" in capsys.readouterr().err


def test_prompts_that_leave_no_room_are_refused(stories_path, capsys):
    assert main(["generate", str(stories_path), "--prompt", "word " * 600]) == 2
    error = capsys.readouterr().err
    assert "has positions for 512" in error
    assert "shorten" in error


@pytest.mark.parametrize(
    "option",
    [
        ["--temperature", "-1"],
        ["--temperature", "nan"],
        ["--temperature", "1e-300"],
        ["--max-new-tokens", "0"],
        ["--seed", str(2**63)],
        ["--threads", "100000"],
    ],
)
def test_senseless_options_are_refused(stories_path, option, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["generate", str(stories_path), "--prompt", PROMPT, *option])
    assert stop.value.code == 2
    assert option[1] in capsys.readouterr().err
