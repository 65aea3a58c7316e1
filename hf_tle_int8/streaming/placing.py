"""The tensors of float files, put into an INT8 model on the meta device."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    apply_renamings,
    build_glob_alternation,
    rename_source_key,
)

from hf_tle_int8.arithmetic import quantize_weight
from hf_tle_int8.checkpoint_files import Header
from hf_tle_int8.errors import CheckpointError
from hf_tle_int8.expert_files import incomplete, is_stacking
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.expert_codes import quantize_experts
from hf_tle_int8.nn.expert_layout import row_major
from hf_tle_int8.quantizer import TLEInt8HfQuantizer
from hf_tle_int8.streaming.origin import SEVERAL, NotStreamableError, Origin, Quantize, origin_of, with_origin


class Placing:
    """The tensors of files, one after another, to their places in a model.

    Names and dtypes follow ``convert_and_load_state_dict_in_model`` of transformers 5.21 to 5.23.

    Args:
        model: on the meta device, after ``preprocess_model`` of ``quantizer``.
        quantizer: says what becomes INT8.
        dtype: of the model.

    Attributes:
        conversions: of transformers, between files and the model.
        left_out: the tensors of the files that the model does not have.
    """

    def __init__(self, model: PreTrainedModel, quantizer: TLEInt8HfQuantizer, dtype: torch.dtype):
        self.model, self.quantizer = model, quantizer
        self.conversions = get_model_conversion_mapping(model, None, quantizer)
        self._renamings = [c for c in self.conversions if isinstance(c, WeightRenaming)]
        self._converters = [c for c in self.conversions if isinstance(c, WeightConverter)]
        self._by_pattern = {pattern: c for c in self._converters for pattern in c.source_patterns}
        self._expected = model.state_dict()
        self._plan = model._get_dtype_plan(dtype)
        self._stacked: dict[str, dict[str, list[tuple[str, Header]]]] = {}
        self._parts: dict[str, Origin] = {}
        self.left_out: list[str] = []

    def put(self, source: str, header: Header) -> None:
        """Put one tensor of the files where it belongs; those of single experts wait for `stack`.

        Raises:
            CheckpointError: it has another shape than the model.
            NotStreamableError: transformers does more with it than renaming and stacking.
        """
        prefix, expected = self.model.base_model_prefix, self._expected
        target, pattern = rename_source_key(source, self._renamings, self._converters, prefix, expected)
        if target not in expected and source in expected:
            target, pattern = rename_source_key(source, [], [], prefix, expected)
        if target not in expected:
            self.left_out.append(source)
        elif pattern is None:
            self._put(target, source, header)
        elif is_stacking(self._by_pattern[pattern]):
            self._stacked.setdefault(target, {}).setdefault(pattern, []).append((source, header))
        else:
            operations = [type(operation).__name__ for operation in self._by_pattern[pattern].operations]
            raise NotStreamableError(f"transformers makes {target} of {source} by {' and '.join(operations)}")

    def _dtype_of(self, target: str) -> torch.dtype:
        if self._plan:
            alternation, by_group, _ = build_glob_alternation(list(self._plan))
            if (match := alternation.search(target)) is not None:
                return cast(torch.dtype, self._plan[by_group[match.lastgroup]])
        return self._expected[target].dtype

    def _put(self, target: str, source: str, header: Header) -> None:
        """A tensor that is one of the model's, as it is or quantized."""
        layer, key = _owner(self.model, target)
        origin = Origin(source, self._dtype_of(target))
        if origin_of(_tensor(layer, key)) is not None:
            raise NotStreamableError(f"the files have {target} twice, once as {source}")
        if not self.quantizer.param_needs_quantization(self.model, target):
            _check_shape(source, header, self._expected[target].shape)
            _set(layer, key, header.shape, origin.dtype, origin)
            return
        quantize, shape = _quantization(layer, target, self._expected[target].shape)
        _check_shape(source, header, shape)
        self._set_codes(layer, key, origin.pair(quantize))

    def _set_codes(self, layer: nn.Module, key: str, origins: tuple[Origin, Origin]) -> None:
        codes = _tensor(layer, key)
        _set(layer, key, codes.shape, torch.int8, origins[0])
        _set(layer, f"{key}_scale", (*codes.shape[:-1], 1), torch.float32, origins[1])

    def stack(self) -> None:
        """Put the tensors of single experts, now that all are known.

        Raises:
            CheckpointError: some are missing, or of another shape.
            NotStreamableError: they are no matrices.
        """
        for target, sources in self._stacked.items():
            self._stack(target, sources)

    def _stack(self, target: str, sources: Mapping[str, list[tuple[str, Header]]]) -> None:
        """A weight ``[E, N, K]`` of which the files have one tensor for each expert and each of some patterns."""
        layer, key = _owner(self.model, target)
        shape = self._expected[target].shape
        if len(shape) != 3:
            raise NotStreamableError(f"the files have {target} {tuple(shape)} in parts")
        count, n, k = shape
        quantized = self.quantizer.param_needs_quantization(self.model, target)
        patterns = self._by_pattern[next(iter(sources))].source_patterns
        for pattern in patterns:
            of_experts = sources.get(pattern, [])
            if len(of_experts) != count:
                raise incomplete(target, pattern, len(of_experts), count)
            for source, header in of_experts:
                _check_shape(source, header, torch.Size((n // len(patterns), k)))
                origin, name = Origin(source, self._dtype_of(target)), apply_renamings(source, self._renamings)
                if quantized:
                    self._parts[name], self._parts[f"{name}_scale"] = origin.pair(of_rows(source))
                else:
                    self._parts[name] = origin
        if quantized:
            self._set_codes(layer, key, (SEVERAL, SEVERAL))
        else:
            _set(layer, key, (count, n, k), self._dtype_of(target), SEVERAL)

    def parts(self) -> dict[str, Origin]:
        """The origins of tensors that were stacked, by their names in the files to write."""
        used = [c.reverse_transform() for c in self.model._weight_conversions[::-1]]
        renamings = [c for c in used if isinstance(c, WeightRenaming)]
        return {apply_renamings(name, renamings): origin for name, origin in self._parts.items()}


def of_rows(name: str, rows: Callable[[Tensor], Tensor] = lambda weight: weight) -> Quantize:
    """Quantization of a float weight, called ``name`` in errors, which ``rows`` shows as ``[N, K]``."""
    return lambda weight: quantize_weight(rows(weight), name)


def _quantization(layer: nn.Module, name: str, shape: torch.Size) -> tuple[Quantize, torch.Size]:
    """How a weight that one tensor holds is quantized, and the shape of that tensor: as its float class has it."""
    if isinstance(layer, TLEInt8Experts):
        expected = row_major(layer, torch.empty(shape, device="meta")).shape
        return lambda weight: quantize_experts(row_major(layer, weight), name), expected
    linear = cast(TLEInt8Linear, layer)
    return of_rows(name, linear.rows), linear.rows(torch.empty(shape, device="meta")).shape


def _check_shape(source: str, header: Header, needed: torch.Size) -> None:
    if header.shape != tuple(needed):
        raise CheckpointError(
            f"{source} has shape {header.shape}, the model needs {tuple(needed)}. The checkpoint is of another model."
        )


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    module, _, key = name.rpartition(".")
    return model.get_submodule(module), key


def _tensor(module: nn.Module, key: str) -> Tensor:
    found = {**module._parameters, **module._buffers}.get(key)
    if found is None:
        raise NotStreamableError(f"{type(module).__name__} keeps {key} as extra state")
    return found


def _set(module: nn.Module, key: str, shape: Sequence[int], dtype: torch.dtype, origin: Origin) -> None:
    tensor = torch.empty(shape, dtype=dtype, device="meta")
    if key in module._buffers:
        module._buffers[key] = with_origin(tensor, origin)
    else:
        parameter = nn.Parameter(tensor, requires_grad=False)
        module.register_parameter(key, with_origin(parameter, origin))
