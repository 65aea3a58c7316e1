"""What becomes INT8 in each family of models: converts a small random model of each, checks it, and tells.

python tests/architectures/support_table.py [--write docs/architectures.md] [name ...]
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from families import FAMILIES, Family
from family_inputs import Inputs
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel

from hf_tle_int8 import TLEInt8Config, TLEInt8Linear, arithmetic
from hf_tle_int8.matching import without_numbers
from hf_tle_int8.nn import TLEInt8Experts
from hf_tle_int8.nn.conv1d import float_rows, is_linear
from hf_tle_int8.nn.expert_layout import row_major

# Of the output, relative to the float model's, as norms; the largest that is seen is half of it.
MAX_ERROR = 0.1


@dataclass
class Findings:
    """What was seen of one family.

    Attributes:
        converted: how many linears became INT8.
        linears: how many there are.
        experts: how many layers of fused experts became INT8.
        kept: reason -> names of what stays in floating point, one with ``*`` for names that differ in numbers.
        error: norm of the difference to the float model's output, by its norm.
        problems: what is wrong; empty in a family that is supported.
    """

    converted: int = 0
    linears: int = 0
    experts: int = 0
    kept: dict[str, list[str]] = field(default_factory=dict)
    error: float = 0.0
    problems: list[str] = field(default_factory=list)


def examine(family: Family, folder: Path) -> Findings:
    """Convert ``family`` on the fly, save it, load it again, and compare: with its float model, and with each other.

    Args:
        family: which.
        folder: where to save its float model and its INT8 checkpoint.
    """
    reference = family.build()
    reference.save_pretrained(folder / "float")
    model = family.model_class.from_pretrained(folder / "float", quantization_config=TLEInt8Config())
    model.save_pretrained(folder / "int8")
    again = family.model_class.from_pretrained(folder / "int8")
    findings = Findings()
    _compare_layers(findings, reference, model, again)
    _compare_outputs(findings, family, reference, model, again)
    return findings


def _compare_layers(
    findings: Findings, reference: PreTrainedModel, model: PreTrainedModel, again: PreTrainedModel
) -> None:
    kept = model.hf_quantizer.selection.kept
    findings.kept = {reason.rstrip(","): _collapsed(names) for reason, names in kept.items()}
    for name, layer in model.named_modules():
        if isinstance(layer, TLEInt8Linear):
            findings.converted += 1
            findings.problems += _differences(name, reference.get_submodule(name), layer, again.get_submodule(name))
        elif isinstance(layer, TLEInt8Experts):
            findings.experts += 1
            found = reference.get_submodule(name), layer, again.get_submodule(name)
            findings.problems += _differences_of_experts(name, *found)
    linears = {name for name, module in model.named_modules() if is_linear(module)}
    findings.linears = len(linears)
    if len(linears - {name for names in kept.values() for name in names}) != findings.converted:
        findings.problems.append("a linear is neither INT8 nor named with a reason")


def _compare_outputs(
    findings: Findings, family: Family, reference: PreTrainedModel, model: PreTrainedModel, again: PreTrainedModel
) -> None:
    """Also turns ``again`` back into a float model."""
    inputs = family.inputs()
    expected, output, same = (output_of(m, inputs) for m in (reference, model, again))
    findings.error = _error(output, expected)
    if not findings.error < MAX_ERROR:
        findings.problems.append(f"the output is {findings.error:.3f} away from the float model's")
    if not torch.equal(output, same):
        findings.problems.append("the output of the checkpoint differs")
    if isinstance(model, GenerationMixin) and not torch.equal(_generated(model, inputs), _generated(again, inputs)):
        findings.problems.append("the checkpoint generates other tokens")
    again.dequantize()
    if _classes(again) != _classes(reference):
        findings.problems.append("dequantized, it is made of other classes than the float model")
    if not _error(output_of(again, inputs), expected) < MAX_ERROR:
        findings.problems.append("dequantized, its output is away from the float model's")


def _classes(model: nn.Module) -> list[str]:
    return [type(module).__name__ for module in model.modules()]


def _error(output: Tensor, expected: Tensor) -> float:
    return ((output - expected).norm() / expected.norm()).item()


def _collapsed(names: list[str]) -> list[str]:
    by_pattern: dict[str, list[str]] = {}
    for name in names:
        by_pattern.setdefault(without_numbers(name), []).append(name)
    return [alike[0] if len(alike) == 1 else pattern for pattern, alike in by_pattern.items()]


def _differences(name: str, source: nn.Module, layer: TLEInt8Linear, again: nn.Module) -> list[str]:
    """How the INT8 ``layer`` and its copy from the checkpoint differ from what the float ``source`` gives."""
    if type(again) is not type(layer):
        return [f"{name} is {type(again).__name__} when loaded again"]
    codes, scale = arithmetic.quantize_weight(float_rows(source))
    return [
        f"{name} holds other codes or scales {where}"
        for where, found in (("on the fly", layer), ("when loaded again", again))
        if not (torch.equal(found.weight, codes) and torch.equal(found.weight_scale, scale))
    ]


def _differences_of_experts(name: str, source: nn.Module, layer: TLEInt8Experts, again: nn.Module) -> list[str]:
    """The same of fused experts."""
    problems = []
    for key in layer.projections:
        each = map(arithmetic.quantize_weight, row_major(source, source.get_parameter(key)))
        codes, scale = map(torch.stack, zip(*each, strict=True))
        for where, found in (("on the fly", layer), ("when loaded again", again)):
            if not (torch.equal(getattr(found, key), codes) and torch.equal(getattr(found, f"{key}_scale"), scale)):
                problems.append(f"{name}.{key} holds other codes or scales {where}")
    return problems


@torch.no_grad()
def output_of(model: PreTrainedModel, inputs: Inputs) -> Tensor:
    """The first output of ``model`` that tells most: logits, or hidden states."""
    output = model(**inputs)
    for key in ("logits", "logits_per_image", "last_hidden_state"):
        if getattr(output, key, None) is not None:
            return output[key]
    return output[0]


def _generated(model: PreTrainedModel, inputs: Inputs) -> Tensor:
    given = {key: tensor for key, tensor in inputs.items() if key != "decoder_input_ids"}
    return model.generate(**given, max_new_tokens=4, min_new_tokens=4, do_sample=False)


HEADER = """# What becomes INT8 in which model

