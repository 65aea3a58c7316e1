"""``torch._int_mm`` alone: neither quantizing the input nor rescaling the output is timed."""

import torch
from torch import Tensor

from hf_tle_int8 import arithmetic
from hf_tle_int8.bench.layer import Layer, Peer


def _build(weight: Tensor) -> Layer:
    q, scale = arithmetic.quantize_weight(weight)
    transposed = q.T

    def leave(product: Tensor, x: Tensor) -> Tensor:
        return arithmetic.epilogue(product, arithmetic.quantize_activation(x)[1], scale, None, torch.float32)

    return Layer(
        lambda codes: torch._int_mm(codes, transposed),
        weight.numel(),
        lambda x: arithmetic.quantize_activation(x)[0],
        leave,
    )


PEER = Peer("torch._int_mm alone", _build)
