"""Making transformers know TLEInt8Config; done once, by ``import hf_tle_int8``."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

from transformers.quantizers import auto

from hf_tle_int8 import compressed_tensors
from hf_tle_int8.config import QUANT_METHOD, TLEInt8Config
from hf_tle_int8.errors import UnsupportedSchemeError
from hf_tle_int8.quantizer import TLEInt8HfQuantizer

_MARK = "_tle_int8_wrapped"

logger = logging.getLogger(__name__)


def register() -> None:
    """Register the configuration and the quantizer with transformers; a second call changes nothing."""
    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QUANT_METHOD] = TLEInt8Config
    auto.AUTO_QUANTIZER_MAPPING[QUANT_METHOD] = TLEInt8HfQuantizer
    merge = auto.AutoHfQuantizer.merge_quantization_configs
    if not hasattr(merge, _MARK):
        auto.AutoHfQuantizer.merge_quantization_configs = _accept_compressed_tensors(merge)


def _accept_compressed_tensors(merge: Any) -> Any:
    """Wrap ``merge_quantization_configs``, which refuses a configuration of another class than the checkpoint's.

    Only calls with a `TLEInt8Config` as argument and a checkpoint of another method are treated; all others pass.
    """

    @functools.wraps(merge)
    def merge_quantization_configs(quantization_config: Any, quantization_config_from_args: Any) -> Any:
        if isinstance(quantization_config_from_args, TLEInt8Config):
            found = quantization_config
            found = found if isinstance(found, Mapping) else found.to_dict()
            method = getattr(found.get("quant_method"), "value", found.get("quant_method"))
            if method == compressed_tensors.QUANT_METHOD:
                if quantization_config_from_args != TLEInt8Config():
                    logger.warning(
                        "the checkpoint is quantized already: the options of TLEInt8Config have no effect on it, its "
                        "own list of what stays in float holds."
                    )
                return compressed_tensors.config_from_compressed_tensors({**found, "quant_method": method})
            if method != QUANT_METHOD:
                raise UnsupportedSchemeError(
                    f"the checkpoint is quantized with quant_method={method!r}, which TLEInt8Config cannot read: its "
                    f"weights are no longer floating point. Load the float original of this model with "
                    f"TLEInt8Config(), or load this checkpoint without quantization_config."
                )
        return merge(quantization_config, quantization_config_from_args)

    setattr(merge_quantization_configs, _MARK, True)
    return merge_quantization_configs
