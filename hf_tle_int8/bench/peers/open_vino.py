"""OpenVINO: int8 weights per channel, activations quantized per row where the CPU has VNNI; fp32 in and out."""

import torch
from torch import Tensor

from hf_tle_int8 import arithmetic
from hf_tle_int8.bench.layer import Layer, Peer, from_numpy

# A group that no row is longer than.
_WHOLE_ROW = (1 << 63) - 1


def _build(weight: Tensor) -> Layer:
    import openvino
    from openvino import opset13

    q, scale = arithmetic.quantize_weight(weight)
    x = opset13.parameter([-1, weight.shape[1]], openvino.Type.f32)
    codes = opset13.convert(opset13.constant(q.numpy()), "f32")
    product = opset13.matmul(x, opset13.multiply(codes, opset13.constant(scale.numpy())), False, True)
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _WHOLE_ROW,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = openvino.Model([product], [x], "linear")
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return Layer(
        lambda array: request.infer({0: array}, share_inputs=True, share_outputs=True)[0],
        weight.numel(),
        torch.Tensor.numpy,
        from_numpy,
    )


PEER = Peer("OpenVINO", _build)
