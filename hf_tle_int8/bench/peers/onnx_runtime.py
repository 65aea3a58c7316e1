"""onnxruntime's dynamic quantization per tensor, and its 8-bit blocks of 128 along K; fp32 in and out."""

from typing import Any

import torch
from torch import Tensor

from hf_tle_int8 import arithmetic
from hf_tle_int8.bench.layer import Layer, Peer, from_numpy

_BLOCK = 128


def _layer(weight: Tensor, operator: str, tensors: dict[str, Any], **attributes: int) -> Layer:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    n, k = weight.shape
    node = helper.make_node(operator, ["x", *tensors], ["y"], domain="com.microsoft", **attributes)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, k])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, n])]
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph([node], "linear", inputs, outputs, constants)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Layer(lambda x: session.run(None, {"x": x})[0], weight.numel(), torch.Tensor.numpy, from_numpy)


def _build_dynamic(weight: Tensor) -> Layer:
    q, scale = arithmetic.quantize_weight(weight)
    return _layer(weight, "DynamicQuantizeMatMul", {"w": q.T.contiguous().numpy(), "scale": scale.flatten().numpy()})


def _build_blocks(weight: Tensor) -> Layer:
    n, k = weight.shape
    blocks = torch.nn.functional.pad(weight, (0, -k % _BLOCK)).reshape(n, -1, _BLOCK)
    scale = blocks.abs().amax(2).clamp_(min=1e-8) / 127
    codes = ((blocks / scale[..., None]).round() + 128).to(torch.uint8)
    tensors = {"w": codes.numpy(), "scale": scale.flatten().numpy()}
    # An accuracy level of 4 lets it quantize the input.
    return _layer(weight, "MatMulNBits", tensors, K=k, N=n, bits=8, block_size=_BLOCK, accuracy_level=4)


DYNAMIC = Peer("onnxruntime DynamicQuantizeMatMul", _build_dynamic)
BLOCKS = Peer("onnxruntime MatMulNBits", _build_blocks)
