"""Decode and prefill of a whole model beside other libraries, interleaved in one process.

    python tests/benchmarks/whole_model.py [--models bf16 int8 ...] [--threads 1] [--record docs/benchmarks]

The model has the shape of Qwen2.5-0.5B with a vocabulary of 32000 and random weights; its output head is tied to the
embedding and stays in floating point, but for int8-head* and llama.cpp, which have it in 8 bits too. Prints tokens a
second, best of the rounds, and the ratio to bf16.
torchao's two need torchao, and without VNNI minutes; ``--override-int-mm`` gives it the kernels of this project.
See `llama_cpp_model.py` for what llama.cpp needs.
"""

import argparse
import functools
from collections.abc import Callable, Mapping

import recording
import torch
from llama_cpp_model import LlamaCpp
from transformers import Qwen2Config, Qwen2ForCausalLM

from hf_tle_int8 import override_int_mm, quantize_and_replace_linears
from hf_tle_int8.bench.model import Run, Speed, in_turns, seconds

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


Shape = Mapping[str, int]


def model(shape: Shape, dtype: torch.dtype) -> Qwen2ForCausalLM:
    """The same random weights, in one dtype."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    made = Qwen2ForCausalLM(Qwen2Config(**shape)).eval()
    torch.set_default_dtype(torch.float32)
    return made.to(dtype)


def int8(shape: Shape, dtype: torch.dtype, head: bool = False) -> Qwen2ForCausalLM:
    """Of this project, the rest in ``dtype``; with ``head``, that is untied from the embedding and INT8 too."""
    made = model(shape, dtype)
    if head:
        made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone())
    quantize_and_replace_linears(made, skip=[] if head else ["lm_head"])
    return made


def int8_compiled(shape: Shape) -> Qwen2ForCausalLM:
    """Of this project with its head in INT8, compiled."""
    made = int8(shape, torch.bfloat16, head=True)
    made.forward = torch.compile(made.forward)
    return made


def torch_dynamic(shape: Shape) -> Qwen2ForCausalLM:
    """torch's dynamic quantization, by the engine of this CPU: uint8 activations per tensor, fp32 in and out."""
    made = model(shape, torch.float32)
    made.model = torch.ao.quantization.quantize_dynamic(made.model, {torch.nn.Linear}, torch.qint8)
    return made


def torchao(shape: Shape) -> Qwen2ForCausalLM:
    """torchao's dynamic int8, eager."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    made = model(shape, torch.bfloat16)
    quantize_(made.model, Int8DynamicActivationInt8WeightConfig())
    return made


def torchao_compiled(shape: Shape) -> Qwen2ForCausalLM:
    """torchao's dynamic int8, compiled with frozen weights."""
    made = torchao(shape)
    made.forward = torch.compile(made.forward, options={"freezing": True})
    return made


def of_transformers(make: Callable[[Shape], Qwen2ForCausalLM]) -> Callable[[Shape], Run]:
    """Makes a model and gives its `seconds`."""
    return lambda shape: functools.partial(seconds, make(shape))


MODELS: dict[str, Callable[[Shape], Run]] = {
    "bf16": of_transformers(lambda shape: model(shape, torch.bfloat16)),
    "fp32": of_transformers(lambda shape: model(shape, torch.float32)),
    "int8": of_transformers(lambda shape: int8(shape, torch.bfloat16)),
    "int8-head": of_transformers(lambda shape: int8(shape, torch.bfloat16, head=True)),
    "int8-fp32": of_transformers(lambda shape: int8(shape, torch.float32)),
    "int8-head-fp32": of_transformers(lambda shape: int8(shape, torch.float32, head=True)),
    "int8-head-compiled": of_transformers(int8_compiled),
    "torch-dynamic": of_transformers(torch_dynamic),
    "torchao": of_transformers(torchao),
    "torchao-compiled": of_transformers(torchao_compiled),
    "llama.cpp": LlamaCpp,
}
DEFAULT = ["bf16", "fp32", "int8", "int8-head", "int8-fp32", "torch-dynamic"]


def records(speeds: Mapping[str, Speed], prompt: int, tokens: int) -> list[dict[str, object]]:
    """One for each phase of each model."""
    return [
        {
            "peer": name,
            "phase": phase,
            "tokens": count,
            "tokens_per_second": recording.rounded(count / times.minimum),
            "median_tokens_per_second": recording.rounded(count / times.median),
            "ratio_to_bf16": recording.rounded(base / times.minimum) if base else None,
        }
        for phase, count in (("prefill", prompt), ("decode", tokens))
        for base in [getattr(speeds["bf16"], phase).minimum if "bf16" in speeds else None]
        for name, speed in speeds.items()
        for times in [getattr(speed, phase)]
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=DEFAULT)
    parser.add_argument("--override-int-mm", action="store_true", help="torch._int_mm on the kernels of this project")
    values = {"threads": 1, "prompt": 128, "tokens": 32, "rounds": 3, "layers": SHAPE["num_hidden_layers"]}
    for name, value in values.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    recording.add_options(parser)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.override_int_mm:
        override_int_mm()
    shape = {**SHAPE, "num_hidden_layers": given.layers}
    prompt = torch.randint(0, shape["vocab_size"], (1, given.prompt))
    runs = {name: MODELS[name](shape) for name in given.models}
    found = records(in_turns(runs, prompt, given.tokens, given.rounds), given.prompt, given.tokens)
    for record in found:
        ratio = f", {record['ratio_to_bf16']} x bf16" if record["ratio_to_bf16"] else ""
        print(f"{record['phase']}, {record['peer']}: {record['tokens_per_second']} tokens/s{ratio}")
    recording.write(given, "model", found, given.threads)


if __name__ == "__main__":
    main()
