"""The benchmark of linears: every peer checked, then timed in interleaved rounds."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_tle_int8.bench.layer import Layer, Peer
from hf_tle_int8.bench.timing import Flush, Task, Times, interleaved

# (N, K) of the linears of Qwen2.5-0.5B, Qwen2.5-1.5B and Llama-3.2-1B.
SHAPES = (
    (896, 896), (4864, 896), (896, 4864), (1536, 1536), (8960, 1536), (1536, 8960), (2048, 2048), (8192, 2048),
    (2048, 8192),
)  # fmt: skip
ROWS = (1, 4, 16, 32, 128, 512)

# int8 in the worst of these schemes, per tensor, is off by 0.03; what is not a product of these matrices is off by 1.
_MOST_ERROR = 0.1


@dataclass(frozen=True)
class Result:
    """One peer on one case.

    Attributes:
        peer: its name.
        n: output channels.
        k: inputs.
        m: rows.
        cache: ``cold`` if 128 MB are read before each call, and another layer of the peer is run: its weights come from
            memory, and its code from the caches. Else ``hot``.
        seconds: of a call.
        weight_bytes: that a call reads at least.
        relative_error: norm of the difference from the float result, relative to the norm of that.
    """

    peer: str
    n: int
    k: int
    m: int
    cache: str
    seconds: Times
    weight_bytes: int
    relative_error: float


@dataclass
class Outcome:
    """Results, and why there are no others.

    Attributes:
        results: in the order in which they were measured.
        absent: why a peer cannot be imported, by its name.
        failed: the error of a peer, by its name and the case.
    """

    results: list[Result] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def cases(rows: Iterable[int]) -> list[tuple[int, str]]:
    """Numbers of rows with the state of the caches: cold too for one row, as in decoding."""
    return [(m, cache) for m in rows for cache in (("cold", "hot") if m == 1 else ("hot",))]


def relative_error(y: Tensor, expected: Tensor) -> float:
    """Norm of the difference relative to the norm of ``expected``; infinite for another shape."""
    if y.shape != expected.shape:
        return float("inf")
    return float(torch.linalg.vector_norm(y.double() - expected) / torch.linalg.vector_norm(expected))


@torch.no_grad()
def run(
    peers: Sequence[Peer],
    shapes: Iterable[tuple[int, int]],
    rows: Sequence[int],
    rounds: int,
    progress: Callable[[str], None],
) -> Outcome:
    """Check and time all peers on all cases, on as many threads as torch uses.

    Args:
        peers: which; one that cannot be imported is noted and left out, one that fails is left out of the case.
        shapes: ``(N, K)`` each.
        rows: M of each.
        rounds: see `timing.interleaved`.
        progress: told what is being measured.
    """
    outcome, flush = Outcome(), Flush()
    for n, k in shapes:
        progress(f"{n}x{k}: building")
        generator = torch.Generator().manual_seed(n * k)
        weight, other = (torch.randn(n, k, generator=generator) * 0.02 for _ in range(2))
        layers = _layers(peers, weight, outcome)
        twins = _layers(peers, other, outcome) if 1 in rows else layers
        layers = {name: layer for name, layer in layers.items() if name in twins}
        for m in rows:
            x = torch.randn(m, k, generator=generator)
            tasks, errors = _checked(layers, x, x.double() @ weight.double().T, outcome, f"{m}x{n}x{k}")
            before = functools.partial(_flush, flush, twins, x)
            for _, cache in cases([m]):
                progress(f"{n}x{k}: {m} rows, {cache}")
                times = interleaved(tasks, rounds, before if cache == "cold" else None, seed=m)
                for name, found in times.items():
                    size = layers[name].weight_bytes
                    outcome.results.append(Result(name, n, k, m, cache, found, size, errors[name]))
    return outcome


def _layers(peers: Sequence[Peer], weight: Tensor, outcome: Outcome) -> dict[str, Layer]:
    layers: dict[str, Layer] = {}
    for peer in peers:
        if peer.name in outcome.absent:
            continue
        try:
            layers[peer.name] = peer.build(weight)
        except ImportError as error:
            outcome.absent[peer.name] = str(error)
        except Exception as error:  # noqa: BLE001 - of another library; it is shown
            outcome.failed[f"{peer.name}, {'x'.join(map(str, weight.shape))}"] = _named(error)
    return layers


def _flush(flush: Flush, twins: dict[str, Layer], x: Tensor, name: str) -> None:
    """Take the weights of a peer's layer out of the caches, but not its code."""
    flush()
    twins[name].run(twins[name].enter(x))


def _checked(
    layers: dict[str, Layer], x: Tensor, expected: Tensor, outcome: Outcome, case: str
) -> tuple[dict[str, Task], dict[str, float]]:
    """The peers that give what the float product gives, each with its relative error."""
    tasks: dict[str, Task] = {}
    errors: dict[str, float] = {}
    for name, layer in layers.items():
        try:
            given: Any = layer.enter(x)
            error = relative_error(layer.leave(layer.run(given), x), expected)
        except Exception as problem:  # noqa: BLE001 - of another library; it is shown
            outcome.failed[f"{name}, {case}"] = _named(problem)
            continue
        if not error <= _MOST_ERROR:
            outcome.failed[f"{name}, {case}"] = f"its result is off by {error:.3g} of the float result, so not timed."
            continue
        tasks[name], errors[name] = functools.partial(layer.run, given), error
    return tasks, errors


def _named(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
