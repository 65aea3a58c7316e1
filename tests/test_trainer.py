"""transformers' Trainer: adapters on an INT8 model train, checkpoint and resume; the INT8 model alone is refused."""

import shutil

import peft
import pytest
import torch
from support import int8_layers, save_tiny_llama
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from hf_tle_int8 import TLEInt8Config, quantize_and_replace_linears

ROWS = [{"input_ids": ids, "labels": ids} for ids in (torch.arange(8) * step % 96 for step in range(1, 9))]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config())


def trainer(model, folder, **options):
    common = {"use_cpu": True, "max_steps": 4, "save_steps": 2, "logging_steps": 1, "learning_rate": 0.01}
    arguments = TrainingArguments(folder, per_device_train_batch_size=4, report_to=[], **common, **options)
    return Trainer(model, arguments, train_dataset=ROWS)


def run(path, folder, resume=False, **options):
    """The losses of a run, and the trained tensors."""
    torch.manual_seed(0)
    model = peft.get_peft_model(load(path), peft.LoraConfig(target_modules="all-linear"))
    training = trainer(model, folder, **options)
    training.train(resume_from_checkpoint=resume)
    losses = [entry["loss"] for entry in training.state.log_history if "loss" in entry]
    return losses, {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def test_checkpoints_and_resumes_to_the_same_bits(llama, tmp_path):
    losses, trained = run(llama, tmp_path)
    assert losses[-1] < losses[0]
    assert {file.name for file in (tmp_path / "checkpoint-2").iterdir()} >= {"adapter_model.safetensors"}
    shutil.rmtree(tmp_path / "checkpoint-4")
    again, resumed = run(llama, tmp_path, resume=True)
    assert again == losses
    assert all(torch.equal(tensor, trained[name]) for name, tensor in resumed.items())


def test_gradient_checkpointing_takes_the_same_steps(llama, tmp_path):
    assert run(llama, tmp_path, gradient_checkpointing=True)[0] == run(llama, tmp_path)[0]


def test_bfloat16_autocast(llama, tmp_path):
    expected = run(llama, tmp_path)[0]
    assert run(llama, tmp_path, bf16=True)[0] == pytest.approx(expected, rel=0.01)


def test_training_the_int8_model_itself_is_refused(llama, tmp_path):
    converted = AutoModelForCausalLM.from_pretrained(llama)
    quantize_and_replace_linears(converted, skip=["lm_head"])
    for model in (load(llama), converted):
        with pytest.raises(ValueError, match="fine-tuning on purely quantized models.*attach trainable adapters"):
            trainer(model, tmp_path)


def test_a_dequantized_model_trains(llama, tmp_path):
    model = load(llama)
    model.dequantize()
    training = trainer(model, tmp_path)
    training.train()
    assert not int8_layers(model)
    losses = [entry["loss"] for entry in training.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
