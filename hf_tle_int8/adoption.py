"""Making a model of transformers that was converted in memory one that saves and loads as an INT8 model."""

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.quantizer import TLEInt8HfQuantizer


def _models_of_transformers(model: nn.Module) -> Iterator[PreTrainedModel]:
    """``model`` itself, or the outermost ones inside of it."""
    if isinstance(model, PreTrainedModel):
        yield model
    else:
        for child in model.children():
            yield from _models_of_transformers(child)


def check_adoptable(model: nn.Module) -> None:
    """Raise `ConfigError` where a model of transformers in ``model`` is quantized by another method."""
    for found in _models_of_transformers(model):
        quantizer = getattr(found, "hf_quantizer", None)
        if quantizer is not None and not isinstance(quantizer, TLEInt8HfQuantizer):
            raise ConfigError(
                f"{type(found).__name__} is quantized already (quant_method="
                f"{quantizer.quantization_config.quant_method!r}): a model has one method. Load the float original."
            )


def adopt(model: nn.Module) -> None:
    """Give each model of transformers in ``model`` the quantizer and the configuration that describe its INT8 layers.

    Without them, ``save_pretrained`` would write int8 codes that a later ``from_pretrained`` takes for weights.
    """
    for found in _models_of_transformers(model):
        quantizer = getattr(found, "hf_quantizer", None)
        if quantizer is None:
            quantizer = TLEInt8HfQuantizer(TLEInt8Config(), pre_quantized=False)
            found.hf_quantizer = quantizer
        quantizer.take_over(found)
