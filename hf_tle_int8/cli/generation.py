"""Generating text that is shown as it comes, is timed token by token, and stops at Ctrl-C."""

import argparse
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList, TextStreamer
from transformers.cache_utils import DynamicCache, DynamicLayer

from hf_tle_int8.cli.causal import CausalCheckpoint
from hf_tle_int8.errors import ConfigError

Write = Callable[[str], object]


@dataclass(frozen=True)
class Answer:
    """What a model generated.

    Attributes:
        text: of the new tokens, without special ones.
        prompt_tokens: of the whole prompt.
        prefill_tokens: those of them that were computed; the others were kept from the time before.
        new_tokens: that were generated, an end of sequence among them.
        prefill_seconds: until the first new token was there.
        decode_seconds: from there to the last one.
        stopped: by Ctrl-C.
    """

    text: str
    prompt_tokens: int
    prefill_tokens: int
    new_tokens: int
    prefill_seconds: float
    decode_seconds: float
    stopped: bool

    @property
    def prefill_rate(self) -> float:
        """Tokens a second."""
        return self.prefill_tokens / self.prefill_seconds

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second after the first one; None where there are no more."""
        return (self.new_tokens - 1) / self.decode_seconds if self.new_tokens > 1 else None

    def summary(self) -> str:
        """Both rates in a line."""
        decode = f", decode {self.decode_rate:.1f} tokens/s" if self.decode_rate else ""
        stopped = ", stopped" if self.stopped else ""
        prefill = f"prefill of {self.prefill_tokens} tokens {self.prefill_rate:.1f} tokens/s"
        return f"[{prefill}{decode}; {self.new_tokens} new tokens{stopped}]"


class _TimedStreamer(TextStreamer):
    """Writes whole words as they are there, and notes when the prompt and each token came."""

    def __init__(self, tokenizer: Any, write: Write, skip_prompt: bool):
        super().__init__(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)
        self.write, self.times = write, [0.0] * 0

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.write(text)


class _Stop(StoppingCriteria):
    asked = False

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), self.asked, dtype=torch.bool)


@contextlib.contextmanager
def _stopped_by_ctrl_c() -> Iterator[_Stop]:
    """The first Ctrl-C asks for an end after the token at hand; the second one interrupts as ever."""
    stop, before = _Stop(), signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class Generator:
    """A model, its tokenizer, and how tokens are chosen.

    Args:
        checkpoint: of ``model``.
        model: whose ``generation_config`` is changed to what is asked for.
        tokenizer: of the model.
        arguments: what `options.add_generation` adds.

    Raises:
        ConfigError: the model's end of sequence is no token.
    """

    def __init__(
        self, checkpoint: CausalCheckpoint, model: PreTrainedModel, tokenizer: Any, arguments: argparse.Namespace
    ):
        self.checkpoint, self.model, self.tokenizer = checkpoint, model, tokenizer
        self._cache: DynamicCache | None = None
        # [1, length]: the tokens whose keys and values the cache holds.
        self._cached = torch.empty(1, 0, dtype=torch.long)
        self._most = arguments.max_new_tokens
        # torch begins every process with one and the same seed.
        torch.manual_seed(torch.seed() if arguments.seed is None else arguments.seed)
        settings = model.generation_config
        settings.max_length, settings.num_beams = None, 1
        if arguments.temperature is not None:
            settings.do_sample = arguments.temperature > 0
            settings.temperature = arguments.temperature or None
        if not settings.do_sample:
            settings.temperature = settings.top_p = settings.top_k = None
        ends = settings.eos_token_id
        if not all(isinstance(end, int) for end in (ends if isinstance(ends, list) else [ends or 0])):
            raise ConfigError(f"{checkpoint.name} says eos_token_id={ends!r}: a token's number or a list is needed.")
        if settings.pad_token_id is None:
            settings.pad_token_id = ends[0] if isinstance(ends, list) else ends

    def __call__(self, prompt: Tensor, write: Write, echo: bool = False) -> Answer:
        """Continue ``prompt`` as far as asked for or the model goes; what the call before had is not computed again.

        Args:
            prompt: tokens, int64 ``[1, length]``.
            write: is given the text piece by piece.
            echo: write the text of the prompt as well.

        Raises:
            ConfigError: there are no tokens, too many for the model, or such as it does not know.
        """
        length = self.checkpoint.check_prompt(prompt)
        room = (self.checkpoint.positions or length + self._most) - length
        cache, known = self._taken(prompt)
        streamer = _TimedStreamer(self.tokenizer, write, skip_prompt=not echo)
        with torch.inference_mode(), _stopped_by_ctrl_c() as stop:
            found = self.model.generate(
                prompt,
                max_new_tokens=min(self._most, room),
                attention_mask=torch.ones_like(prompt),
                past_key_values=cache,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([stop]),
                return_dict_in_generate=True,
            )
        self._keep(found)
        start, first, *_ = times = streamer.times
        text = self.tokenizer.decode(found.sequences[0, length:], skip_special_tokens=True)
        new = found.sequences.shape[1] - length
        return Answer(text, length, length - known, new, first - start, times[-1] - first, stop.asked)

    def _taken(self, prompt: Tensor) -> tuple[DynamicCache | None, int]:
        """The cache, if the prompt begins with the tokens in it and goes on, and their number."""
        cache, known = self._cache, self._cached.shape[1]
        self._cache = None
        if cache is not None and known < prompt.shape[1] and torch.equal(prompt[:, :known], self._cached):
            return cache, known
        return None, 0

    def _keep(self, found: Any) -> None:
        cache: Any = getattr(found, "past_key_values", None)
        # Others hold windows or recurrent states, which not all models continue with several tokens at once.
        if type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers):
            self._cache, self._cached = cache, found.sequences[:, : cache.get_seq_length()]
