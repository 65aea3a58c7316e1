import pytest

from hf_tle_int8.backend import codegen, target
from hf_tle_int8.bench import machine


def test_bandwidth_and_peak_are_those_of_a_computer():
    here = target.host()
    assert 1e8 < machine.streaming_bandwidth(here, 1) < 1e12
    assert 1e9 < machine.int8_peak(here, 1) < 1e13


@pytest.mark.parametrize("name", target.TARGETS)
def test_no_multiplication_leaves_the_loop(name):
    chosen = target.named(name)
    text = codegen.compile_module(chosen, machine.peak_module(chosen)).assembly
    name = machine.peak_instruction(chosen).name
    instruction = {"widening": {"aarch64": "smull", "x86_64": "vpmaddwd"}[chosen.arch]}.get(name, name)
    loops = [text[text.index(label) :] for label in [line for line in text.splitlines() if line.startswith(".LBB0")]]
    assert max(loop.split("\n.L")[0].count(instruction) for loop in loops) >= machine.accumulators(
        machine.peak_instruction(chosen)
    )
