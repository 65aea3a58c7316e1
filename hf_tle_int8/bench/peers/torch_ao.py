"""torchao's int8 weights and dynamic int8 activations, bf16 in and out: eager, and compiled with frozen weights."""

import torch
from torch import Tensor

from hf_tle_int8.bench.layer import Layer, Peer, float_linear


def _quantized(weight: Tensor) -> torch.nn.Module:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    linear = torch.nn.Sequential(float_linear(weight, torch.bfloat16))
    quantize_(linear, Int8DynamicActivationInt8WeightConfig())
    return linear


def _build_eager(weight: Tensor) -> Layer:
    return Layer(_quantized(weight), weight.numel(), torch.Tensor.bfloat16)


def _build_compiled(weight: Tensor) -> Layer:
    # Without freezing, the weights are packed again in each call.
    compiled = torch.compile(_quantized(weight), options={"freezing": True}, dynamic=False)
    return Layer(compiled, weight.numel(), torch.Tensor.bfloat16)


EAGER = Peer("torchao", _build_eager)
COMPILED = Peer("torchao compiled", _build_compiled)
