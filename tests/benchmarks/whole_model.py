"""Decode and prefill of a whole model beside other libraries, interleaved in one process.

    python tests/benchmarks/whole_model.py [--models bf16 int8 ...] [--threads 1] [--prompt 128] [--tokens 32]

The model has the shape of Qwen2.5-0.5B with a vocabulary of 32000 and random weights; its output head is tied to the
embedding and stays in floating point in all of them. Prints tokens a second, best of the rounds, and the ratio to bf16.
torchao's two need torchao, and without VNNI minutes; ``--override-int-mm`` gives it the kernels of this project.
llama.cpp has its head in Q8_0 too; see `llama_cpp_model.py` for what it needs.
"""

import argparse
import functools
from collections.abc import Callable

import torch
from llama_cpp_model import LlamaCpp
from transformers import Qwen2Config, Qwen2ForCausalLM

from hf_tle_int8 import override_int_mm, quantize_and_replace_linears
from hf_tle_int8.bench.model import seconds

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


def model(dtype: torch.dtype) -> Qwen2ForCausalLM:
    """The same random weights, in one dtype."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    made = Qwen2ForCausalLM(Qwen2Config(**SHAPE)).eval()
    torch.set_default_dtype(torch.float32)
    return made.to(dtype)


def int8(dtype: torch.dtype) -> Qwen2ForCausalLM:
    """Of this project, the rest in ``dtype``."""
    made = model(dtype)
    quantize_and_replace_linears(made, skip=["lm_head"])
    return made


def torch_dynamic() -> Qwen2ForCausalLM:
    """torch's dynamic quantization, by the engine of this CPU: uint8 activations per tensor, fp32 in and out."""
    made = model(torch.float32)
    made.model = torch.ao.quantization.quantize_dynamic(made.model, {torch.nn.Linear}, torch.qint8)
    return made


def torchao() -> Qwen2ForCausalLM:
    """torchao's dynamic int8, eager."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    made = model(torch.bfloat16)
    quantize_(made.model, Int8DynamicActivationInt8WeightConfig())
    return made


def torchao_compiled() -> Qwen2ForCausalLM:
    """torchao's dynamic int8, compiled with frozen weights."""
    made = torchao()
    made.forward = torch.compile(made.forward, options={"freezing": True})
    return made


Run = Callable[[torch.Tensor, int], tuple[float, float]]


def of_transformers(make: Callable[[], Qwen2ForCausalLM]) -> Callable[[], Run]:
    """Makes a model and gives its `seconds`."""
    return lambda: functools.partial(seconds, make())


MODELS: dict[str, Callable[[], Run]] = {
    "bf16": of_transformers(lambda: model(torch.bfloat16)),
    "fp32": of_transformers(lambda: model(torch.float32)),
    "int8": of_transformers(lambda: int8(torch.bfloat16)),
    "int8-fp32": of_transformers(lambda: int8(torch.float32)),
    "torch-dynamic": of_transformers(torch_dynamic),
    "torchao": of_transformers(torchao),
    "torchao-compiled": of_transformers(torchao_compiled),
    "llama.cpp": lambda: LlamaCpp(SHAPE),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["bf16", "fp32", "int8", "int8-fp32", "torch-dynamic"]
    )
    parser.add_argument("--override-int-mm", action="store_true", help="torch._int_mm on the kernels of this project")
    for name, value in (("threads", 1), ("prompt", 128), ("tokens", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.override_int_mm:
        override_int_mm()
    prompt = torch.randint(0, SHAPE["vocab_size"], (1, given.prompt))
    models = {name: MODELS[name]() for name in given.models}
    best = {name: [float("inf")] * 2 for name in models}
    for run in models.values():
        run(prompt, 2)
    for _ in range(given.rounds):
        for name, run in models.items():
            best[name] = [min(pair) for pair in zip(best[name], run(prompt, given.tokens), strict=True)]
    for place, (what, tokens) in enumerate((("prefill", given.prompt), ("decode", given.tokens))):
        rates = {name: tokens / times[place] for name, times in best.items()}
        for name, rate in rates.items():
            ratio = f", {rate / rates['bf16']:.2f} x bf16" if "bf16" in rates else ""
            print(f"{what}, {name}: {rate:.1f} tokens/s{ratio}", flush=True)


if __name__ == "__main__":
    main()
