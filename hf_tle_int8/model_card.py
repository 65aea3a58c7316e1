"""The model card (README.md) of an INT8 checkpoint: where it comes from, and what loading it takes."""

from collections.abc import Iterator
from pathlib import Path

import transformers
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from transformers import PreTrainedModel

from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear

_FILE = "README.md"

# What transformers writes for a repository without a card, to be replaced by ours.
_GENERATED = "that has been pushed on the Hub. This model card has been automatically generated."

_IMPORT = "import hf_tle_int8  # pip install hf_tle_int8; without it, transformers takes the int8 codes for weights\n"


def write_missing(model: PreTrainedModel, folder: Path) -> None:
    """Write the card of ``model``, an INT8 model that was saved to ``folder``, unless a README.md is there."""
    described = getattr(model.config, "quantization_config", None) is not None
    if described and folder.is_dir() and not (folder / _FILE).exists():
        _card(model).save(folder / _FILE)


def replace_generated(model: PreTrainedModel, folder: Path) -> None:
    """Write the card of ``model`` in the place of one that transformers generated; its tags stay."""
    file = folder / _FILE
    if file.is_file() and _GENERATED in file.read_text(encoding="utf-8"):
        _card(model, ModelCard.load(file).data.tags or []).save(file)


def base_model(model: PreTrainedModel) -> str | None:
    """The name on the Hub of the float model that ``model`` was quantized from; None where it is not known."""
    source = model.config.name_or_path
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not quantizer.pre_quantized:
        return source if _is_name_on_hub(source) else None
    card = Path(source) / _FILE
    recorded = ModelCard.load(card).data.base_model if source and card.is_file() else None
    return recorded if isinstance(recorded, str) else None


def _is_name_on_hub(name: str | None) -> bool:
    if not name or Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _card(model: PreTrainedModel, tags: list[str] | None = None) -> ModelCard:
    base = base_model(model)
    data = ModelCardData(
        base_model=base,
        base_model_relation=base and "quantized",
        library_name="transformers",
        tags=[*(tags or []), "int8", "w8a8", "cpu", "hf_tle_int8"],
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(_text(model, base)))


def _text(model: PreTrainedModel, base: str | None) -> Iterator[str]:
    name = type(model).__name__
    layers, experts = (sum(isinstance(m, cls) for m in model.modules()) for cls in (TLEInt8Linear, TLEInt8Experts))
    of_experts = f", and the experts of {experts}," if experts else ""
    of_base = f" of [{base}](https://huggingface.co/{base})" if base else ""
    yield f"# {name} in INT8\n"
    yield f"INT8 (W8A8, dynamic){of_base}, made with hf_tle_int8. {layers} linear layers{of_experts}"
    yield "have int8 weights with one scale for each output channel; activations are quantized to int8 for each token"
    yield "at run time. The rest is in"
    yield f"{str(model.dtype).removeprefix('torch.')}. It runs on CPUs (AArch64, x86-64).\n"
    yield "## Load it\n"
    auto = name if hasattr(transformers, name) else "AutoModel"
    own = isinstance(model.config.quantization_config, TLEInt8Config)
    argument = "" if own else ", quantization_config=hf_tle_int8.TLEInt8Config()"
    yield f"```python\n{_IMPORT if own else _IMPORT.partition(';')[0]}from transformers import {auto}\n"
    yield f'model = {auto}.from_pretrained("the name or folder of this model"{argument})\n```'
    if not own:
        yield "\nStock transformers with the compressed-tensors package loads it as it is, without either."
