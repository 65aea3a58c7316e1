"""What setup.cfg installs, and that the folder kernels/ never shadows Hugging Face's package of that name."""

import ast
import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

import hf_tle_int8.kernels
from hf_tle_int8.backend import settings


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    return parser


def packages_in_tree() -> set[str]:
    roots = {"hf_tle_int8": REPOSITORY / "hf_tle_int8", "hf_tle_int8.kernels": REPOSITORY / "kernels" / "tle_int8"}
    found = set()
    for name, root in roots.items():
        for init in root.rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(root).parts]))
    return found


def test_packages_are_listed():
    assert set(setup_cfg()["options"]["packages"].split()) == packages_in_tree()


def test_no_package_is_called_kernels():
    assert not (REPOSITORY / "kernels" / "__init__.py").exists()
    assert not (REPOSITORY / "tests" / "kernels").exists()


def test_our_kernels_come_from_their_folder():
    assert Path(hf_tle_int8.kernels.__file__).parent == REPOSITORY / "kernels" / "tle_int8"


@pytest.mark.parametrize("folder", [REPOSITORY, REPOSITORY / "tests"])
def test_import_kernels_finds_hugging_faces_package(folder):
    script = "import hf_tle_int8, kernels; print(kernels.__file__, hasattr(kernels, 'get_kernel'))"
    output = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    path, has_get_kernel = output.stdout.split()
    assert has_get_kernel == "True", output.stderr
    assert REPOSITORY not in Path(path).parents


def test_wheel_holds_our_packages_and_nothing_else(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    copy = tmp_path / "source"
    ignored = {".git", ".venv", "build", "dist"}
    import shutil

    shutil.copytree(REPOSITORY, copy, ignore=lambda _, names: ignored & set(names))
    output = subprocess.run([*build, str(copy)], capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hf_tle_int8"}
    assert "hf_tle_int8/kernels/scheme.py" in names
    assert "hf_tle_int8/py.typed" in names
    (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    group = f"[{settings.ENTRY_POINT_GROUP}]\n{settings.NAME} = {settings.__package__}\n"
    assert group in archive.read(entry_points).decode()


def test_what_is_imported_is_required():
    options = setup_cfg()
    optional = "\n".join(options["options.extras_require"].values())
    required = f"{options['options']['install_requires']}\n{optional}"
    declared = {re.split("[=><; ]", line)[0].replace("-", "_") for line in required.split("\n")}
    declared |= {"llama_cpp"} if "llama_cpp_python" in declared else set()
    imported = set()
    for file in [*(REPOSITORY / "hf_tle_int8").rglob("*.py"), *(REPOSITORY / "kernels").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    assert imported - sys.stdlib_module_names - {"hf_tle_int8"} <= declared


def test_constraints_pin_every_requirement():
    pinned = {re.split("[=><;]", line)[0] for line in (REPOSITORY / "constraints.txt").read_text().splitlines()}
    options = setup_cfg()
    required = options["options"]["install_requires"].split("\n")
    required += options["options.extras_require"]["demo"].split("\n") + options["options.extras_require"]["test"].split(
        "\n"
    )
    names = {entry.split(">")[0].split(";")[0].strip() for entry in required if entry.strip()}
    assert names <= pinned
    assert "torch==2.13.0" in (REPOSITORY / "constraints.txt").read_text()
