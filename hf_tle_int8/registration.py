"""Making transformers know TLEInt8Config; done once, by ``import hf_tle_int8``.

It happens while transformers is being imported, so that what needs the rest of transformers is imported at first use.
"""

import copy
import functools
import logging
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hf_tle_int8.errors import UnsupportedSchemeError

if TYPE_CHECKING:
    from hf_tle_int8.config import TLEInt8Config
    from hf_tle_int8.quantizer import TLEInt8HfQuantizer

# The module of transformers that holds the known methods of quantization.
REGISTRY = "transformers.quantizers.auto"

_MARK = "_tle_int8_wrapped"

logger = logging.getLogger(__name__)


def register(auto: ModuleType) -> None:
    """Register the configuration and the quantizer in ``auto``, the module `REGISTRY`; again, it changes nothing.

    Raises:
        ImportError: this release of transformers has no such registry.
    """
    try:
        from hf_tle_int8.config import QUANT_METHOD, TLEInt8Config

        auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QUANT_METHOD] = TLEInt8Config
        auto.AUTO_QUANTIZER_MAPPING[QUANT_METHOD] = _quantizer
        merge = auto.AutoHfQuantizer.merge_quantization_configs
    except (AttributeError, ImportError) as error:
        version = getattr(sys.modules["transformers"], "__version__", "of an unknown version")
        raise ImportError(
            f"hf_tle_int8 cannot register with transformers {version}: {error}. "
            "Install a release that it supports (pip install hf_tle_int8 transformers), or uninstall hf_tle_int8."
        ) from error
    if not hasattr(merge, _MARK):
        auto.AutoHfQuantizer.merge_quantization_configs = _accept_compressed_tensors(merge)


def _quantizer(quantization_config: "TLEInt8Config", **kwargs: Any) -> "TLEInt8HfQuantizer":
    """What transformers calls instead of the class, whose module needs more of transformers than is imported yet."""
    from hf_tle_int8.quantizer import TLEInt8HfQuantizer

    return TLEInt8HfQuantizer(quantization_config, **kwargs)


def _accept_compressed_tensors(merge: Any) -> Any:
    """Wrap ``merge_quantization_configs``, which refuses a configuration of another class than the checkpoint's.

    Only calls with a `TLEInt8Config` as argument and a checkpoint of another method are treated; all others pass.
    """

    @functools.wraps(merge)
    def merge_quantization_configs(quantization_config: Any, quantization_config_from_args: Any) -> Any:
        from hf_tle_int8.config import QUANT_METHOD, TLEInt8Config

        if isinstance(quantization_config_from_args, TLEInt8Config):
            found = quantization_config
            found = found if isinstance(found, Mapping) else found.to_dict()
            method = getattr(found.get("quant_method"), "value", found.get("quant_method"))
            given, dequantize = _without_dequantize(quantization_config_from_args)
            own = _own_config({**found, "quant_method": method}, given)
            if own is None:
                own = merge(quantization_config, None if dequantize and given == TLEInt8Config() else given)
            own = copy.copy(own)
            own.dequantize = dequantize
            own.asked = given if method == QUANT_METHOD else None
            return own
        return merge(quantization_config, quantization_config_from_args)

    setattr(merge_quantization_configs, _MARK, True)
    return merge_quantization_configs


def _without_dequantize(given: "TLEInt8Config") -> "tuple[TLEInt8Config, bool]":
    """The options that say how to quantize, and whether to undo that, which is asked anew for each loading."""
    rest = copy.copy(given)
    rest.dequantize = False
    return rest, given.dequantize


def _own_config(found: dict[str, Any], given: "TLEInt8Config") -> "TLEInt8Config | None":
    """The configuration of a compressed-tensors checkpoint as ours; None where the checkpoint is of our own method."""
    from hf_tle_int8 import compressed_tensors
    from hf_tle_int8.config import QUANT_METHOD, TLEInt8Config

    method = found["quant_method"]
    if method == compressed_tensors.QUANT_METHOD:
        if given != TLEInt8Config():
            logger.warning(
                "the checkpoint is quantized already: the options of TLEInt8Config have no effect on it, its "
                "own list of what stays in float holds."
            )
        return compressed_tensors.config_from_compressed_tensors(found)
    if method != QUANT_METHOD:
        raise UnsupportedSchemeError(
            f"the checkpoint is quantized with quant_method={method!r}, which TLEInt8Config cannot read: its "
            f"weights are no longer floating point. Load the float original of this model with "
            f"TLEInt8Config(), or load this checkpoint without quantization_config."
        )
    return None
