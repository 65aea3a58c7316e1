"""The peers, each in a module of its own that imports its library when a layer is built."""

from hf_tle_int8.bench.layer import Peer
from hf_tle_int8.bench.peers import (
    llama_cpp,
    onnx_runtime,
    open_vino,
    ours,
    torch_ao,
    torch_dynamic,
    torch_float,
    torch_int_mm,
)

BASE = torch_float.BF16.name
PEERS: tuple[Peer, ...] = (
    ours.PEER,
    torch_float.BF16,
    torch_float.FP32,
    *torch_dynamic.PEERS,
    torch_int_mm.PEER,
    torch_ao.EAGER,
    torch_ao.COMPILED,
    onnx_runtime.DYNAMIC,
    onnx_runtime.BLOCKS,
    open_vino.PEER,
    llama_cpp.PEER,
)
