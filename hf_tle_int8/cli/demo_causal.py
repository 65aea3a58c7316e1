"""The demo on a causal language model: text, tokens per second and memory in float and in INT8."""

from typing import Any

import torch
from transformers import TextStreamer

from hf_tle_int8.cli import causal
from hf_tle_int8.cli.measure import megabytes, parameter_bytes, timed
from hf_tle_int8.config import method_of
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.report import what_runs_linears


def run(name: str, prompt: str, max_new_tokens: int) -> None:
    """Generate greedily with the model ``name`` in float, then in INT8, and compare.

    Args:
        name: path or hub name of a causal language model.
        prompt: what to continue.
        max_new_tokens: how many tokens to generate at most.

    Raises:
        CheckpointError: there is no such model, or it has no tokenizer or cannot generate.
        ConfigError: the model is quantized already, or the prompt has no tokens or too many for it.
    """
    checkpoint = causal.find(name)
    if checkpoint.quantized:
        method = method_of(checkpoint.config.quantization_config)
        raise ConfigError(
            f"{name} is quantized already (quant_method={method!r}): the demo compares a float model with its INT8 "
            f"form. Name the float original."
        )
    tokenizer = causal.load_tokenizer(name)
    checkpoint.check_prompt(tokenizer(causal.check_text(prompt), return_tensors="pt").input_ids)
    rows = [_generate(title, checkpoint, tokenizer, prompt, max_new_tokens) for title in ("float", "INT8")]
    print(f"\n{'':6}{'parameters':>14}{'decode':>16}")
    for title, size, tokens_per_second in rows:
        print(f"{title:<6}{megabytes(size):>14}{tokens_per_second:>10.1f} tok/s")
    print(f"\nThe INT8 linears ran on {what_runs_linears()}.")


def _generate(
    title: str, checkpoint: causal.CausalCheckpoint, tokenizer: Any, prompt: str, max_new_tokens: int
) -> tuple[str, int, float]:
    print(f"\n== {title}", flush=True)
    model = checkpoint.load(int8=title == "INT8")
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        streamer = TextStreamer(tokenizer)
        output, seconds = timed(
            lambda: model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, streamer=streamer)
        )
    generated = output.shape[1] - inputs["input_ids"].shape[1]
    return title, parameter_bytes(model), generated / seconds
