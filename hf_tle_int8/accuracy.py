"""What quantization costs a causal language model: perplexity, and how far its next-token distributions moved."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import torch
from torch import Tensor

from hf_tle_int8.errors import InputValueError

# Of a text that is tokenized at once: characters.
_BLOCK = 1 << 18

# Rows of logits [rows, vocabulary] that are compared in fp32 at once.
_ROWS = 32

Model = Callable[[Tensor], Any]


def blocks(file: TextIO, size: int = _BLOCK) -> Iterator[str]:
    """The text of ``file`` in pieces of ``size`` characters and the rest of the line; at most twice as many.

    Raises:
        InputValueError: it is not in the encoding that it was opened with.
    """
    try:
        while text := file.read(size):
            yield text + file.readline(size)
    except UnicodeDecodeError as error:
        raise InputValueError(f"{file.name} is no text in {file.encoding}: {error}. Convert it.") from error


@dataclass
class Windows:
    """Windows of the tokens of a text, one behind the other; what is left at its end is in none.

    The special tokens that begin a text begin the first block alone.

    Attributes:
        tokenizer: of transformers.
        length: of a window, in tokens.
        tokens: how many the text had, as far as it was read.
    """

    tokenizer: Any
    length: int
    tokens: int = field(default=0, init=False)

    def of(self, pieces: Iterable[str]) -> Iterator[Tensor]:
        """Each window as int64 ``[length]``; of the text, no more is held than one of ``pieces`` and a window."""
        rest: list[int] = []
        for piece in pieces:
            found = self.tokenizer(piece, add_special_tokens=not self.tokens, verbose=False).input_ids
            self.tokens += len(found)
            rest += found
            whole = len(rest) // self.length * self.length
            yield from torch.tensor(rest[:whole]).reshape(-1, self.length)
            rest = rest[whole:]


@dataclass(frozen=True)
class Accuracy:
    """A model on a text, by itself and beside a reference.

    Attributes:
        windows: that were evaluated.
        window: tokens of each; the first of them is not predicted.
        perplexity: exp of the mean negative log-likelihood of the predicted tokens.
        reference_perplexity: of the reference.
        kl_divergence: KL(reference || model) of the next-token distributions, in nats: mean over all positions.
        same_top1: share of the positions where both find the same token the most likely.
    """

    windows: int
    window: int
    perplexity: float
    reference_perplexity: float | None = None
    kl_divergence: float | None = None
    same_top1: float | None = None


@torch.no_grad()
def measure(windows: Iterable[Tensor], model: Model, reference: Model | None = None) -> Accuracy:
    """Evaluate ``model``, and compare it with ``reference``, window by window.

    Args:
        windows: tokens int64 ``[length]``, all of one length.
        model: from tokens ``[1, length]`` to an output with ``logits`` ``[1, length, vocabulary]``.
        reference: as ``model``, of the same vocabulary.

    Raises:
        InputValueError: there are no windows, the vocabularies differ, or logits are NaN or infinite.
    """
    models = [model] if reference is None else [model, reference]
    count, length, sums = 0, 0, torch.zeros(4, dtype=torch.float64)
    for ids in windows:
        logits = [each(ids[None]).logits[0] for each in models]
        if len({each.shape for each in logits}) > 1:
            found = " and ".join(str(each.shape[1]) for each in logits)
            raise InputValueError(f"the vocabularies have {found} tokens: compare with the float original.")
        for start in range(0, len(ids), _ROWS):
            sums += _sums([each[start : start + _ROWS] for each in logits], ids[start + 1 : start + _ROWS + 1])
        count, length = count + 1, len(ids)
    if not count:
        raise InputValueError("there is no window to evaluate: take a longer text, or shorter windows.")
    if not sums.isfinite().all():
        raise InputValueError("logits are NaN or infinite: there is no perplexity. Try dtype float32.")
    predicted, positions = count * (length - 1), count * length
    own, other, divergence, same = sums.tolist()
    perplexity = math.exp(own / predicted)
    if reference is None:
        return Accuracy(count, length, perplexity)
    rest = math.exp(other / predicted), divergence / positions, same / positions
    return Accuracy(count, length, perplexity, *rest)


def _sums(logits: list[Tensor], targets: Tensor) -> Tensor:
    """Of some rows ``[rows, vocabulary]``: both negative log-likelihoods, the divergence, equal maxima; fp64 ``[4]``.

    The last row of a window has no target.
    """
    logs = [rows.float().log_softmax(-1) for rows in logits]
    losses = [-each[: len(targets)].gather(1, targets[:, None]).sum(dtype=torch.float64) for each in logs]
    own, other = logs[0], logs[-1]
    divergence = (other.exp() * (other - own)).sum(dtype=torch.float64)
    same = (own.argmax(-1) == other.argmax(-1)).sum()
    return torch.stack([losses[0], losses[-1], divergence, same.double()])
