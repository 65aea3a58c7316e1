"""TLEInt8Config: the options of INT8 loading, each one documented and validated."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from hf_tle_int8.errors import ConfigError
from hf_tle_int8.matching import ModuleMatcher, check_patterns

QUANT_METHOD = "tle_int8"

# Of the files that `save_pretrained` writes; raised when an older release could not read them.
FORMAT_VERSION = 1

_OPTIONS = ("modules_to_not_convert", "quantize_lm_head", "modules_to_convert", "dequantize")
_FIXED = {
    "quant_method": QUANT_METHOD,
    "bits": 8,
    "format_version": FORMAT_VERSION,
    "requires": "pip install hf_tle_int8, and `import hf_tle_int8` before from_pretrained",
}


class TLEInt8Config(QuantizationConfigMixin):
    """Load a model in INT8: weights per output channel, activations per token, dynamic (W8A8).

    Args:
        modules_to_not_convert: modules to leave in floating point, ADDED to the defaults (the output head and weights
            tied to an embedding). A plain entry such as ``"mlp"`` or ``"layers.0"`` matches every module with these
            parts in its name; ``"re:"`` begins a regular expression that is tried at the start of the name.
        quantize_lm_head: also quantize the output head. One that shares the weight of the embedding is untied from it:
            an int8 copy beside the float embedding, and ``tie_word_embeddings=False`` in the model's configuration.
        modules_to_convert: convert only modules that this list of names and ``"re:"`` patterns matches; None converts
            all. What `modules_to_not_convert` or a default names stays in floating point even if it is listed here.
            Loading resolves it: a saved configuration has none, and a complete `modules_to_not_convert`.
        dequantize: load an INT8 checkpoint in float: ``weight * weight_scale`` in fp32, rounded once to the dtype.
        kwargs: what `to_dict` adds for a reader of ``config.json``; anything else is refused.

    Attributes:
        int8_modules: set when a model has been loaded, no option: the names of its INT8 layers, numbers as ``*``. A
            checkpoint that lacks one of them is damaged.
        asked: set while an INT8 checkpoint is loaded: the options given with it, which it must fit.

    Raises:
        ConfigError: an unknown option, a malformed value, or options that contradict each other.
    """

    quant_method: Any

    def __init__(
        self,
        modules_to_not_convert: Iterable[str] | None = None,
        quantize_lm_head: bool = False,
        modules_to_convert: Iterable[str] | None = None,
        dequantize: bool = False,
        **kwargs: Any,
    ):
        self.quant_method = QUANT_METHOD
        self.modules_to_not_convert = modules_to_not_convert
        self.quantize_lm_head = quantize_lm_head
        self.modules_to_convert = modules_to_convert
        self.dequantize = dequantize
        self.int8_modules: list[str] | None = kwargs.pop("int8_modules", None)
        self.asked: TLEInt8Config | None = None
        _check_fixed(kwargs)
        self.post_init()

    def post_init(self) -> None:
        """Validate every option; raises `ConfigError`."""
        for option in ("modules_to_not_convert", "modules_to_convert", "int8_modules"):
            if getattr(self, option) is not None:
                setattr(self, option, check_patterns(getattr(self, option), option))
        for name in ("quantize_lm_head", "dequantize"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"{name}={value!r}: True or False is needed.")
        if self.quantize_lm_head and ModuleMatcher(self.modules_to_not_convert or []).matches(["lm_head"]):
            raise ConfigError(
                "quantize_lm_head=True contradicts modules_to_not_convert, which holds the lm_head "
                f"({self.modules_to_not_convert!r}). Drop one of the two."
            )

    def to_dict(self) -> dict[str, Any]:
        """What ``config.json`` stores; ``TLEInt8Config(**config.to_dict())`` is an equal configuration."""
        skipped = None if self.modules_to_not_convert is None else list(self.modules_to_not_convert)
        # Absent where they say nothing: a saved configuration stays what earlier releases read.
        lists = {"modules_to_convert": self.modules_to_convert, "int8_modules": self.int8_modules}
        optional: dict[str, Any] = {key: list(value) for key, value in lists.items() if value is not None}
        if self.dequantize:
            optional["dequantize"] = True
        return {**_FIXED, "modules_to_not_convert": skipped, "quantize_lm_head": self.quantize_lm_head, **optional}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TLEInt8Config) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> "TLEInt8Config | tuple[TLEInt8Config, dict[str, Any]]":
        """Build a configuration from what `to_dict` returned; ``kwargs`` that are options override it.

        Raises:
            ConfigError: see `TLEInt8Config`.
        """
        overrides = {key: kwargs.pop(key) for key in _OPTIONS if key in kwargs}
        config = cls(**{**config_dict, **overrides})
        return (config, kwargs) if return_unused_kwargs else config

    def get_loading_attributes(self) -> dict[str, Any]:
        """Options that ``from_pretrained(..., quantization_config=...)`` may change on an INT8 checkpoint."""
        return {"dequantize": self.dequantize}


def method_of(config: Any) -> str | None:
    """The method of a ``quantization_config``, an object or a dictionary; None where there is none."""
    method = config.get("quant_method") if isinstance(config, Mapping) else getattr(config, "quant_method", None)
    return getattr(method, "value", method)


def _check_fixed(found: dict[str, Any]) -> None:
    for key, value in found.items():
        if key not in _FIXED:
            near = difflib.get_close_matches(key, _OPTIONS, n=1, cutoff=0.4)
            hint = f"Did you mean {near[0]!r}?" if near else f"The options are {', '.join(_OPTIONS)}."
            raise ConfigError(f"TLEInt8Config has no option {key!r}. {hint}")
        if key == "format_version" and value != FORMAT_VERSION:
            raise ConfigError(
                f"this checkpoint has format_version={value!r} and this release reads {FORMAT_VERSION}: it was written "
                f"by another hf_tle_int8. Upgrade with pip install -U hf_tle_int8."
            )
        if key in ("quant_method", "bits") and value != _FIXED[key]:
            raise ConfigError(
                f"{key}={value!r} contradicts this configuration, which is {key}={_FIXED[key]!r} (W8A8). "
                f"Drop it, or use the library that {value!r} belongs to."
            )
