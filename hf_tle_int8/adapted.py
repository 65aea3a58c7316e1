"""Models with adapters of PEFT in them: which parts are adapters, and what those do with the layers beneath them."""

from typing import Any

from hf_tle_int8.errors import AdapterError

# Tuners that call the layer and leave its weight alone.
SERVED = frozenset({
    "ADALORA", "BOFT", "FOURIERFT", "GRALORA", "IA3", "LN_TUNING", "LOHA", "LOKR", "LORA", "OFT", "PVERA", "RANDLORA",
    "ROAD", "TRAINABLE_TOKENS", "VERA", "WAVEFT",
})  # fmt: skip
# Those whose layers merge into weights [K, N] where their ``fan_in_fan_out`` says so.
_TRANSPOSING = frozenset({
    "ADALORA", "FOURIERFT", "GRALORA", "IA3", "LN_TUNING", "LORA", "PVERA", "RANDLORA", "TRAINABLE_TOKENS", "VERA",
    "WAVEFT",
})  # fmt: skip
# Options of LoRA that read the weight, or are not known not to.
_LORA_VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config", "velora_config",
    "target_parameters",
)  # fmt: skip
# Under which names PEFT's layers hold the layer that they adapt, and the one that they train a copy of.
_WRAPPED = frozenset({"base_layer", "original_module"})


def weight_readers(config: Any) -> list[str]:
    """What of ``config`` has each call compute with the weights of the layers that it adapts."""
    method = method_of(config)
    if method not in SERVED:
        return [f"peft_type={method!r}"]
    options = _LORA_VARIANTS if method == "LORA" else ()
    return [f"{name}={value!r}" for name in options if (value := getattr(config, name, None))]


def inside_adapters(model: Any) -> set[str]:
    """The names of the modules that PEFT's layers in ``model`` hold beside the layer that they adapt or copy."""
    found = set()
    for name, module in model.named_modules():
        if wrapped := _WRAPPED.intersection(module._modules):
            inner = (part for part, _ in module.named_modules() if part and part.split(".")[0] not in wrapped)
            found |= {f"{name}.{part}".removeprefix(".") for part in inner}
    return found


def read_by_adapters(model: Any) -> set[str]:
    """The names of the layers that PEFT's layers in ``model`` adapt, where an adapter computes with their weights."""
    if not any(map(weight_readers, _configurations(model))):
        return set()
    return {name for name, _ in model.named_modules() if name.rpartition(".")[2] == "base_layer"}


def expect_conv1d(model: Any) -> None:
    """Tell PEFT's layers that the INT8 layers which they adapt are about to be ``Conv1D`` again, of weights [K, N].

    PEFT made them for an ``nn.Linear``, and would merge transposed.

    Raises:
        AdapterError: a method that does not know ``Conv1D``; nothing is changed.
    """
    from hf_tle_int8.nn import TLEInt8Conv1D

    around = [m for m in model.modules() if isinstance(m._modules.get("base_layer"), TLEInt8Conv1D)]
    unknown = sorted({method_of(config) for config in _configurations(model)} - _TRANSPOSING)
    if around and unknown:
        raise AdapterError(
            f"peft_type={unknown[0]!r} adapts {len(around)} layers that are Conv1D in float, with weights [K, N], "
            f"which this method does not know: unload() the adapter before dequantize(), or leave the model in INT8."
        )
    for layer in around:
        layer.fan_in_fan_out = True


def _configurations(model: Any) -> list[Any]:
    return [config for m in model.modules() for config in (getattr(m, "peft_config", None) or {}).values()]


def method_of(config: Any) -> str:
    """The method of a ``PeftConfig``, such as ``LORA``."""
    return str(getattr(config.peft_type, "value", config.peft_type))
