"""PEFT on INT8 layers: what its tuners may do to them, checked where PEFT itself checks.

Its layers take a `TLEInt8Linear` for the ``nn.Linear`` that it is a subclass of. Tuners that call it work. Those that
compute with ``layer.weight`` would compute on int8 codes, and merging would write into them; PEFT has no list of
quantized layers that another package could extend, so that its base classes are wrapped when it is imported.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hf_tle_int8.adapted import method_of, weight_readers
from hf_tle_int8.errors import AdapterError

if TYPE_CHECKING:
    from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear

# The module of PEFT that holds the base classes of its tuners.
TUNERS = "peft.tuners.tuners_utils"

# Starts of LoRA that leave the weight alone.
_LORA_STARTS = (True, False, "gaussian", "eva")

_MARK = "_tle_int8_guarded"


def guard(tuners: ModuleType) -> None:
    """Wrap the base classes of PEFT in ``tuners``, the module `TUNERS`, and what derives from them, now and later.

    Warns:
        RuntimeWarning: this release of PEFT has no such classes, so that nothing is checked.
    """
    try:
        tuner, layer = tuners.BaseTuner, tuners.BaseTunerLayer
        wrappers = {
            "inject_adapter": _checked_injection,
            "_check_tied_modules": _checked_configuration,
            "_check_merge_allowed": _checked_merge_of_model,
        }
        wrapped = {name: wrap(getattr(tuner, name)) for name, wrap in wrappers.items()}
    except AttributeError as error:
        warnings.warn(
            f"hf_tle_int8 does not know this release of PEFT ({error}): adapters on INT8 layers are not checked. "
            f"Use LoRA, and call dequantize() before merging it. Tested with peft 0.21.",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    for name, function in wrapped.items():
        setattr(tuner, name, function)
    _guard_layers(layer)


def _guard_layers(base: Any) -> None:
    def guard_class(cls: Any) -> None:
        for name in ("merge", "unmerge"):
            if name in vars(cls) and not hasattr(vars(cls)[name], _MARK):
                setattr(cls, name, _checked_merge(vars(cls)[name]))

    def init_subclass(cls: Any, /, **kwargs: Any) -> None:
        super(base, cls).__init_subclass__(**kwargs)
        guard_class(cls)

    known = [base]
    for cls in known:
        known += cls.__subclasses__()
        guard_class(cls)
    base.__init_subclass__ = classmethod(init_subclass)


def _checked_injection(inject: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inject)
    def inject_adapter(self: Any, model: Any, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        from hf_tle_int8.shared_inputs import share_inputs

        check_adapter(model, self.peft_config[adapter_name])
        injected = inject(self, model, adapter_name, *args, **kwargs)
        if any(_int8_layers(model)):
            # A layer that is adapted is no longer called by who called its neighbours.
            share_inputs(model)
        return injected

    return inject_adapter


def _checked_configuration(check: Callable[..., Any]) -> Callable[..., Any]:
    """For what `_checked_injection` cannot see: PEFT turns target_modules that mean experts into target_parameters."""

    @functools.wraps(check)
    def _check_tied_modules(self: Any, model: Any, peft_config: Any) -> Any:
        check_adapter(model, peft_config)
        return check(self, model, peft_config)

    return _check_tied_modules


def _checked_merge_of_model(check: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(check)
    def _check_merge_allowed(self: Any) -> Any:
        # All layers before the first is merged, so that none is where another cannot be.
        for _, module in self.model.named_modules():
            _refuse_int8(module)
        return check(self)

    return _check_merge_allowed


def _checked_merge(merge: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(merge)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_int8(self)
        return merge(self, *args, **kwargs)

    setattr(checked, _MARK, True)
    return checked


def _refuse_int8(tuner_layer: Any) -> None:
    """Raise `AdapterError` where ``tuner_layer`` is a layer of PEFT around an INT8 layer."""
    from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear

    base = tuner_layer.get_base_layer() if hasattr(tuner_layer, "get_base_layer") else None
    if isinstance(base, TLEInt8Linear | TLEInt8Experts):
        raise AdapterError(
            f"{base} is INT8, and most of what an adapter adds is less than half a step of int8 codes: merging would "
            f"round it away. Leave it unmerged, which costs little; or merge it into the float original, which can be "
            f"quantized then; or call dequantize() on this model first and keep the result in float."
        )


def check_adapter(model: Any, config: Any) -> None:
    """Raise unless an adapter leaves the weights of the INT8 layers of ``model`` alone; nothing is changed.

    Args:
        model: any module.
        config: a ``PeftConfig``.

    Raises:
        AdapterError: a method or an option that reads the weights, or trained copies of INT8 layers.
    """
    int8 = dict(_int8_layers(model))
    if not int8:
        return
    _check_parameters(int8, config)
    found = [reader for reader in weight_readers(config) if not reader.startswith("target_parameters=")]
    if method_of(config) == "LORA" and config.init_lora_weights not in _LORA_STARTS:
        found.append(f"init_lora_weights={config.init_lora_weights!r}")
    if found:
        raise AdapterError(
            f"{', '.join(found)} computes with the weights of the layers that it adapts, or is not known not to: those "
            f"of {len(int8)} layers are int8 codes ({next(iter(int8))}). Use plain LoRA or another method that leaves "
            f"them alone (docs/adapters.md), train on the float original, or call dequantize() on this model first."
        )
    for wanted in getattr(config, "modules_to_save", None) or ():
        copied = next((name for name in int8 if f".{wanted}." in f".{name}."), None)
        if copied is not None:
            raise AdapterError(
                f"modules_to_save={wanted!r} trains copies of INT8 layers ({copied}): int8 codes have no gradient. "
                f"Load the model with modules_to_not_convert=[{wanted!r}], or adapt the layer by target_modules."
            )


def _check_parameters(int8: "dict[str, TLEInt8Linear | TLEInt8Experts]", config: Any) -> None:
    """Raise `AdapterError` where ``target_parameters`` means weights of INT8 layers; those of float ones are free."""
    wanted = tuple(f".{parameter}" for parameter in getattr(config, "target_parameters", None) or ())
    for name, layer in int8.items():
        for key, _ in layer.named_parameters(recurse=False):
            if f".{name}.{key}".replace(".base_layer", "").endswith(wanted):
                raise AdapterError(
                    f"target_parameters={config.target_parameters!r} adapts {name}.{key}, and an adapter of parameters "
                    f"computes with them: these are int8 codes. Load the model with modules_to_not_convert=[{name!r}] "
                    f"and the like, name linears by target_modules that name no experts, or call dequantize() on this "
                    f"model first."
                )


def _int8_layers(model: Any) -> "Iterator[tuple[str, TLEInt8Linear | TLEInt8Experts]]":
    from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear

    layers = (TLEInt8Linear, TLEInt8Experts)
    return ((name, module) for name, module in model.named_modules() if isinstance(module, layers))
