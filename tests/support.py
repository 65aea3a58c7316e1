"""What several tests share: a second, independent statement of the arithmetic, and small models."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from hf_tle_int8 import TLEInt8Linear

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def numpy_quantize_weight(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    w = weight.detach().float().numpy()
    scale = np.maximum(np.abs(w).max(1, keepdims=True), np.float32(1e-8)) / np.float32(127)
    return np.clip(np.rint(w / scale), -128, 127).astype(np.int8), scale


def numpy_quantize_activation(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows = x.detach().float().numpy()
    absmax = np.maximum(np.abs(rows).max(1, keepdims=True), np.float32(1e-8))
    codes = np.clip(np.rint(rows * (np.float32(127) / absmax)), -127, 127).astype(np.int8)
    return codes, absmax / np.float32(127)


def int64_product(q_x: Tensor, q_w: Tensor) -> Tensor:
    return q_x.long() @ q_w.long().T


def numpy_linear(x: Tensor, q_w: Tensor, scale_w: Tensor, bias: Tensor | None) -> np.ndarray:
    """The INT8 linear with an int64 product and the fp32 epilogue, one rounding an operation: fp32 ``[M, N]``."""
    q_x, scale_x = numpy_quantize_activation(x)
    product = q_x.astype(np.int64) @ q_w.numpy().astype(np.int64).T
    y = product.astype(np.float32) * (scale_x * scale_w.numpy().reshape(1, -1))
    return y if bias is None else y + bias.float().numpy()


def int8_layers(model: nn.Module) -> dict[str, TLEInt8Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, TLEInt8Linear)}


def tiny_llama_config(**options: object) -> LlamaConfig:
    sizes = {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 2, "vocab_size": 96}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "tie_word_embeddings": False}
    return LlamaConfig(**{**sizes, **heads, "max_position_embeddings": 64, **options})


def save_tiny_llama(folder: Path, dtype: torch.dtype = torch.float32, **options: object) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_llama_config(**options)).to(dtype)
    model.save_pretrained(folder)
    return folder


def logits(model: PreTrainedModel, length: int = 17) -> Tensor:
    ids = torch.arange(2 * length).reshape(2, length) % model.config.vocab_size
    with torch.no_grad():
        output = model(ids)
    return getattr(output, "logits", getattr(output, "last_hidden_state", None))


def assert_same(actual: PreTrainedModel, expected: PreTrainedModel) -> None:
    """Equal tensors of the state dict, dtypes included, and equal logits."""
    states = actual.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert tensor.dtype == states[1][name].dtype, name
        assert torch.equal(tensor, states[1][name]), name
    assert torch.equal(logits(actual), logits(expected))


def edit_checkpoint(folder: Path, edit) -> None:
    """Rewrite the one safetensors file of ``folder`` after ``edit(tensors)`` changed its dictionary in place."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
