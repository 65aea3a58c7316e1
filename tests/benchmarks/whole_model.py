"""Decode and prefill of a whole model: INT8 against bf16, interleaved in one process.

    python tests/benchmarks/whole_model.py [--threads 1] [--prompt 128] [--tokens 32] [--rounds 3]

The model has the shape of Qwen2.5-0.5B with a vocabulary of 32000 and random weights; its output head is tied to the
embedding and stays bf16 in both. Prints tokens a second, best of the rounds, and the ratio to bf16.
"""

import argparse
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from hf_tle_int8 import quantize_and_replace_linears

SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "max_position_embeddings": 2048,
}


def model(int8: bool) -> Qwen2ForCausalLM:
    """The same random weights, in bf16 or with INT8 linears."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    made = Qwen2ForCausalLM(Qwen2Config(**SHAPE)).eval()
    torch.set_default_dtype(torch.float32)
    if int8:
        quantize_and_replace_linears(made, skip=["lm_head"])
    return made


@torch.no_grad()
def seconds(llm: Qwen2ForCausalLM, prompt: torch.Tensor, tokens: int) -> tuple[float, float]:
    """Of one prefill, and of ``tokens`` greedy steps after it."""
    start = time.perf_counter()
    out = llm(prompt, use_cache=True)
    prefilled = time.perf_counter()
    for _ in range(tokens):
        token = out.logits[:, -1:].argmax(-1)
        out = llm(token, past_key_values=out.past_key_values, use_cache=True)
    return prefilled - start, time.perf_counter() - prefilled


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", 1), ("prompt", 128), ("tokens", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    prompt = torch.randint(0, SHAPE["vocab_size"], (1, given.prompt))
    models = {"bf16": model(False), "int8": model(True)}
    best = {name: [float("inf")] * 2 for name in models}
    for llm in models.values():
        seconds(llm, prompt, 2)
    for _ in range(given.rounds):
        for name, llm in models.items():
            best[name] = [min(pair) for pair in zip(best[name], seconds(llm, prompt, given.tokens), strict=True)]
    for place, (what, tokens) in enumerate((("prefill", given.prompt), ("decode", given.tokens))):
        rates = {name: tokens / times[place] for name, times in best.items()}
        figures = ", ".join(f"{name} {rate:.1f} tokens/s" for name, rate in rates.items())
        print(f"{what}: {figures}, ratio {rates['int8'] / rates['bf16']:.2f}", flush=True)


if __name__ == "__main__":
    main()
