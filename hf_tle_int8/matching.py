"""Which modules a list of names and patterns means.

A plain entry matches a module when its dot-separated parts stand one after another in the module's name: ``"lm_head"``,
``"layers.1"`` (not ``layers.10``), ``"mlp"`` (everything inside each ``mlp``). An entry that begins with ``re:`` is a
regular expression, tried at the start of the name with `re.match`, as compressed-tensors does.
"""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hf_tle_int8.errors import ConfigError

REGEX_PREFIX = "re:"

# What checkpoints call the projections of one expert.
_EXPERT_PARTS = (("gate_proj", "up_proj", "down_proj"), ("w1", "w2", "w3"))

logger = logging.getLogger(__name__)


def check_patterns(patterns: object, option: str) -> list[str]:
    """Return ``patterns`` as a list, or raise `ConfigError` naming the entry of ``option`` that cannot be used."""
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise ConfigError(
            f"{option}={patterns!r} is not a list: give an iterable of module names, for example [{str(patterns)!r}]."
        )
    checked = list(patterns)
    for pattern in checked:
        _matcher(pattern, option)
    return checked


def _matcher(pattern: object, option: str) -> Callable[[str], bool]:
    if not isinstance(pattern, str) or not pattern.removeprefix(REGEX_PREFIX).strip():
        raise ConfigError(
            f"{option} holds {pattern!r}: each entry is a module name such as 'lm_head', or 're:' and an expression."
        )
    if pattern.startswith(REGEX_PREFIX):
        try:
            expression = re.compile(pattern.removeprefix(REGEX_PREFIX))
        except re.error as error:
            raise ConfigError(
                f"{option} holds {pattern!r}, which is no valid regular expression ({error}). "
                f"Correct it, or drop the 're:' to match the name as it stands."
            ) from error
        return lambda name: expression.match(name) is not None
    return lambda name: f".{pattern}." in f".{name}."


@dataclass
class ModuleMatcher:
    """Names and ``re:`` patterns, and which of them have matched so far.

    Args:
        patterns: module names and ``re:`` patterns.
        option: the option that they come from, for messages.
    """

    patterns: Iterable[str]
    option: str = "skip"
    _matchers: dict[str, Callable[[str], bool]] = field(init=False, repr=False)
    _matched: set[str] = field(init=False, default_factory=set, repr=False)
    # Pattern -> which part of the experts of a layer it matches.
    _parts: dict[str, str] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.patterns = check_patterns(self.patterns, self.option)
        self._matchers = {pattern: _matcher(pattern, self.option) for pattern in self.patterns}

    def matches(self, names: Iterable[str]) -> bool:
        """Whether any pattern matches any of ``names``, the names under which one module is known."""
        hits = self.hits(names)
        self._matched |= hits
        return bool(hits)

    def hits(self, names: Iterable[str]) -> set[str]:
        """The patterns that match any of ``names``; these do not count as matched for that."""
        names = list(names)
        return {pattern for pattern, matcher in self._matchers.items() if any(map(matcher, names))}

    def matches_experts(self, names: Iterable[str], count: int) -> bool:
        """Whether all of the experts that a model has in one module are matched, by their names in checkpoints.

        Patterns that match some of the experts, or of their projections, are left to `check_parts`.

        Args:
            names: of the module; its experts are called ``<name>.3.up_proj``.
            count: of its experts.
        """
        names = list(names)
        parts: dict[str, str] = {}
        for projections in _EXPERT_PARTS:
            each = [f"{expert}.{projection}" for expert in range(count) for projection in projections]
            hits = {tail: found for tail in each if (found := self.hits(f"{name}.{tail}" for name in names))}
            patterns = {pattern for found in hits.values() for pattern in found}
            if len(hits) == len(each):
                self._matched |= patterns
                return True
            if hits:
                some = f"{names[0]}.{next(iter(hits))} and other experts, {len(hits)} of {len(each)} matrices"
                parts |= dict.fromkeys(patterns, f"{some} of this layer: its experts are one module")
        self._parts = {**parts, **self._parts}
        return False

    def check_parts(self) -> None:
        """Tell of patterns that match a part of the experts of a layer, which has no effect on them.

        Raises:
            ConfigError: such a pattern matches nothing else. Otherwise, a warning is logged.
        """
        for pattern, some in self._parts.items():
            if pattern not in self._matched:
                raise ConfigError(
                    f"{self.option} holds {pattern!r}, which matches {some}, which becomes INT8 as a whole or not at "
                    f"all. List the module, or none of its experts."
                )
            logger.warning(
                "%s: %r matches %s, on which it has no effect. List the module to mean all of it.",
                self.option,
                pattern,
                some,
            )

    def unmatched(self) -> list[str]:
        """The patterns that have matched nothing so far, in the order given."""
        return [pattern for pattern in self._matchers if pattern not in self._matched]


def warn_unmatched(matcher: ModuleMatcher) -> None:
    """Log a warning that names the patterns of ``matcher`` which matched no linear."""
    if unmatched := matcher.unmatched():
        logger.warning(
            "%s: %s matched no linear layer. Names are those of model.named_modules(); 're:' patterns match from the "
            "start of a name.",
            matcher.option,
            ", ".join(map(repr, unmatched)),
        )


def pattern_for(name: str, apart_from: Iterable[str]) -> str:
    """A pattern for the module called ``name`` that matches none of ``apart_from``: the name, or ``re:`` anchored."""
    if ModuleMatcher([name]).matches(apart_from):
        return f"{REGEX_PREFIX}{re.escape(name)}$"
    return name


def without_numbers(name: str) -> str:
    """A name with ``*`` for each part that is a number: one for all layers of a kind."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def name_aliases(name: str, base_prefix: str) -> list[str]:
    """The names of one module in a base model and in the same model under a head: ``layers.0`` and ``model.layers.0``.

    Args:
        name: the module's name in the model at hand.
        base_prefix: where a head model keeps its base model (``base_model_prefix`` in transformers), or ``""``.
    """
    if not base_prefix:
        return [name]
    if name.startswith(f"{base_prefix}."):
        return [name, name.removeprefix(f"{base_prefix}.")]
    return [name, f"{base_prefix}.{name}"]
