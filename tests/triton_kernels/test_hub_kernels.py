"""The kernels as a folder of Hugging Face's ``kernels``: laid out, loaded by that package, and run from there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import NEEDS_KERNELS, REPOSITORY
from huggingface_hub import RepoCard
from kernels.validate import ArchValidator, default_metadata_validators
from kernels.variants import VariantAccepted, get_variants_local, resolve_variants
from linear_runs import ALL_ROWS, TYPES, activations, assert_same, biases, weights
from snippets import blocks
from torch._subclasses import FakeTensorMode
from transformers.utils.import_utils import is_kernels_available

import kernels
from hf_tle_int8 import __version__, arithmetic, execution
from hf_tle_int8.dispatch import SCHEMES
from hf_tle_int8.errors import InputTypeError, InputValueError, UnsupportedPlacementError

HUB = REPOSITORY / "kernels" / "hub"
CARD_NAME = "ORGANISATION/tle-int8"
SHAPES = ((1, 1), (7, 5), (33, 70), (64, 128), (97, 131))


def module_of(file):
    spec = importlib.util.spec_from_file_location(f"hub_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAY_OUT = module_of(HUB / "lay_out.py")


def names_of(layout):
    return ",".join(name for name, scheme in SCHEMES.items() if scheme == layout)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    to = tmp_path_factory.mktemp("hub") / "tle-int8"
    LAY_OUT.lay_out(to)
    return to


@pytest.fixture(scope="module")
def int8(folder):
    return kernels.get_local_kernel(folder)


def run_python(*arguments, **variables):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_metadata_is_what_the_package_asks_for(folder):
    build = folder / "build"
    (chosen, *_), trace = resolve_variants(get_variants_local(build))
    assert chosen.variant_str == "torch-universal"
    assert all(isinstance(decision, VariantAccepted) for decision in trace)
    found = kernels.Metadata.read_from_file(build / "torch-universal" / "metadata.json")
    for validator in [*default_metadata_validators(), ArchValidator()]:
        validator.validate_metadata(metadata=found, variant="torch-universal")
    assert (str(found.name), found.version, found.license) == ("tle-int8", 0, "Apache-2.0")
    assert found.id.isidentifier()
    found.digest.validate(kernels._rust.Digest.hash_variant(found.digest.algorithm, build / "torch-universal"))


def test_the_card_and_the_licence(folder):
    card = RepoCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.license) == ("kernels", "apache-2.0")
    assert f"pip install hf_tle_int8=={__version__}`" in card.text
    assert (folder / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_each_source_is_published_or_makes_the_folder(folder):
    sources = {file.name for file in HUB.iterdir() if file.is_file()}
    assert sources == {*LAY_OUT.PUBLISHED, "CARD.md", "lay_out.py"}
    there = {file.name for file in (folder / "build/torch-universal/kernels").glob("*.py")}
    assert there == {file.name for file in (REPOSITORY / "kernels" / "tle_int8").glob("*.py")}


def test_same_sources_give_the_same_bytes_without_any_package(tmp_path):
    LAY_OUT.lay_out(tmp_path / "first")
    made = run_python("-I", "-S", HUB / "lay_out.py", tmp_path / "in" / "second")
    assert made.returncode == 0, made.stderr
    assert contents(tmp_path / "first") == contents(tmp_path / "in" / "second")


def test_other_sources_have_another_name():
    files = LAY_OUT.variant_files()
    ids = {LAY_OUT.metadata({**files, name: files[name] + b"\n"})["id"] for name in files}
    assert len(ids | {LAY_OUT.metadata(files)["id"]}) == len(files) + 1


def test_what_exists_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    made = run_python("-I", "-S", HUB / "lay_out.py", tmp_path)
    assert made.returncode == 2
    assert f"{tmp_path} exists: a folder of kernels is written whole." in made.stderr
    assert contents(tmp_path) == {"mine": b"mine"}


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write, written = Path.write_bytes, []

    def full_disk(self, data):
        written.append(self)
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        LAY_OUT.lay_out(tmp_path / "tle-int8")
    assert list(tmp_path.iterdir()) == []


@NEEDS_KERNELS
def test_it_is_loaded_from_the_folder_by_each_way(folder, int8, monkeypatch):
    assert Path(int8.kernels.linear.__file__).parent == folder / "build/torch-universal/kernels"
    assert int8.__version__ == __version__
    assert kernels.get_local_kernel(folder, backend="cpu") is int8
    monkeypatch.setenv("LOCAL_KERNELS", f"{CARD_NAME}={folder}")
    assert kernels.get_kernel(CARD_NAME, version=0) is int8


@NEEDS_KERNELS
@pytest.mark.skipif(not is_kernels_available(), reason="this transformers takes another version of kernels")
def test_it_is_loaded_by_transformers(folder, int8, monkeypatch):
    from transformers.integrations import hub_kernels

    monkeypatch.setenv("LOCAL_KERNELS", f"{CARD_NAME}={folder}")
    assert hub_kernels.get_kernel(CARD_NAME, version=0) is int8


@NEEDS_KERNELS
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_linears_give_the_bits_of_the_reference(int8, dtype):
    for bias_dtype in (None, *TYPES):
        for n, k in SHAPES:
            (weight, scale), bias = weights(n, k), biases(n, bias_dtype)
            x = activations(ALL_ROWS, k, dtype)
            panels, expected = int8.pack(weight), arithmetic.int8_linear(x, weight, scale, bias)
            assert torch.equal(panels.codes, execution.layout().packing.pack(weight))
            for m in (0, 1, 3, ALL_ROWS):
                assert_same(int8.int8_linear(x[:m], panels, scale, bias), expected[:m])
            if bias_dtype in (None, torch.float32):
                apart = torch.cat([x, x], 1)[:, :k].reshape(2, -1, k)
                wide = None if bias is None else bias.double()
                found = int8.int8_linear(apart, panels, scale.double()[:, None], wide)
                assert_same(found, expected.reshape(2, -1, n))


@NEEDS_KERNELS
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_rows_are_quantized_to_the_bits_of_the_reference(int8, dtype):
    for k in (1, 5, 64, 131):
        x = activations(ALL_ROWS, k, dtype)
        q, scale = int8.quantize(x.reshape(2, -1, k))
        codes, scales = arithmetic.quantize_activation(x)
        assert torch.equal(q, codes.reshape(2, -1, k))
        assert_same(scale, scales.reshape(2, -1, 1))
    assert [tuple(part.shape) for part in int8.quantize(x[:0])] == [(0, 131), (0, 1)]


@NEEDS_KERNELS
@pytest.mark.parametrize("m", [1, 3, 33])
def test_integer_products_are_exact_whatever_the_strides(int8, m):
    for n, k in SHAPES:
        a, b = (torch.randint(-128, 128, (size, k), dtype=torch.int8) for size in (m, n))
        expected = (a.long() @ b.long().t()).int()
        both = [(a, b.t()), (a.t().contiguous().t(), b.t().contiguous())]
        both.append((torch.cat([a, a], 1)[:, :k], torch.stack([b, b], 2)[..., 0].t()))
        for left, right in both:
            assert torch.equal(int8.int_mm(left, right), expected)


@NEEDS_KERNELS
@pytest.mark.parametrize("layout", dict.fromkeys(SCHEMES.values()), ids=names_of)
def test_the_layout_of_every_target_gives_the_same_bits(int8, layout, monkeypatch):
    # Kernels for this CPU, of operands that lie as another one wants them.
    monkeypatch.setattr(execution, "layout", lambda: layout)
    (weight, scale), x = weights(33, 70), activations(ALL_ROWS, 70, torch.float32)
    panels, expected = int8.pack(weight), arithmetic.int8_linear(x, weight, scale, None)
    assert torch.equal(panels.codes, layout.packing.pack(weight))
    for m in (1, ALL_ROWS):
        assert_same(int8.int8_linear(x[:m], panels, scale), expected[:m])
    assert torch.equal(int8.int_mm(weight, weight.t()), arithmetic.int32_product(weight, weight))


@NEEDS_KERNELS
def test_kernels_take_a_grid_of_ones_own(int8):
    x, k = torch.randn(5, 70), 70
    q, scale = torch.empty(5, k, dtype=torch.int8), torch.empty(5)
    int8.kernels.quantize.quantize[(5,)](x, k, q, scale, 5, k, k, ROWS=1, GROUP=4, BLOCK=64, FLIPPED=False)
    codes, scales = arithmetic.quantize_activation(x)
    assert torch.equal(q, codes)
    assert torch.equal(scale, scales.flatten())


@NEEDS_KERNELS
def test_operators_are_opaque_to_the_compiler_and_have_no_derivative(int8):
    weight, scale = weights(33, 70)
    panels, x, bias = int8.pack(weight), torch.randn(2, 3, 70), torch.randn(33)
    operators = getattr(torch.ops, int8.__name__)
    floats, tools = x.reshape(-1, 70), ("test_schema", "test_faketensor")
    for operator, arguments in {
        operators.quantize: (floats,),
        operators.pack: (weight,),
        operators.linear: (floats, panels.codes, scale, bias, 33),
        operators.int_mm: (weight, weight.t()),
    }.items():
        torch.library.opcheck(operator.default, arguments, test_utils=tools)

    def attention(x):
        q, _ = int8.quantize(x[0])
        return int8.int8_linear(x, panels, scale, bias) + int8.int_mm(q, weight.t())

    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), attention(x))
    for place in range(3):
        learnt = [tensor.clone().requires_grad_(at == place) for at, tensor in enumerate((x, scale, bias))]
        with pytest.raises(RuntimeError, match="no autograd formula"):
            int8.int8_linear(learnt[0], panels, *learnt[1:]).sum().backward()


@NEEDS_KERNELS
def test_what_cannot_be_computed_is_refused(int8):
    weight, scale = weights(33, 70)
    panels, x = int8.pack(weight), torch.randn(2, 70)
    other = panels._replace(codes=panels.codes.flatten(0, 1))
    refused = {
        "x has dtype torch.int8": (InputTypeError, int8.quantize, weight),
        "x has shape ()": (InputValueError, int8.quantize, torch.tensor(1.0)),
        "weight has dtype torch.float32": (InputTypeError, int8.pack, x),
        "weight has shape (0, 70)": (InputValueError, int8.pack, weight[:0]),
        "weight is a Tensor": (InputTypeError, int8.int8_linear, x, weight, scale),
        "the input has dtype torch.float64": (InputTypeError, int8.int8_linear, x.double(), panels, scale),
        "the input has shape (2, 69)": (InputValueError, int8.int8_linear, x[:, 1:], panels, scale),
        "scale is torch.float32 of shape (32,)": (InputValueError, int8.int8_linear, x, panels, scale[1:]),
        "bias has shape (32,)": (InputValueError, int8.int8_linear, x, panels, scale, scale[1:]),
        "the panels have shape": (InputValueError, int8.int8_linear, x, other, scale),
        "a has dtype torch.float32": (InputTypeError, int8.int_mm, x, weight),
        "a has shape (33, 70)": (InputValueError, int8.int_mm, weight, weight),
    }
    for message, (error, function, *arguments) in refused.items():
        with pytest.raises(error, match=re.escape(message)):
            function(*arguments)


@NEEDS_KERNELS
def test_other_devices_are_refused(int8):
    panels, scale = int8.Panels(torch.empty(8, 18, 8, 4, dtype=torch.int8), 33, 70), torch.ones(33)
    # As on a machine with a GPU: its tensors have no memory.
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, codes = torch.empty(2, 70, device="cuda"), torch.empty(2, 70, dtype=torch.int8, device="cuda")
        calls = [(int8.quantize, x), (int8.pack, codes), (int8.int8_linear, x, panels, scale)]
        for function, *arguments in [*calls, (int8.int_mm, codes, codes.t())]:
            with pytest.raises(UnsupportedPlacementError, match=r"on cuda:0.*\.to\('cpu'\)"):
                function(*arguments)


@NEEDS_KERNELS
def test_the_example_of_the_card_runs_with_an_empty_cache(folder, tmp_path):
    (example,) = (block.text for block in blocks((HUB / "CARD.md").read_text()) if block.runs)
    script = tmp_path / "example.py"
    script.write_text(example)
    variables = {"LOCAL_KERNELS": f"{CARD_NAME}={folder}", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    ran = run_python(script, **variables)
    assert ran.returncode == 0, ran.stderr
    compiled = {file.name.split(".")[0] for file in (tmp_path / "cache").rglob("*.obj")}
    assert compiled == {"quantize", "pack", "gemm", "gemm_int32"}


def test_without_the_package_that_runs_them_they_are_refused(folder):
    hidden = "import sys, pathlib, kernels; sys.modules['hf_tle_int8'] = None; "
    ran = run_python("-c", f"{hidden}kernels.get_local_kernel(pathlib.Path({str(folder)!r}))")
    assert ran.returncode == 1
    assert (
        "ModuleNotFoundError: hf_tle_int8 is not installed: these kernels run on CPUs by its Triton backend. "
        f"Install it: pip install hf_tle_int8=={__version__}\n"
    ) in ran.stderr


def test_with_another_version_or_on_another_cpu_they_are_refused(monkeypatch):
    check = module_of(HUB / "requirement.py").check
    with pytest.raises(ImportError, match=rf"{re.escape(__version__)} is installed, .*\(pip install .*==9\.9\)"):
        check("9.9")
    monkeypatch.setattr(execution, "unavailable", lambda: "this CPU is a 6502.")
    with pytest.raises(RuntimeError, match="cannot run here: this CPU is a 6502"):
        check(__version__)
