"""Making a model of transformers that was converted in memory one that saves and loads as an INT8 model."""

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from hf_tle_int8.config import QUANT_METHOD, method_of
from hf_tle_int8.errors import ConfigError, InputTypeError
from hf_tle_int8.quantizer import take_over


def _models_of_transformers(model: nn.Module) -> Iterator[PreTrainedModel]:
    """``model`` itself, or the outermost ones inside of it."""
    if isinstance(model, PreTrainedModel):
        yield model
    else:
        for child in model.children():
            yield from _models_of_transformers(child)


def check_adoptable(model: nn.Module) -> None:
    """Raise unless the linears of ``model`` may be replaced.

    Raises:
        InputTypeError: it is no module.
        ConfigError: a model of transformers in it is quantized by another method.
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(
            f"the model is a {type(model).__name__}: a torch.nn.Module is needed, such as a loaded model."
        )
    for found in _models_of_transformers(model):
        # A part of a model shares its configuration, and has no quantizer.
        for holder in (found.config, getattr(found, "hf_quantizer", None)):
            method = method_of(getattr(holder, "quantization_config", None))
            if method not in (None, QUANT_METHOD):
                raise ConfigError(
                    f"{type(found).__name__} is quantized already (quant_method={method!r}): a model has one method. "
                    f"Load the float original."
                )


def adopt(model: nn.Module) -> None:
    """Give each model of transformers in ``model`` the quantizer and the configuration that describe its INT8 layers.

    Without them, ``save_pretrained`` would write int8 codes that a later ``from_pretrained`` takes for weights.
    """
    for found in _models_of_transformers(model):
        take_over(found)
