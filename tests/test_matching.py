import logging

import pytest

from hf_tle_int8.errors import ConfigError
from hf_tle_int8.matching import ModuleMatcher, check_patterns, name_aliases, warn_unmatched


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("lm_head", "lm_head", True),
        ("lm_head", "model.lm_head", True),
        ("lm_head", "lm_head2", False),
        ("head", "lm_head", False),
        ("mlp", "model.layers.3.mlp.up_proj", True),
        ("layers.1", "model.layers.1.mlp.up_proj", True),
        ("layers.1", "model.layers.10.mlp.up_proj", False),
        ("up_proj", "model.layers.1.mlp.up_proj", True),
        ("k", "model.bulk", False),
        ("model.layers.0.mlp", "model.layers.0.mlp.up_proj", True),
        ("re:.*down_proj", "model.layers.0.mlp.down_proj", True),
        ("re:down_proj", "model.layers.0.mlp.down_proj", False),
        (r"re:model\.layers\.\d+\.mlp", "model.layers.10.mlp.up_proj", True),
        ("re:lm_head$", "lm_head2", False),
        ("a.b", "axb", False),
    ],
)
def test_matches(pattern, name, expected):
    assert ModuleMatcher([pattern]).matches([name]) is expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], False),
        (["lm_head", "layers.1"], False),
        ([r"re:.*\.experts\.\d+\."], True),
        ([r"re:layers\.0\.experts\.[01]\..*_proj$"], True),
        (["experts.0", "experts.1"], True),
        ([r"re:layers\.0\.experts\.\d\.w[123]$"], True),
    ],
)
def test_matches_experts(patterns, expected):
    assert ModuleMatcher(patterns).matches_experts(["model.layers.0.experts", "layers.0.experts"], 2) is expected


@pytest.mark.parametrize("pattern", ["experts.1", "down_proj", r"re:.*\.experts\.\d\.w1$", "experts.0.up_proj"])
def test_some_experts_are_refused(pattern):
    matcher = ModuleMatcher([pattern])
    assert not matcher.matches_experts(["m.experts"], 2)
    with pytest.raises(
        ConfigError,
        match=r"skip holds .*, which matches m\.experts\.\d\.\w+ and other experts, \d of 6 .* List the module",
    ):
        matcher.check_parts()


def test_an_entry_for_linears_and_a_part_of_experts(caplog):
    matcher = ModuleMatcher(["down_proj"], "modules_to_not_convert")
    assert matcher.matches(["m.down_proj"])
    assert not matcher.matches_experts(["m.experts"], 2)
    matcher.check_parts()
    assert "modules_to_not_convert: 'down_proj' matches m.experts.0.down_proj and other experts, 2 of 6" in caplog.text


def test_any_alias_suffices():
    assert ModuleMatcher(["model.layers.0"]).matches(name_aliases("layers.0.mlp", "model"))


@pytest.mark.parametrize(
    ("name", "prefix", "expected"),
    [
        ("layers.0", "model", ["layers.0", "model.layers.0"]),
        ("model.layers.0", "model", ["model.layers.0", "layers.0"]),
        ("modelling.x", "model", ["modelling.x", "model.modelling.x"]),
        ("layers.0", "", ["layers.0"]),
    ],
)
def test_name_aliases(name, prefix, expected):
    assert name_aliases(name, prefix) == expected


@pytest.mark.parametrize("patterns", ["lm_head", 3, None])
def test_not_a_list_is_refused(patterns):
    with pytest.raises(ConfigError, match="skip=.* is not a list"):
        check_patterns(patterns, "skip")


@pytest.mark.parametrize("pattern", ["", " ", "re:", 3, None, ["x"]])
def test_entries_are_refused(pattern):
    with pytest.raises(ConfigError, match="skip holds .*each entry is a module name"):
        check_patterns(["fine", pattern], "skip")


def test_invalid_expression_is_refused():
    with pytest.raises(ConfigError, match=r"'re:\(unclosed'.*no valid regular expression.*drop the 're:'"):
        check_patterns(["re:(unclosed"], "skip")


def test_generators_are_accepted_once():
    assert check_patterns((name for name in ("a", "b")), "skip") == ["a", "b"]


def test_unmatched_patterns_are_named(caplog):
    matcher = ModuleMatcher(["used", "unused", "re:nowhere"], option="modules_to_not_convert")
    matcher.matches(["a.used"])
    assert matcher.unmatched() == ["unused", "re:nowhere"]
    with caplog.at_level(logging.WARNING, logger="hf_tle_int8"):
        warn_unmatched(matcher)
    assert "modules_to_not_convert: 'unused', 're:nowhere' matched no linear layer" in caplog.text


def test_nothing_is_logged_when_all_match(caplog):
    matcher = ModuleMatcher(["used"])
    matcher.matches(["used"])
    warn_unmatched(matcher)
    assert not caplog.records
