from types import SimpleNamespace

import pytest
import torch

from hf_tle_int8.bench import model
from hf_tle_int8.errors import ConfigError

PROMPT = torch.tensor([[3, 4, 5]])


class Counting:
    """A model whose next token is the number of its calls, and whose cache is what it was called with."""

    def __init__(self, name: str, calls: list[tuple[str, list[int]]]):
        self.name, self.calls = name, calls

    def __call__(self, ids, past_key_values=(), use_cache=False):
        assert use_cache
        self.calls.append((self.name, ids[0].tolist()))
        known = (*past_key_values, *ids[0].tolist())
        return SimpleNamespace(logits=torch.eye(100)[len(known)].expand(1, ids.shape[1], 100), past_key_values=known)


def test_a_run_is_the_prompt_and_then_token_by_token():
    calls = []
    prefill, decode = model.seconds(Counting("a", calls), PROMPT, 3)
    assert [ids for _, ids in calls] == [[3, 4, 5], [3], [4], [5]]
    assert min(prefill, decode) > 0


def test_models_take_turns_in_changing_order():
    calls = []
    speeds = model.interleaved({name: Counting(name, calls) for name in "abc"}, PROMPT, 2, 6)
    assert list(speeds) == ["a", "b", "c"]
    assert all(
        0 < times.minimum <= times.median for speed in speeds.values() for times in (speed.prefill, speed.decode)
    )
    starts = [name for name, ids in calls if len(ids) == 3][3:]
    rounds = [tuple(starts[place : place + 3]) for place in range(0, 18, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


def test_models_without_a_cache_and_no_rounds_are_refused():
    with pytest.raises(ConfigError, match="no past_key_values"):
        model.seconds(lambda ids, use_cache: SimpleNamespace(logits=torch.zeros(1, 3, 9)), PROMPT, 1)
    with pytest.raises(ValueError, match="0 rounds"):
        model.interleaved({}, PROMPT, 1, 0)
