"""Decode and prefill of a whole model beside other libraries, interleaved in one process.

    python tests/benchmarks/whole_model.py [--models bf16 int8 ...] [--threads 1] [--prompt 128] [--tokens 32]

The model has the shape of Qwen2.5-0.5B with a vocabulary of 32000 and random weights; its output head is tied to the
embedding and stays in floating point in all of them. Prints tokens a second, best of the rounds, and the ratio to bf16.
torchao's two need torchao, and without VNNI minutes; ``--override-int-mm`` gives it the kernels of this project.
"""

import argparse
from collections.abc import Callable

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from hf_tle_int8 import override_int_mm, quantize_and_replace_linears
from hf_tle_int8.bench.model import interleaved

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


def int8() -> Qwen2ForCausalLM:
    """Of this project."""
    made = model(torch.bfloat16)
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


MODELS: dict[str, Callable[[], Qwen2ForCausalLM]] = {
    "bf16": lambda: model(torch.bfloat16),
    "fp32": lambda: model(torch.float32),
    "int8": int8,
    "torch-dynamic": torch_dynamic,
    "torchao": torchao,
    "torchao-compiled": torchao_compiled,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["bf16", "fp32", "int8", "torch-dynamic"])
    parser.add_argument("--override-int-mm", action="store_true", help="torch._int_mm on the kernels of this project")
    for name, value in (("threads", 1), ("prompt", 128), ("tokens", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.override_int_mm:
        override_int_mm()
    prompt = torch.randint(0, SHAPE["vocab_size"], (1, given.prompt))
    models = {name: MODELS[name]() for name in given.models}
    speeds = interleaved(models, prompt, given.tokens, given.rounds)
    for what, tokens in (("prefill", given.prompt), ("decode", given.tokens)):
        rates = {name: tokens / getattr(speed, what).minimum for name, speed in speeds.items()}
        for name, rate in rates.items():
            ratio = f", {rate / rates['bf16']:.2f} x bf16" if "bf16" in rates else ""
            print(f"{what}, {name}: {rate:.1f} tokens/s{ratio}", flush=True)


if __name__ == "__main__":
    main()
