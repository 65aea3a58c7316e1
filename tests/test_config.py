import inspect
import json

import pytest

from hf_tle_int8 import TLEInt8Config
from hf_tle_int8.config import _OPTIONS
from hf_tle_int8.errors import ConfigError


def test_defaults():
    config = TLEInt8Config()
    assert config.quant_method == "tle_int8"
    assert config.modules_to_not_convert is None
    assert config.quantize_lm_head is False


# Each option with another value than its default.
VALUES = [
    {"modules_to_not_convert": ["mlp", r"re:.*\.k_proj"]},
    {"quantize_lm_head": True},
    {"modules_to_convert": ("mlp", "re:.*_proj")},
    {"dequantize": True},
]


def test_every_option_is_an_argument_documented_and_comes_back():
    arguments = [name for name in inspect.signature(TLEInt8Config).parameters if name != "kwargs"]
    assert sorted(_OPTIONS) == sorted(arguments)
    assert [name for name in arguments if f"\n    {name}: " not in inspect.getdoc(TLEInt8Config)] == []
    assert {name for options in VALUES for name in options} == set(arguments)
    assert all(TLEInt8Config(**options) != TLEInt8Config() for options in VALUES)


@pytest.mark.parametrize("options", [{}, *VALUES])
def test_json_round_trip(options, tmp_path):
    config = TLEInt8Config(**options)
    assert TLEInt8Config.from_dict(json.loads(config.to_json_string())) == config
    config.to_json_file(tmp_path / "config.json")
    assert TLEInt8Config(**json.loads((tmp_path / "config.json").read_text())) == config
    assert config.to_diff_dict() == config.to_dict()


def test_lists_that_are_not_given_are_not_written():
    assert TLEInt8Config().to_dict().keys().isdisjoint({"modules_to_convert", "int8_modules"})


def test_saved_config_says_what_to_import():
    assert "import hf_tle_int8" in TLEInt8Config().to_dict()["requires"]


def test_from_dict_overrides_and_returns_the_rest():
    config, rest = TLEInt8Config.from_dict({}, return_unused_kwargs=True, quantize_lm_head=True, other=1)
    assert config.quantize_lm_head
    assert rest == {"other": 1}
    with pytest.raises(ConfigError, match="quantize_lm_head=3"):
        TLEInt8Config.from_dict({}, quantize_lm_head=3)


def test_equality_is_by_options():
    assert TLEInt8Config() == TLEInt8Config()
    assert TLEInt8Config() != TLEInt8Config(quantize_lm_head=True)
    assert TLEInt8Config() != {"quant_method": "tle_int8"}


@pytest.mark.parametrize(
    ("key", "near"),
    [("modules_to_not_covert", "modules_to_not_convert"), ("quantize_head", "quantize_lm_head")],
)
def test_unknown_keys_are_refused_with_the_nearest(key, near):
    with pytest.raises(ConfigError, match=f"no option '{key}'. Did you mean '{near}'"):
        TLEInt8Config(**{key: []})


def test_unknown_key_far_from_any_option():
    with pytest.raises(
        ConfigError,
        match="'zz'. The options are modules_to_not_convert, quantize_lm_head, modules_to_convert",
    ):
        TLEInt8Config(zz=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules_to_not_convert": "lm_head"}, "is not a list"),
        ({"modules_to_not_convert": [3]}, "modules_to_not_convert holds 3"),
        ({"modules_to_not_convert": ["re:("]}, "no valid regular expression"),
        ({"modules_to_convert": "mlp"}, "modules_to_convert='mlp' is not a list"),
        ({"modules_to_convert": ["re:["]}, "modules_to_convert holds 're:\\['.*no valid regular expression"),
        ({"quantize_lm_head": "yes"}, "quantize_lm_head='yes': True or False"),
        ({"bits": 4}, "bits=4 contradicts"),
        ({"quant_method": "gptq"}, "quant_method='gptq' contradicts"),
        ({"format_version": 2}, r"format_version=2 and this release reads 1.*pip install -U"),
        ({"quantize_lm_head": True, "modules_to_not_convert": ["lm_head"]}, "contradicts modules_to_not_convert"),
        ({"quantize_lm_head": True, "modules_to_not_convert": ["re:.*head"]}, "Drop one of the two"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ConfigError, match=message):
        TLEInt8Config(**options)


def test_is_a_value_error():
    with pytest.raises(ValueError, match="bits=4"):
        TLEInt8Config(bits=4)
