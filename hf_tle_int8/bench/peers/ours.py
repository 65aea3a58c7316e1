"""This project's linear, bf16 in and out."""

import torch
from torch import Tensor

from hf_tle_int8.bench.layer import Layer, Peer, float_linear
from hf_tle_int8.nn.linear import TLEInt8Linear


def _build(weight: Tensor) -> Layer:
    layer = TLEInt8Linear.from_linear(float_linear(weight, torch.float32))
    return Layer(layer, weight.numel(), torch.Tensor.bfloat16)


PEER = Peer("hf_tle_int8", _build)
