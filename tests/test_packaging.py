"""What setup.cfg installs, and that the folder kernels/ never shadows Hugging Face's package of that name."""

import ast
import configparser
import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

import hf_tle_int8.kernels
from hf_tle_int8 import version
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
    assert Path(path).parent != REPOSITORY / "kernels"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, the wheel made of it, and nothing else."""
    folder = tmp_path_factory.mktemp("built")
    copy, dist = folder / "source", folder / "dist"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__"))
    pack = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", pack, str(dist)], cwd=copy, capture_output=True, check=True)
    (sdist,) = dist.iterdir()
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(dist)]
    subprocess.run([*build, str(sdist)], cwd=folder, capture_output=True, check=True)
    return dist


def test_wheel_holds_our_packages_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hf_tle_int8"}
    assert {f"{package.replace('.', '/')}/__init__.py" for package in packages_in_tree()} < set(names)
    assert "hf_tle_int8/kernels/scheme.py" in names
    assert "hf_tle_int8/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    group = f"[{settings.ENTRY_POINT_GROUP}]\n{settings.NAME} = {settings.__package__}\n"
    assert group in archive.read(entry_points).decode()


def test_sdist_holds_what_wheels_are_built_of(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    files = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
    assert tops == files | {"hf_tle_int8", "hf_tle_int8.egg-info", "kernels"}


def test_metadata_names_license_author_and_the_version_of_version_py(built):
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == version.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"]
    minor = {line.rpartition(" ")[2] for line in metadata.get_all("Classifier") if "Python :: 3." in line}
    assert minor == {"3.10", "3.11", "3.12", "3.13"}


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


def test_hooks_check_with_the_versions_of_the_constraints():
    pinned = set((REPOSITORY / "constraints.txt").read_text().splitlines())
    text = (REPOSITORY / ".pre-commit-config.yaml").read_text()
    versions = re.findall(r"additional_dependencies: \[(.*)\]", text)
    assert len(versions) == 2
    assert set(versions) <= pinned
    assert {"ruff check", "ruff format", "mypy"} <= set(re.findall(r"name: (.*)", text))
