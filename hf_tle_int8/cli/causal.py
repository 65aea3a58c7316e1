"""Causal language models and their tokenizers, for the commands: what cannot run is told before it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from hf_tle_int8.checks import check_complete
from hf_tle_int8.config import QUANT_METHOD, TLEInt8Config
from hf_tle_int8.errors import CheckpointError, ConfigError, TLEInt8Error
from hf_tle_int8.inspection import model_class


@dataclass(frozen=True)
class CausalCheckpoint:
    """A checkpoint of a causal language model, of which the configuration has been read.

    Attributes:
        name: its folder, or its name on the Hub.
        config: of the model.
    """

    name: str
    config: PreTrainedConfig

    @property
    def quantized(self) -> bool:
        """Whether its weights are quantized, by whatever method."""
        return getattr(self.config, "quantization_config", None) is not None

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return self.config.get_text_config().vocab_size

    @property
    def positions(self) -> int | None:
        """The most tokens that the model was made for; None where nothing limits them."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def check_length(self, tokens: int, what: str) -> None:
        """Raise `ConfigError` where a sequence of ``tokens`` tokens, made by the option ``what``, is too long."""
        if self.positions is not None and tokens > self.positions:
            raise ConfigError(
                f"{what} makes sequences of {tokens} tokens, and {self.name} has positions for {self.positions}: "
                f"shorten them."
            )

    def check_tokens(self, ids: Tensor) -> Tensor:
        """``ids``, int64 of any shape; raises `ConfigError` where the model does not know one of them."""
        if ids.numel() and (largest := int(ids.max())) >= self.vocabulary:
            raise ConfigError(
                f"the tokenizer of {self.name} gives token {largest}, and the model has a vocabulary of "
                f"{self.vocabulary}: they do not belong together. Save the model's own tokenizer there."
            )
        return ids

    def check_prompt(self, prompt: Tensor) -> int:
        """The length of ``prompt``, int64 ``[1, length]``; raises `ConfigError` where it cannot be continued."""
        length = prompt.shape[1]
        if not length:
            raise ConfigError("the prompt has no tokens: write some text.")
        self.check_tokens(prompt)
        self.check_length(length + 1, "the prompt, with one token after it,")
        return length

    def load(self, dtype: str = "auto", int8: bool = True) -> PreTrainedModel:
        """Load the model: a float checkpoint is quantized on the way, an INT8 one is read as it is.

        Args:
            dtype: of what is not INT8; ``auto`` for that of the checkpoint.
            int8: False loads it in float, dequantized if it is INT8.

        Raises:
            CheckpointError: a file or a tensor is missing or damaged.
            UnsupportedSchemeError: it was quantized by another method.
        """
        options: dict[str, Any] = {}
        found = getattr(self.config, "quantization_config", None) or {}
        if (found or int8) and not (int8 and found.get("quant_method") == QUANT_METHOD):
            options["quantization_config"] = TLEInt8Config(dequantize=not int8)
        model, loaded = _from_pretrained(
            AutoModelForCausalLM, self.name, dtype=dtype, output_loading_info=True, **options
        )
        check_complete(self.name, loaded["missing_keys"])
        return model.eval()


def find(name: str) -> CausalCheckpoint:
    """Read the configuration of a checkpoint.

    Args:
        name: a folder, or a name on the Hub.

    Raises:
        CheckpointError: it cannot be found or read, or holds no causal language model.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()
    if is_path and not Path(name).is_dir():
        raise CheckpointError(f"{name} is no folder: name that of a checkpoint, or a model on the Hub.")
    try:
        config = _from_pretrained(AutoConfig, name)
    except CheckpointError as error:
        if Path(name).is_dir():
            raise
        raise CheckpointError(f"{name} is no folder here. From the Hub: {error}") from error
    cls = model_class(config.architectures)
    held = cls.__name__ if cls else config.model_type
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or (cls is not None and not cls.can_generate()):
        raise CheckpointError(
            f"{name} holds a {held}, which is no causal language model: it cannot continue a text. "
            f"Name one that can, such as a ...ForCausalLM."
        )
    return CausalCheckpoint(name, config)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        CheckpointError: it has none, or one that cannot be read.
    """
    remedy = "Save it there, with tokenizer.save_pretrained."
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        found = tokenizer("a").input_ids
    except Exception as error:  # whatever its class raises on files that are missing or do not suit it
        raise CheckpointError(f"{name} has no tokenizer that can be read: {_one_line(error)}. {remedy}") from error
    if not found:
        raise CheckpointError(f"{name} has no tokenizer, or one without a vocabulary. {remedy}")
    return tokenizer


def check_text(text: str) -> str:
    """``text``; raises `ConfigError` where it holds bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{text!r} is no text in UTF-8: convert it.") from error
    return text


def _from_pretrained(factory: Any, name: str, **options: Any) -> Any:
    try:
        return factory.from_pretrained(name, **options)
    except TLEInt8Error:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{name} cannot be loaded: {_one_line(error)}.") from error
    except Exception as error:  # whatever transformers and a model's own code raise on files that do not suit them
        raise CheckpointError(f"{name} cannot be loaded: {type(error).__name__}: {_one_line(error)}.") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
