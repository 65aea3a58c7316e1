"""torch's ``nn.Linear`` in bf16, to which all are compared, and in fp32."""

import torch
from torch import Tensor

from hf_tle_int8.bench.layer import Layer, Peer, float_linear


def _build_bf16(weight: Tensor) -> Layer:
    return Layer(float_linear(weight, torch.bfloat16), 2 * weight.numel(), torch.Tensor.bfloat16)


def _build_fp32(weight: Tensor) -> Layer:
    return Layer(float_linear(weight, torch.float32), 4 * weight.numel())


BF16 = Peer("torch bf16", _build_bf16)
FP32 = Peer("torch fp32", _build_fp32)
