"""TLEInt8HfQuantizer: the hooks that transformers calls while it loads, saves and dequantizes a model."""

import copy
import logging
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightConverter
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name

from hf_tle_int8 import checks, defaults, heads, loading, model_methods, placement, resolution
from hf_tle_int8.arithmetic import FLOAT_DTYPES
from hf_tle_int8.config import QUANT_METHOD, TLEInt8Config, method_of
from hf_tle_int8.errors import ConfigError
from hf_tle_int8.expert_files import conversions_of, convert_by_expert
from hf_tle_int8.matching import ModuleMatcher, name_aliases, pattern_for, without_numbers
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.conv1d import is_linear
from hf_tle_int8.nn.expert_layout import is_experts
from hf_tle_int8.selection import Selection
from hf_tle_int8.shared_inputs import share_inputs

logger = logging.getLogger(__name__)

_INT8 = (TLEInt8Linear, TLEInt8Experts)


def _weights(module: nn.Module) -> tuple[str, ...]:
    """The names of the int8 parameters of ``module``."""
    if isinstance(module, TLEInt8Linear):
        return ("weight",)
    return tuple(module.projections) if isinstance(module, TLEInt8Experts) else ()


class TLEInt8HfQuantizer(HfQuantizer):
    """Loads linears as `TLEInt8Linear`: quantized as each tensor arrives, or read from an INT8 checkpoint."""

    requires_calibration = False
    # Makes transformers clone a model's own weight converters for the scales.
    serialized_names: ClassVar[dict[str, list[str]]] = {"weight": ["weight", "weight_scale"]}

    def __init__(self, quantization_config: TLEInt8Config, **kwargs: Any):
        model_methods.install(describe)
        # The caller's object may configure a second model: it is never changed.
        super().__init__(copy.deepcopy(quantization_config), **kwargs)
        self.selection = Selection()
        self.expected_shapes: dict[str, torch.Size] = {}
        self.mismatched: set[str] = set()
        self.errors: list[str] = []
        self.scale_converters: list[WeightConverter] = []
        self.base_prefix = ""
        self.heads_to_untie: set[str] = set()

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Refuse devices other than the CPU, disk offload while quantizing, and sharding.

        Raises:
            UnsupportedPlacementError: see `placement`.
        """
        placement.check_device_map(device_map, self.pre_quantized)
        placement.check_sharding()

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Refuse dtypes that INT8 linears do not take as input.

        Raises:
            ConfigError: not float32, float16 or bfloat16.
        """
        if dtype not in FLOAT_DTYPES:
            raise ConfigError(
                f"dtype={dtype}: INT8 linears take float32, float16 or bfloat16. Pass one of these as dtype."
            )
        return dtype

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **kwargs: Any) -> bool:
        """Whether the tensor ``param_name`` of the checkpoint is a float weight to quantize.

        From 5.23 on, transformers also asks before it compares shapes. It is told True for each tensor of an INT8
        checkpoint that is ours: `checks.check_loaded` compares them, and names the tensor in its error.
        """
        if param_name in self.mismatched:
            return False
        module, tensor_name = get_module_from_name(model, param_name)
        return isinstance(module, _INT8) and (self.pre_quantized or tensor_name in _weights(module))

    def param_element_size(self, model: PreTrainedModel, param_name: str, param: torch.Tensor) -> float:
        """Bytes per element that ``param_name`` will take, for device maps that transformers infers."""
        module, tensor_name = get_module_from_name(model, param_name)
        return 1 if tensor_name in _weights(module) else param.element_size()

    def get_quantize_ops(self) -> loading.QuantizeWeight:
        """The operation that transformers runs on each tensor that needs quantization."""
        return loading.QuantizeWeight(self)

    def update_weight_conversions(self, weight_conversions: list[Any], model: PreTrainedModel) -> list[Any]:
        """Remember the converters that the base class clones for the scales: saving needs them as well."""
        weight_conversions = convert_by_expert(weight_conversions, model)
        conversions = super().update_weight_conversions(weight_conversions, model)
        known = {id(conversion) for conversion in weight_conversions}
        self.scale_converters = [c for c in conversions if isinstance(c, WeightConverter) and id(c) not in known]
        return conversions

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        if not self.pre_quantized:
            if self.quantization_config.dequantize:
                raise ConfigError(
                    "dequantize=True loads an INT8 checkpoint as a float model, and this checkpoint is not INT8. "
                    "Drop quantization_config to load it in float, or dequantize to load it in INT8."
                )
            checks.check_float_checkpoint(checkpoint_files or [])
        placement.check_distributed(model.config)
        self.base_prefix = model.base_model_prefix
        if self.pre_quantized:
            self.selection = resolution.recorded(self.quantization_config, model, self._names_of)
            resolution.check_asked(self.quantization_config, self.selection, model, self._names_of)
            self.quantization_config.asked = None
        else:
            self.selection, self.heads_to_untie = resolution.resolve(self.quantization_config, model, self._names_of)
        for layer in [*self.selection.convert.values(), *self.selection.experts.values()]:
            loading.make_skeleton(layer)
        loading.tie_scales(model)
        self.expected_shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}

    def _names_of(self, name: str) -> list[str]:
        return name_aliases(name, self.base_prefix)

    def _layout(self, model: PreTrainedModel) -> TLEInt8Config:
        """The configuration that says which layers of ``model`` are INT8 and which are not."""
        config = copy.copy(self.quantization_config)
        layers = {name: m for name, m in model.named_modules() if is_linear(m) or is_experts(m)}
        converted = [name for name, module in layers.items() if isinstance(module, _INT8)]
        known_as = [alias for name in converted for alias in self._names_of(name)]
        listed = [
            entry for entry in config.modules_to_not_convert or [] if not ModuleMatcher([entry]).matches(known_as)
        ]
        matcher = ModuleMatcher(listed)
        unlisted = [name for name in layers if name not in converted and not matcher.matches(self._names_of(name))]
        config.modules_to_not_convert = [*listed, *(pattern_for(name, apart_from=converted) for name in unlisted)]
        config.modules_to_convert = None
        config.quantize_lm_head = not defaults.head_names(model).isdisjoint(converted)
        config.int8_modules = sorted({without_numbers(name) for name in converted})
        return config

    def _record_layout(self, model: PreTrainedModel) -> None:
        """Write into the configuration which layers are INT8 and which are not: it alone decides when loading."""
        self.quantization_config = self._layout(model)
        # A part of a composite model is loaded by its own configuration.
        for inner in [model.config, *loading.sub_configs(model.config)]:
            inner.quantization_config = self.quantization_config

    def describes(self, model: PreTrainedModel) -> bool:
        """Whether the configuration of ``model`` says which of its layers are INT8 now."""
        return getattr(model.config, "quantization_config", None) == self._layout(model)

    def take_over(self, model: PreTrainedModel) -> None:
        """Become the quantizer of ``model``, whose linears were converted after it was loaded."""
        self.base_prefix = model.base_model_prefix
        model.is_quantized = True
        model.quantization_method = self.quantization_config.quant_method
        self._record_layout(model)
        loading.tie_scales(model)
        if conversions := conversions_of(model):
            of_weights = self.update_weight_conversions(conversions, model)
            model._weight_conversions = [c for c in of_weights if c not in self.scale_converters]
            self._keep_scale_converters(model)

    def _is_new(self, model: PreTrainedModel, name: str) -> bool:
        """Whether the layer ``name``, of which the checkpoint has nothing, is new to it rather than lost."""
        if not self.pre_quantized:
            return True
        saved_by = model.config.architectures or []
        if not saved_by or type(model).__name__ in saved_by:
            return False
        recorded = self.quantization_config.int8_modules
        return recorded is None or not any(without_numbers(alias) in recorded for alias in self._names_of(name))

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        new = loading.settle(model, lambda name: self._is_new(model, name))
        for name in new:
            self.selection.keep(name, "newly initialized, absent from the checkpoint,")
            self.expected_shapes[f"{name}.weight"] = model.get_parameter(f"{name}.weight").shape
        checks.check_loaded(model, self.expected_shapes, self.errors)
        heads.untie(model, self.heads_to_untie)
        if self.quantization_config.dequantize:
            return self.dequantize(model)
        self._record_layout(model)
        if not self.pre_quantized:
            self._keep_scale_converters(model)
        converted = [module for module in model.modules() if isinstance(module, _INT8)]
        for module in converted:
            module.requires_grad_(False)
            module.pack_()
        share_inputs(model)
        level = logging.INFO if converted and not new else logging.WARNING
        experts = sum(isinstance(module, TLEInt8Experts) for module in converted)
        logger.log(level, self.selection.summary(len(converted) - experts, experts))
        # The quantizer lives on in model.hf_quantizer: it must not keep alive layers that a caller replaces later.
        self.selection = Selection(kept=self.selection.kept)
        self.expected_shapes = {}
        return model

    def _keep_scale_converters(self, model: PreTrainedModel) -> None:
        """Let ``save_pretrained`` convert the scales back as it does the weights.

        transformers keeps the converters that met a tensor of the checkpoint; while quantizing, no scale is met.
        """
        conversions = model._weight_conversions
        used = {target for c in conversions if isinstance(c, WeightConverter) for target in c._original_target_patterns}
        for converter in self.scale_converters:
            targets = converter._original_target_patterns
            if used.issuperset(target.removesuffix("_scale") for target in targets) and used.isdisjoint(targets):
                converter._was_used = True
                conversions.append(converter)

    def remove_quantization_config(self, model: PreTrainedModel) -> None:
        """Make the model and its configurations those of a float model."""
        super().remove_quantization_config(model)
        for config in loading.sub_configs(model.config):
            if hasattr(config, "quantization_config"):
                del config.quantization_config

    def _dequantize(self, model: PreTrainedModel, dtype: torch.dtype | str | None = None) -> PreTrainedModel:
        # transformers passes the dtype of the configuration, which is a string once the model has been saved.
        found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or model.dtype
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise ConfigError(
                f"dequantize to dtype={dtype!r}: a floating-point dtype is needed, such as torch.bfloat16."
            )
        loading.dequantize(model, found)
        of_scales = {id(converter) for converter in self.scale_converters}
        if conversions := getattr(model, "_weight_conversions", None):
            model._weight_conversions = [c for c in conversions if id(c) not in of_scales]
        return model

    def is_serializable(self) -> bool:
        """``save_pretrained`` writes INT8 checkpoints."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Adapters can be trained on top; the INT8 weights stay frozen."""
        return True

    @property
    def is_compileable(self) -> bool:
        """The linear is one operator with a fake kernel: ``torch.compile(fullgraph=True)`` works."""
        return True


def take_over(model: PreTrainedModel) -> None:
    """Give ``model``, whose linears were converted after it was loaded, a quantizer and the configuration that fits."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None:
        model.hf_quantizer = quantizer = TLEInt8HfQuantizer(TLEInt8Config(), pre_quantized=False)
    quantizer.take_over(model)


def describe(model: PreTrainedModel) -> None:
    """Make the configuration of ``model`` say which of its layers are INT8 now, before it is saved.

    A part of it may have been converted by itself, and may share its configuration. An export is left alone.
    """
    if method_of(getattr(model.config, "quantization_config", None)) in (None, QUANT_METHOD):
        quantizer = getattr(model, "hf_quantizer", None)
        if quantizer is None or not quantizer.describes(model):
            take_over(model)