Generated by `python tests/architectures/support_table.py --write docs/architectures.md` with transformers {version},
from a small random model of each family, loaded with `TLEInt8Config()`, saved, and loaded again. A test repeats this:
codes and scales are those of the float weights, the checkpoint gives the same bits, and outputs are near to the float
model's.

Families that are not listed load as well: every linear becomes INT8 unless there is a reason against it, and the line
that loading logs gives the reasons. `*` stands for all numbers of layers. What is no linear but holds a matrix is named
as well.

| family | class | linears in INT8 | left in float, and why | |
|---|---|---|---|---|
"""


def row(family: Family, findings: Findings) -> str:
    """One line of the table."""
    kept = "; ".join(f"{_listed(names)}: {reason}" for reason, names in findings.kept.items())
    count = f"{findings.converted} of {findings.linears}"
    if findings.experts:
        count += f", and {findings.experts} of experts"
    return f"| {family.name} | `{family.model_class.__name__}` | {count} | {kept or 'nothing'} | {family.note} |\n"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def table(findings: dict[str, Findings]) -> str:
    """The whole page: ``findings`` by the names of families."""
    rows = (row(family, findings[family.name]) for family in FAMILIES)
    return HEADER.format(version=transformers.__version__) + "".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="where to write the page; without it, it is printed")
    parser.add_argument("names", nargs="*", help="families to look at; all of them by default")
    arguments = parser.parse_args()
    chosen = [family for family in FAMILIES if not arguments.names or family.name in arguments.names]
    findings = {}
    for family in chosen:
        with tempfile.TemporaryDirectory() as folder:
            findings[family.name] = examine(family, Path(folder))
        print(f"{family.name}: error {findings[family.name].error:.4f}", file=sys.stderr)
        for problem in findings[family.name].problems:
            print(f"{family.name}: {problem}", file=sys.stderr)
    if any(found.problems for found in findings.values()):
        return 1
    if arguments.write:
        arguments.write.write_text(table(findings))
    else:
        print("".join(row(family, findings[family.name]) for family in chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
