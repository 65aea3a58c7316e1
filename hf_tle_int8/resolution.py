"""From the options of a configuration to what becomes INT8 in one model of transformers."""

import logging
from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel

from hf_tle_int8 import defaults
from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.heads import heads_to_untie
from hf_tle_int8.matching import ModuleMatcher, name_aliases, warn_unmatched, without_numbers
from hf_tle_int8.nn.conv1d import is_linear
from hf_tle_int8.nn.expert_layout import is_experts
from hf_tle_int8.selection import NOT_LISTED, SKIPPED, TIED, Rules, Selection, select_linears

logger = logging.getLogger(__name__)

_IN_FLOAT = "in float in the checkpoint"


def of_checkpoint(
    config: TLEInt8Config | None, model: PreTrainedModel, options: TLEInt8Config
) -> tuple[Selection, set[str]]:
    """What loading a checkpoint on the CPU makes INT8 of ``model``.

    Args:
        config: of an INT8 checkpoint; None for a float one.
        model: on any device.
        options: with which a float one is quantized.

    Returns:
        See `resolve`.
    """

    def names_of(name: str) -> list[str]:
        return name_aliases(name, model.base_model_prefix)

    if config is None:
        return resolve(options, model, names_of)
    return recorded(config, model, names_of), set()


def recorded(config: TLEInt8Config, model: PreTrainedModel, names_of: Callable[[str], list[str]]) -> Selection:
    """What an INT8 checkpoint holds as INT8: its list is complete, it was resolved when the model was quantized."""
    listed = ModuleMatcher(config.modules_to_not_convert or [])
    skips = {**defaults.tied_linears(model), **_float_experts(config, model, names_of)}
    if config.int8_modules is None:
        # Of compressed-tensors, which quantizes nn.Linear alone.
        skips |= {name: _IN_FLOAT for name, m in model.named_modules() if is_linear(m) and not isinstance(m, nn.Linear)}
    return select_linears(model, Rules(listed, skips, names_of=names_of, sharing=defaults.shared_linears(model)))


def _float_experts(
    config: TLEInt8Config, model: PreTrainedModel, names_of: Callable[[str], list[str]]
) -> dict[str, str]:
    """The experts that were in float when the checkpoint was saved, by its list of INT8 layers -> the reason."""
    recorded = config.int8_modules
    if recorded is None:
        return {}
    names = {name: map(without_numbers, names_of(name)) for name, m in model.named_modules() if is_experts(m)}
    return {name: _IN_FLOAT for name, every in names.items() if set(recorded).isdisjoint(every)}


def resolve(
    config: TLEInt8Config, model: PreTrainedModel, names_of: Callable[[str], list[str]]
) -> tuple[Selection, set[str]]:
    """What ``config`` asks for in a float ``model``; what it cannot have is said in a warning.

    Args:
        config: the options.
        model: on any device.
        names_of: the names under which patterns know a module, from its name in the model.

    Returns:
        What to convert while loading, and the tied heads to convert after it (see `heads.untie`).

    Raises:
        ConfigError: ``quantize_lm_head`` contradicts ``modules_to_not_convert``, the model cannot untie its head, or an
            entry means a part of the experts of a layer.
    """
    heads = defaults.head_names(model)
    skips = defaults.default_skips(model, heads=not config.quantize_lm_head)
    only = config.modules_to_convert
    tied: set[str] = set()
    if config.quantize_lm_head:
        tied = heads_to_untie(model, heads)
        skips = {name: reason for name, reason in skips.items() if name not in tied or reason == defaults.FP32}
        only = None if only is None else [*only, *heads]
    skip = ModuleMatcher(config.modules_to_not_convert or [], option="modules_to_not_convert")
    wanted = None if only is None else ModuleMatcher(only, option="modules_to_convert")
    rules = Rules(skip, skips, names_of=names_of, only=wanted, sharing=defaults.shared_linears(model))
    selection = select_linears(model, rules)
    untied = {head for head in tied if head in selection.convert or head in selection.kept.get(TIED, [])}
    selection.take_out(untied)
    for matcher in (skip, *([] if wanted is None else [wanted])):
        matcher.check_parts()
        warn_unmatched(matcher)
    if wanted is not None:
        _warn_of_listed(wanted, selection, model, names_of)
    if config.quantize_lm_head:
        _check_heads(model, heads, selection)
    return selection, untied


