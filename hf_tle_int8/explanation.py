"""`explain`: what each layer of a model in memory runs on, what it takes, and why it is not INT8."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_tle_int8 import defaults
from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.errors import InputTypeError
from hf_tle_int8.layer_table import CONVERTIBLE, FLOAT, INT8, LayerRow, LayerTable, kernel_of, packed_bytes_of
from hf_tle_int8.matching import ModuleMatcher, name_aliases
from hf_tle_int8.nn import TLEInt8Experts, TLEInt8Linear
from hf_tle_int8.nn.conv1d import is_linear, size_of
from hf_tle_int8.nn.expert_layout import is_experts, projection_names, row_major
from hf_tle_int8.selection import SKIPPED, Rules, Selection, modules_by_identity, select_linears


@dataclass(frozen=True)
class Context:
    """What a row needs beside its module.

    Attributes:
        name: of the module.
        prefill_rows: M of the column for many rows.
        reason: why the module stays in floating point; None if it would be converted or is INT8.
    """

    name: str
    prefill_rows: int
    reason: str | None


def explain(model: nn.Module, prefill_rows: int = 512) -> LayerTable:
    """What the linear layers of ``model`` run on; ``print`` it, or take its rows, `to_dict` or `to_json`.

    Nothing is packed, unpacked or compiled by it. In a float model, the layers that ``TLEInt8Config()`` would convert
    are shown as such.

    Args:
        model: any module, INT8 or float, also one with adapters around it.
        prefill_rows: M of the column for many rows; the other one is for M = 1.

    Raises:
        InputTypeError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(
            f"explain takes a model and got a {type(model).__name__}. For a folder, use hf-tle-int8 inspect."
        )
    kept = reasons(model)
    rows = [
        describe(module, Context(names[0], prefill_rows, next((kept[n] for n in names if n in kept), None)))
        for names, module in modules_by_identity(model)
    ]
    tensors = {id(tensor): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return LayerTable(tuple(row for row in rows if row is not None), prefill_rows, sum(tensors.values()))


@functools.singledispatch
def describe(module: nn.Module, context: Context) -> LayerRow | None:
    """The row of a module; None where it does not multiply by a matrix.

    A class of layers with INT8 weights of its own registers its function: ``@describe.register``.
    """
    if is_linear(module):
        weight = cast(Tensor, module.weight)
        return linear_row(context, module, _dtype(weight), weight.nbytes)
    if is_experts(module):
        return experts_row(context, module, int8=False)
    if context.reason is None:
        return None
    tensors = dict(module.named_parameters(recurse=False))
    largest = max(tensors.values(), key=Tensor.numel)
    return LayerRow(
        name=context.name,
        kind=type(module).__name__,
        shape=tuple(largest.shape),
        state=FLOAT,
        dtype=_dtype(largest),
        decode="plain torch",
        prefill="plain torch",
        held_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        saved={f"{context.name}.{key}": f"{_dtype(tensor)} {list(tensor.shape)}" for key, tensor in tensors.items()},
        reason=context.reason.rstrip(","),
    )


@describe.register
def _(module: TLEInt8Linear, context: Context) -> LayerRow:
    # As it is held: `module.weight` would unpack it.
    weight = dict(module.named_parameters(recurse=False))["weight"]
    return linear_row(context, module, _dtype(weight), weight.nbytes, int8=True)


@describe.register
def _(module: TLEInt8Experts, context: Context) -> LayerRow:
    return experts_row(context, module, int8=True)


def experts_row(context: Context, experts: nn.Module, int8: bool) -> LayerRow:
    """The row of the fused experts of a layer; its shape and kernels are those of the first of the two products.

    Args:
        context: their name, and why they stay in floating point.
        experts: in float or INT8; may be on the meta device.
        int8: whether they are INT8, or will be once they are loaded.
    """
    # As they are held: an attribute would unpack them.
    tensors = dict(experts.named_parameters(recurse=False))
    names = projection_names(experts)
    shapes: dict[str, tuple[int, ...]]
    if isinstance(experts, TLEInt8Experts):
        shapes = dict(experts.projections)
    else:
        shapes = {name: tuple(row_major(experts, tensors[name]).shape) for name in names}
    (_, n, k), *_ = shapes.values()
    state = INT8 if int8 else CONVERTIBLE if context.reason is None else FLOAT
    in_int8 = state != FLOAT
    packed = [e * size for e, rows, k in shapes.values() if (size := packed_bytes_of(rows, k)) is not None]
    saved = {name: f"{_dtype(tensor)} {list(tensor.shape)}" for name, tensor in tensors.items()}
    if int8:
        for name, shape in shapes.items():
            saved |= {name: f"int8 {list(shape)}", f"{name}_scale": f"float32 {[*shape[:2], 1]}"}
    return LayerRow(
        name=context.name,
        kind=type(experts).__name__,
        shape=shapes[names[0]],
        state=state,
        dtype="int8" if int8 else _dtype(tensors[names[0]]),
        decode=kernel_of(1, n, k) if in_int8 else "plain torch",
        prefill=kernel_of(context.prefill_rows, n, k) if in_int8 else "plain torch",
        held_bytes=sum(tensors[name].numel() * (1 if int8 else tensors[name].itemsize) for name in names),
        saved={f"{context.name}.{key}": value for key, value in saved.items()},
        row_major_bytes=sum(map(math.prod, shapes.values())) if in_int8 else None,
        packed_bytes=sum(packed) if in_int8 and packed else None,
        reason=(context.reason or "").rstrip(","),
    )


def linear_row(context: Context, linear: nn.Module, dtype: str, held_bytes: int, int8: bool = False) -> LayerRow:
    """The row of a linear ``[N, K]``.

    Args:
        context: its name, and why it stays in floating point.
        linear: of that shape, in any form that `is_linear` knows; may be on the meta device.
        dtype: of its weight.
        held_bytes: what the weight takes, in memory or on disk.
        int8: whether it is an INT8 layer.
    """
    n, k = size_of(linear)
    state = INT8 if int8 else CONVERTIBLE if context.reason is None else FLOAT
    in_int8 = state != FLOAT
    shape = [n, k] if int8 else list(cast(Tensor, linear.weight).shape)
    tensors = {"weight": f"{dtype} {shape}"} | ({"weight_scale": f"float32 {[n, 1]}"} if state == INT8 else {})
    if (bias := dict(linear.named_parameters(recurse=False)).get("bias")) is not None:
        tensors["bias"] = f"{_dtype(bias)} {[n]}"
    prefix = f"{context.name}." if context.name else ""
    return LayerRow(
        name=context.name,
        kind=type(linear).__name__,
        shape=(n, k),
        state=state,
        dtype=dtype,
        decode=kernel_of(1, n, k) if in_int8 else "plain torch",
        prefill=kernel_of(context.prefill_rows, n, k) if in_int8 else "plain torch",
        held_bytes=held_bytes,
        saved={prefix + key: value for key, value in tensors.items()},
        row_major_bytes=n * k if in_int8 else None,
        packed_bytes=packed_bytes_of(n, k) if in_int8 else None,
        reason=(context.reason or "").rstrip(","),
    )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def reasons(model: nn.Module) -> dict[str, str]:
    """Names of what stays in floating point -> why; of an INT8 model, nothing that is float is left out."""
    kept: dict[str, str] = {}
    parts = list(_models_of_transformers(model))
    for prefix, part in parts:
        kept |= {f"{prefix}{name}": reason for name, reason in _reasons_in(part).items()}
    # What is outside of any model of transformers, such as adapters around it.
    inside = {f"{prefix}{name}" for prefix, part in parts for name, _ in part.named_modules()}
    around = _by_name(select_linears(model, Rules(ModuleMatcher([]))))
    return {**{name: reason for name, reason in around.items() if name not in inside}, **kept}


def _models_of_transformers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, PreTrainedModel]]:
    if isinstance(module, PreTrainedModel):
        yield prefix, module
    else:
        for name, child in module.named_children():
            yield from _models_of_transformers(child, f"{prefix}{name}.")


def _reasons_in(model: PreTrainedModel) -> dict[str, str]:
    config = getattr(model.config, "quantization_config", None)
    own = config if isinstance(config, TLEInt8Config) else TLEInt8Config()
    selection = select_linears(
        model,
        Rules(
            ModuleMatcher(own.modules_to_not_convert or []),
            defaults.default_skips(model, heads=not own.quantize_lm_head),
            names_of=lambda name: name_aliases(name, model.base_model_prefix),
        ),
    )
    found = _by_name(selection)
    if own is config:
        # Loading knows more than what the saved list says; what it does not know came later.
        quantizer = getattr(model, "hf_quantizer", None)
        recorded = {} if quantizer is None else _by_name(quantizer.selection)
        found = {name: recorded.get(name, why) if why == SKIPPED else why for name, why in found.items()}
        found |= {
            name: recorded.get(name, "added after the model was quantized")
            for name in [*selection.convert, *selection.experts]
        }
    return found


def _by_name(selection: Selection) -> dict[str, str]:
    return {name: reason for reason, names in selection.kept.items() for name in names}
