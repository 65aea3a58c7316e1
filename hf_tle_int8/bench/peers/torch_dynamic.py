"""torch's dynamic quantization: activations uint8 per tensor, weights int8 per tensor, fp32 in and out."""

import functools
import warnings

import torch
from torch import Tensor

from hf_tle_int8.bench.layer import Layer, Peer, float_linear


def _build(engine: str, weight: Tensor) -> Layer:
    engines = torch.backends.quantized.supported_engines
    if engine not in engines:
        raise ImportError(f"this torch has the quantization engines {', '.join(engines)}, not {engine}.")
    before = torch.backends.quantized.engine
    # The engine that packs the weight is the one that runs it.
    torch.backends.quantized.engine = engine
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
            warnings.filterwarnings("ignore", ".*quantized tensor creation functions", UserWarning)
            linear = torch.nn.Sequential(float_linear(weight, torch.float32))
            quantized = torch.ao.quantization.quantize_dynamic(linear, {torch.nn.Linear}, torch.qint8)
    finally:
        torch.backends.quantized.engine = before
    return Layer(quantized, weight.numel())


PEERS = tuple(
    Peer(f"torch dynamic ({engine})", functools.partial(_build, engine)) for engine in ("x86", "qnnpack", "onednn")
)
