"""The benchmark of whole models: prefill and greedy decoding, in interleaved rounds."""

import functools
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_tle_int8.bench.timing import Times
from hf_tle_int8.errors import ConfigError

Run = Callable[[Tensor, int], tuple[float, float]]


@dataclass(frozen=True)
class Speed:
    """Seconds of a model.

    Attributes:
        prefill: of the whole prompt.
        decode: of all steps after it.
    """

    prefill: Times
    decode: Times


@torch.no_grad()
def seconds(model: Any, prompt: Tensor, tokens: int) -> tuple[float, float]:
    """Of one prefill, and of ``tokens`` greedy steps after it.

    Args:
        model: a causal language model of transformers with a key-value cache.
        prompt: int64 ``[1, length]``.
        tokens: to generate.

    Raises:
        ConfigError: the model returns no ``past_key_values``.
    """
    start = time.perf_counter()
    out = model(prompt, use_cache=True)
    prefilled = time.perf_counter()
    if getattr(out, "past_key_values", None) is None:
        raise ConfigError(
            f"{type(model).__name__} returns no past_key_values: its decoding cannot be timed step by step."
        )
    for _ in range(tokens):
        token = out.logits[:, -1:].argmax(-1)
        out = model(token, past_key_values=out.past_key_values, use_cache=True)
    return prefilled - start, time.perf_counter() - prefilled


def interleaved(models: Mapping[str, Any], prompt: Tensor, tokens: int, rounds: int) -> dict[str, Speed]:
    """Time models as `in_turns` does; each as for `seconds`, by name.

    Raises:
        ConfigError: see `seconds`.
        ValueError: there are no rounds.
    """
    return in_turns({name: functools.partial(seconds, each) for name, each in models.items()}, prompt, tokens, rounds)


def in_turns(runs: Mapping[str, Run], prompt: Tensor, tokens: int, rounds: int) -> dict[str, Speed]:
    """Time each once a round, in another order each time, after all have run once.

    Args:
        runs: from a prompt and a number of tokens to their `seconds`, by name.
        prompt: int64 ``[1, length]``.
        tokens: to generate after it.
        rounds: at least 1.

    Raises:
        ValueError: there are no rounds.
    """
    if rounds < 1:
        raise ValueError(f"{rounds} rounds: at least one is needed to time anything.")
    order, shuffle = list(runs), random.Random(0).shuffle
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for run in runs.values():
        run(prompt, 2)
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            found[name].append(runs[name](prompt, tokens))
    return {
        name: Speed(*(Times(min(times), statistics.median(times)) for times in zip(*pairs, strict=True)))
        for name, pairs in found.items()
    }
