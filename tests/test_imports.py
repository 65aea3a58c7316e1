"""Imports go one way, from what users call down to what computes."""

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY

# A module may import modules of a lower rank, and modules of its own rank within one package.
RANKS = {
    "hf_tle_int8.version": 0,
    "hf_tle_int8.errors": 0,
    "hf_tle_int8.import_hook": 0,
    "hf_tle_int8.kernels": 0,
    "hf_tle_int8.backend": 0,
    "hf_tle_int8.matching": 1,
    "hf_tle_int8.packing": 1,
    "hf_tle_int8.arithmetic": 1,
    "hf_tle_int8.report": 6,
    "hf_tle_int8.accuracy": 1,
    "hf_tle_int8.code_paths": 0,
    "hf_tle_int8.weight_reads": 1,
    "hf_tle_int8.weight_access": 2,
    "hf_tle_int8.dispatch": 2,
    "hf_tle_int8.activations": 3,
    "hf_tle_int8.execution": 4,
    "hf_tle_int8.native_code": 4,
    "hf_tle_int8.native": 5,
    "hf_tle_int8.int_mm": 6,
    "hf_tle_int8.ops": 6,
    "hf_tle_int8.nn": 7,
    "hf_tle_int8.selection": 8,
    "hf_tle_int8.bench": 8,
    "hf_tle_int8.adoption": 13,
    "hf_tle_int8.convert": 14,
    "hf_tle_int8.config": 6,
    "hf_tle_int8.defaults": 8,
    "hf_tle_int8.checks": 8,
    "hf_tle_int8.loading": 9,
    "hf_tle_int8.heads": 10,
    "hf_tle_int8.layer_table": 7,
    "hf_tle_int8.explanation": 9,
    "hf_tle_int8.inspection": 14,
    "hf_tle_int8.checkpoint_files": 1,
    "hf_tle_int8.model_card": 8,
    "hf_tle_int8.placement": 1,
    "hf_tle_int8.model_methods": 9,
    "hf_tle_int8.resolution": 11,
    "hf_tle_int8.compressed_tensors": 13,
    "hf_tle_int8.quantizer": 12,
    "hf_tle_int8.registration": 14,
    "hf_tle_int8.streaming": 15,
    "hf_tle_int8.warming": 15,
    "hf_tle_int8": 16,
    "hf_tle_int8.cli": 17,
    "hf_tle_int8.shared_inputs": 8,
    "hf_tle_int8.adapted": 8,
    "hf_tle_int8.adapters": 9,
    "hf_tle_int8.expert_files": 9,
}
SOURCES = {
    **dict.fromkeys((REPOSITORY / "hf_tle_int8").rglob("*.py"), "hf_tle_int8"),
    **dict.fromkeys((REPOSITORY / "kernels" / "tle_int8").rglob("*.py"), "hf_tle_int8.kernels"),
}
# The layers below nn serve a torch without transformers.
WITHOUT_TRANSFORMERS = {
    f"hf_tle_int8.{name}"
    for name in (
        "version",
        "errors",
        "import_hook",
        "kernels",
        "backend",
        "matching",
        "arithmetic",
        "packing",
        "dispatch",
        "activations",
        "shared_inputs",
        "execution",
        "native_code",
        "native",
        "code_paths",
        "weight_reads",
        "weight_access",
        "ops",
        "nn",
        "selection",
    )
}


def module_name(path: Path) -> str:
    package = SOURCES[path]
    root = REPOSITORY / ("kernels/tle_int8" if package.endswith("kernels") else "hf_tle_int8")
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


def unit(module: str) -> str:
    """The entry of RANKS that a module belongs to."""
    parts = module.split(".")
    return next(".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in RANKS)


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                assert SOURCES[path].endswith("kernels"), f"relative import in {path}"
                continue
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_down(path):
    module = module_name(path)
    assert module == "hf_tle_int8" or unit(module) != "hf_tle_int8", f"{module} has no rank"
    for name in imported(path):
        if name.split(".")[0] == "hf_tle_int8":
            target = unit(name)
            assert target == unit(module) or RANKS[target] < RANKS[unit(module)], f"{module} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_kernels_and_lower_layers_know_nothing_above(path):
    module = module_name(path)
    roots = {name.split(".")[0] for name in imported(path)}
    if unit(module) == "hf_tle_int8.kernels":
        assert roots <= {"triton"}
    if unit(module) == "hf_tle_int8.backend":
        ours = {name for name in imported(path) if name.split(".")[0] == "hf_tle_int8"}
        assert {unit(name) for name in ours} <= {"hf_tle_int8.backend"}
    if unit(module) in WITHOUT_TRANSFORMERS:
        assert "transformers" not in roots
