"""A model of random weights for llama.cpp: Q8_0, of the shape of a Qwen2 configuration.

Needs ``pip install llama-cpp-python gguf``, which compiles llama.cpp for this CPU.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from hf_tle_int8.backend.target import host
from hf_tle_int8.bench.tile_configuration import TileConfiguration


def write(path: Path, shape: Mapping[str, int]) -> None:
    """Write a GGUF file without a vocabulary; its head is the embedding, in Q8_0 too."""
    import gguf

    writer, random = gguf.GGUFWriter(path, "qwen2"), np.random.default_rng(0)
    size, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    kv = size // heads * shape["num_key_value_heads"]
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(size)
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_tokenizer_model("none")

    def matrix(name: str, n: int, k: int) -> None:
        kind = gguf.GGMLQuantizationType.Q8_0
        values = random.standard_normal((n, k), dtype=np.float32) * 0.02
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)

    matrix("token_embd", shape["vocab_size"], size)
    writer.add_tensor("output_norm.weight", np.ones(size, np.float32))
    for block in (f"blk.{number}." for number in range(shape["num_hidden_layers"])):
        for name, n in (("attn_q", size), ("attn_k", kv), ("attn_v", kv)):
            matrix(block + name, n, size)
            writer.add_tensor(f"{block}{name}.bias", np.zeros(n, np.float32))
        for name, n, k in (("attn_output", size, size), ("ffn_gate", inner, size), ("ffn_up", inner, size)):
            matrix(block + name, n, k)
        matrix(f"{block}ffn_down", size, inner)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{name}.weight", np.ones(size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """Runs such a model."""

    def __init__(self, shape: Mapping[str, int]) -> None:
        import llama_cpp

        threads, self._tiles = torch.get_num_threads(), TileConfiguration(host())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.gguf")
            write(path, shape)
            options = {"n_ctx": shape["max_position_embeddings"], "n_batch": 512, "verbose": False}
            self._llm = llama_cpp.Llama(str(path), n_threads=threads, n_threads_batch=threads, **options)

    def __call__(self, prompt: torch.Tensor, tokens: int) -> tuple[float, float]:
        """Seconds of one prefill of ``[1, T]``, and of ``tokens`` steps after it."""
        self._llm.reset()
        with self._tiles.kept():
            start = time.perf_counter()
            self._llm.eval(prompt[0].tolist())
            prefilled = time.perf_counter()
            for token in range(tokens):
                self._llm.eval([token])
            return prefilled - start, time.perf_counter() - prefilled
