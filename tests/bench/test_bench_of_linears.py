import pytest
import torch

from hf_tle_int8.bench import linear
from hf_tle_int8.bench.layer import Layer, Peer
from hf_tle_int8.bench.peers import PEERS, torch_float

SHAPE = (40, 64)


def measure(*peers: Peer) -> linear.Outcome:
    return linear.run(peers, [SHAPE], [3], 1, lambda _: None)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_peer_gives_the_product_or_is_absent(peer):
    if "compiled" in peer.name:
        pytest.skip("takes half a minute to compile")
    outcome = measure(peer)
    assert not outcome.failed
    assert [result.peer for result in outcome.results] == ([] if outcome.absent else [peer.name])


def test_a_wrong_peer_is_named_and_not_timed():
    wrong = Peer("wrong", lambda weight: Layer(lambda x: x @ weight.T * 1.2, weight.nbytes))
    outcome = measure(wrong, torch_float.FP32)
    assert [result.peer for result in outcome.results] == ["torch fp32"]
    assert "off by 0.2" in outcome.failed["wrong, 3x40x64"]


def test_a_wrong_shape_is_no_product():
    assert linear.relative_error(torch.ones(2, 3), torch.ones(1, 3)) == float("inf")


def test_errors_of_a_peer_are_shown():
    def run(_):
        raise ArithmeticError("carry lost")

    def build(_):
        raise OSError("no drum")

    outcome = measure(Peer("late", lambda weight: Layer(run, weight.nbytes)), Peer("early", build))
    assert outcome.failed == {"late, 3x40x64": "ArithmeticError: carry lost", "early, 40x64": "OSError: no drum"}
    assert not outcome.results


def test_before_a_cold_call_another_layer_of_the_peer_runs():
    calls = []

    def build(weight):
        number = len(calls)
        calls.append([])
        return Layer(lambda x: calls[number].append(x) or x @ weight.T, weight.nbytes)

    outcome = linear.run([Peer("fp32", build)], [SHAPE], [1], 2, lambda _: None)
    assert [result.cache for result in outcome.results] == ["cold", "hot"]
    layer, twin = calls
    assert len(twin) == 2
    assert len(layer) > 2 + 2


def test_one_row_is_timed_cold_and_hot():
    assert linear.cases([1, 4]) == [(1, "cold"), (1, "hot"), (4, "hot")]