def check_asked(
    config: TLEInt8Config, selection: Selection, model: PreTrainedModel, names_of: Callable[[str], list[str]]
) -> None:
    """Raise `ConfigError` where options that are given with an INT8 checkpoint ask for others than its layers.

    Args:
        config: of the checkpoint, with what was ``asked``.
        selection: see `recorded`.
        model: in float, on any device.
        names_of: the names under which patterns know a module, from its name in the model.
    """
    asked = config.asked
    if asked is None or asked == TLEInt8Config():
        return
    int8 = {name for name in [*selection.convert, *selection.experts] if _was_saved(config, names_of(name))}
    chosen, untied = resolve(asked, model, names_of)
    wanted = {*chosen.convert, *chosen.experts, *untied}
    skip = ModuleMatcher(asked.modules_to_not_convert or [])
    skipped = {*chosen.kept.get(SKIPPED, []), *(name for name in int8 if skip.matches(names_of(name)))}
    heads = defaults.head_names(model) if asked.quantize_lm_head else set()
    differing = {
        "modules_to_not_convert": int8 & skipped,
        "quantize_lm_head": (wanted & heads) - int8,
        "modules_to_convert": set() if asked.modules_to_convert is None else wanted ^ int8,
    }
    for option, names in differing.items():
        if names:
            first = min(names)
            raise ConfigError(
                f"{option}={getattr(asked, option)!r}, but the checkpoint is INT8 already, and {first} is "
                f"{'INT8' if first in int8 else 'in float'} in it. Load it without quantization_config, or load the "
                f"float original with these options."
            )


def _was_saved(config: TLEInt8Config, names: list[str]) -> bool:
    recorded = config.int8_modules
    return recorded is None or any(without_numbers(name) in recorded for name in names)


def _warn_of_listed(
    listed: ModuleMatcher, selection: Selection, model: PreTrainedModel, names_of: Callable[[str], list[str]]
) -> None:
    """Log a warning for what ``modules_to_convert`` asks for and cannot have."""
    served = {entry for name in [*selection.convert, *selection.experts] for entry in listed.hits(names_of(name))}

    def is_asked(name: str) -> bool:
        entries, module = listed.hits(names_of(name)), model.get_submodule(name)
        # Of a module that is no linear, such as a router, only an entry speaks that means nothing else.
        return bool(entries if is_linear(module) or is_experts(module) else entries - served)

    for reason, names in selection.kept.items():
        asked = [name for name in names if is_asked(name)]
        if asked and reason not in (SKIPPED, NOT_LISTED):
            logger.warning(
                "modules_to_convert names %s, which stays in floating point all the same: %s.",
                ", ".join(asked[:3]) + (", …" if len(asked) > 3 else ""),
                reason.rstrip(","),
            )


def _check_heads(model: PreTrainedModel, heads: set[str], selection: Selection) -> None:
    if not heads:
        logger.warning("quantize_lm_head=True has no effect: %s has no output head.", type(model).__name__)
    for reason, names in selection.kept.items():
        if not (kept := sorted(heads.intersection(names))):
            continue
        if reason == SKIPPED:
            raise ConfigError(
                f"quantize_lm_head=True contradicts modules_to_not_convert, which holds {kept[0]!r}, the output head "
                f"of {type(model).__name__}. Drop one of the two."
            )
        logger.warning(
            "quantize_lm_head=True has no effect: %s stays in floating point: %s.", kept[0], reason.rstrip(",")
        )
