"""Small mixtures of experts, one of each layout, and what their INT8 experts compute, token by token."""

from pathlib import Path

import numpy as np
import torch
from support import numpy_linear
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    NemotronHConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
)

from hf_tle_int8.nn import TLEInt8Experts

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
COMMON = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False}
COMMON |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
DEEPSEEK = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
DEEPSEEK |= {"n_group": 2, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
DEEPSEEK |= {"num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2}
ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
NEMOTRON = {"layers_block_type": ["moe", "attention"], "n_routed_experts": 4, "num_experts_per_tok": 2}
NEMOTRON |= {"head_dim": 12, "moe_shared_expert_intermediate_size": 32, "n_group": 1, "topk_group": 1}


def moe_config(kind: str) -> PreTrainedConfig:
    """Of a model of two layers.

    Args:
        kind: ``qwen`` and ``mixtral`` (files by expert), ``deepseek`` (a dense layer, shared experts), ``gpt_oss``
            (``[E, K, N]``, gate and up interleaved, biases, files of all experts), ``nemotron`` (no gate).
    """
    if kind == "qwen":
        return Qwen3MoeConfig(
            **COMMON, head_dim=12, intermediate_size=64, moe_intermediate_size=36, num_experts=6, num_experts_per_tok=3
        )
    if kind == "mixtral":
        return MixtralConfig(**COMMON, intermediate_size=40, num_local_experts=4)
    if kind == "deepseek":
        return DeepseekV3Config(**{**COMMON, **DEEPSEEK}, intermediate_size=64, moe_intermediate_size=32)
    if kind == "nemotron":
        return NemotronHConfig(**{**COMMON, **NEMOTRON}, intermediate_size=32, moe_intermediate_size=32)
    return GptOssConfig(
        **COMMON, head_dim=12, intermediate_size=36, num_local_experts=4, num_experts_per_tok=2, rope_parameters=ROPE
    )


def float_moe(kind: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(moe_config(kind)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # As large as those of trained models, so that errors show, and routing that no rounding changes.
            parameter.normal_(std=0.2 if parameter.ndim == 3 else 1.0 if parameter.ndim == 2 else 0.1)
    return model.to(dtype)


def save_moe(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Path:
    float_moe(kind, dtype).save_pretrained(folder)
    return folder


def expert_layers(model: nn.Module) -> dict[str, TLEInt8Experts]:
    return {name: module for name, module in model.named_modules() if isinstance(module, TLEInt8Experts)}


def routing(tokens: int, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    index = torch.stack([torch.randperm(experts)[:top_k] for _ in range(tokens)])
    return index, torch.rand(tokens, top_k)


def expected_experts(layer: TLEInt8Experts, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """The oracle: each token alone through each of its experts, with int64 products; fp32 ``[T, H]``."""
    first, last = layer.projections
    state = layer.state_dict()

    def linear(name: str, row: Tensor, expert: int) -> Tensor:
        bias = state.get(f"{name}_bias")
        y = numpy_linear(
            row, state[name][expert], state[f"{name}_scale"][expert], None if bias is None else bias[expert]
        )
        return torch.from_numpy(np.asarray(y)).to(x.dtype)

    rows = []
    for token in range(len(x)):
        total = torch.zeros(1, layer.projections[last][1])
        for expert, weight in zip(index[token].tolist(), weights[token].float(), strict=True):
            y = linear(first, x[token : token + 1], expert)
            y = layer.source_cls._apply_gate(layer, y) if layer.has_gate else layer.act_fn(y)
            total += linear(last, y, expert).float() * weight
        rows.append(total)
    return torch.cat(rows)
