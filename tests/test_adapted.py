"""Adapters where layers change beneath them: Conv1D, mixtures of experts, models converted or dequantized in memory."""

import peft
import pytest
import torch
from moe_support import expert_layers, save_moe
from support import int8_layers, logits, save_tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config
from transformers.pytorch_utils import Conv1D

from hf_tle_int8 import TLEInt8Config, quantize_and_replace_linears
from hf_tle_int8.errors import AdapterError

TARGETS = ["q_proj", "down_proj"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    sizes = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128, "num_hidden_layers": 1}
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), **sizes)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=100, n_positions=64, initializer_range=0.3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder := tmp_path_factory.mktemp("gpt2"))
    return folder


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    return save_moe(tmp_path_factory.mktemp("moe"), "qwen")


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(), **options)


def adapted(model, config):
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return wrapped.eval()


def distance(output, expected):
    return (output - expected).norm() / expected.norm()


CONV1D = {
    "lora": peft.LoraConfig(target_modules=["c_attn", "c_proj"]),
    "adalora": peft.AdaLoraConfig(target_modules=["c_attn", "c_proj"], total_step=10),
    "fourierft": peft.FourierFTConfig(target_modules=["c_attn", "c_proj"], n_frequency=16, scaling=10.0),
    "gralora": peft.GraloraConfig(target_modules=["c_attn", "c_proj"], r=4, gralora_k=2),
    "ia3": peft.IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"]),
    "pvera": peft.PveraConfig(target_modules=["attn.c_proj"]),
    "randlora": peft.RandLoraConfig(target_modules=["c_attn", "c_proj"]),
    "vera": peft.VeraConfig(target_modules=["c_attn", "c_proj"]),
    "waveft": peft.WaveFTConfig(target_modules=["c_attn", "c_proj"], n_frequency=16),
}


@pytest.mark.parametrize("config", CONV1D.values(), ids=CONV1D)
def test_adapters_on_conv1d_merge_once_it_is_float(gpt2, config):
    wrapped = adapted(load(gpt2), config)
    wrapped.get_base_model().dequantize()
    expected = logits(wrapped)
    with wrapped.disable_adapter():
        assert distance(logits(wrapped), expected) > 1e-3
    merged = wrapped.merge_and_unload()
    assert isinstance(merged.transformer.h[0].attn.c_proj, Conv1D)
    assert distance(logits(merged), expected) < 1e-4


UNKNOWING = {
    "loha": peft.LoHaConfig(target_modules=["attn.c_proj"]),
    "oft": peft.OFTConfig(target_modules=["attn.c_proj"], oft_block_size=8),
    "road": peft.RoadConfig(target_modules=["attn.c_proj"], group_size=16),
}


@pytest.mark.parametrize("config", UNKNOWING.values(), ids=UNKNOWING)
def test_methods_that_do_not_know_conv1d_keep_it_int8(gpt2, config):
    wrapped = adapted(load(gpt2), config)
    expected, count = logits(wrapped), len(int8_layers(wrapped))
    with pytest.raises(AdapterError, match=r"adapts 1 layers that are Conv1D in float.*unload\(\) the adapter"):
        wrapped.get_base_model().dequantize()
    assert len(int8_layers(wrapped)) == count
    assert torch.equal(logits(wrapped), expected)


READERS = {
    "dora": peft.LoraConfig(target_modules=TARGETS, use_dora=True),
    "a parameter": peft.LoraConfig(target_modules=[], target_parameters=["q_proj.weight", "down_proj.weight"]),
    "hra": peft.HRAConfig(target_modules=TARGETS),
    "shira": peft.ShiraConfig(target_modules=TARGETS),
}


@pytest.mark.parametrize("config", READERS.values(), ids=READERS)
def test_what_adapters_compute_with_stays_in_float(llama, config):
    wrapped = adapted(AutoModelForCausalLM.from_pretrained(llama), config)
    expected = logits(wrapped)
    assert quantize_and_replace_linears(wrapped, skip=["lm_head"]) == 5
    assert not any(name.endswith("base_layer") for name in int8_layers(wrapped))
    assert distance(logits(wrapped), expected) < 0.02


