"""The demo on a causal language model: text, tokens per second and memory in float and in INT8."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TextStreamer

from hf_tle_int8.cli.measure import megabytes, parameter_bytes, timed
from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.report import what_runs_linears


def run(name: str, prompt: str, max_new_tokens: int) -> None:
    """Generate greedily with the model ``name`` in float, then in INT8, and compare.

    Args:
        name: path or hub name of a causal language model.
        prompt: what to continue.
        max_new_tokens: how many tokens to generate at most.

    Raises:
        ConfigError: the model is quantized already.
    """
    if (found := getattr(AutoConfig.from_pretrained(name), "quantization_config", None)) is not None:
        raise ConfigError(
            f"{name} is quantized already (quant_method={found.get('quant_method')!r}): the demo compares a float "
            f"model with its INT8 form. Name the float original."
        )
    tokenizer = AutoTokenizer.from_pretrained(name)
    rows = [_generate(title, name, config, tokenizer, prompt, max_new_tokens) for title, config in _variants()]
    print(f"\n{'':6}{'parameters':>14}{'decode':>16}")
    for title, size, tokens_per_second in rows:
        print(f"{title:<6}{megabytes(size):>14}{tokens_per_second:>10.1f} tok/s")
    print(f"\nThe INT8 linears ran on {what_runs_linears()}.")


def _variants() -> list[tuple[str, TLEInt8Config | None]]:
    return [("float", None), ("INT8", TLEInt8Config())]


def _generate(
    title: str, name: str, config: TLEInt8Config | None, tokenizer: object, prompt: str, max_new_tokens: int
) -> tuple[str, int, float]:
    print(f"\n== {title}", flush=True)
    options = {} if config is None else {"quantization_config": config}
    model = AutoModelForCausalLM.from_pretrained(name, **options)
    inputs = tokenizer(prompt, return_tensors="pt")  # type: ignore[operator]
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        streamer = TextStreamer(tokenizer)
        output, seconds = timed(
            lambda: model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, streamer=streamer)
        )
    generated = output.shape[1] - inputs["input_ids"].shape[1]
    return title, parameter_bytes(model), generated / seconds