def test_trained_copies_stay_in_float(llama):
    config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["o_proj"])
    wrapped = adapted(AutoModelForCausalLM.from_pretrained(llama), config)
    copies = wrapped.get_base_model().model.layers[0].self_attn.o_proj
    expected = copies.modules_to_save["default"].weight.clone()
    quantize_and_replace_linears(wrapped, skip=["lm_head"])
    assert type(copies.modules_to_save["default"]) is nn.Linear
    assert torch.equal(copies.modules_to_save["default"].weight, expected)


def test_adapters_keep_their_dtype(llama):
    wrapped = adapted(load(llama, dtype=torch.bfloat16), peft.LoraConfig(target_modules=TARGETS))
    before = {name: tensor.clone() for name, tensor in wrapped.state_dict().items() if "lora_" in name}
    wrapped.get_base_model().dequantize()
    assert all(tensor.dtype == torch.float32 for tensor in before.values())
    assert all(torch.equal(wrapped.state_dict()[name], tensor) for name, tensor in before.items())


def test_layers_beside_adapted_ones_share_among_themselves(llama):
    """A layer that waits for one that is called from elsewhere would hold its input under torch.compile."""
    model = load(llama)
    attention = model.model.layers[0].self_attn
    assert attention.k_proj._reader is not None
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert attention.k_proj._reader is None
    assert model.model.layers[0].mlp.gate_proj._reader.of.everyone == 0b11
    wrapped.unload()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": "all-linear"}, "target_parameters=.*target_modules that name no experts"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["mlp"]}, "modules_to_save='mlp' trains copies"),
    ],
)
def test_what_would_adapt_int8_experts_is_refused(moe, options, message):
    model = AutoModelForCausalLM.from_pretrained(moe, quantization_config=TLEInt8Config(modules_to_convert=["experts"]))
    expected = logits(model)
    with pytest.raises(AdapterError, match=message):
        peft.get_peft_model(model, peft.LoraConfig(**options))
    assert len(expert_layers(model)) == 2
    assert torch.equal(logits(model), expected)


def test_the_error_of_experts_names_them_and_what_to_do(moe):
    model = AutoModelForCausalLM.from_pretrained(moe, quantization_config=TLEInt8Config())
    remedy = (
        r"adapts model\.layers\.0\.mlp\.experts\.down_proj.*modules_to_not_convert=\['model.layers.0.mlp.experts'\]"
    )
    with pytest.raises(AdapterError, match=rf"target_parameters=\['experts.down_proj'\] {remedy}"):
        peft.get_peft_model(model, peft.LoraConfig(target_modules=[], target_parameters=["experts.down_proj"]))


def test_float_experts_beside_int8_layers_are_adapted(moe):
    config = TLEInt8Config(modules_to_not_convert=["experts"])
    model = AutoModelForCausalLM.from_pretrained(moe, quantization_config=config)
    plain = logits(model)
    wrapped = adapted(model, peft.LoraConfig(target_modules=[], target_parameters=["mlp.experts.gate_up_proj"]))
    output = logits(wrapped)
    assert not torch.equal(output, plain)
    wrapped(input_ids=torch.arange(9)[None]).logits.square().mean().backward()
    assert all(p.grad is not None for p in wrapped.parameters() if p.requires_grad)


def test_experts_that_an_adapter_changes_stay_in_float(moe):
    config = peft.LoraConfig(target_modules=[], target_parameters=["mlp.experts.gate_up_proj"])
    wrapped = adapted(AutoModelForCausalLM.from_pretrained(moe), config)
    expected = logits(wrapped)
    quantize_and_replace_linears(wrapped, skip=["lm_head"])
    assert not expert_layers(wrapped)
    assert distance(logits(wrapped), expected) < 0.05
