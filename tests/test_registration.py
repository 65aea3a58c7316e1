import subprocess
import sys

import pytest
from conftest import REPOSITORY
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM
from transformers.quantizers import auto

import hf_tle_int8
from hf_tle_int8 import TLEInt8Config, registration
from hf_tle_int8.quantizer import TLEInt8HfQuantizer

# Before and after `import hf_tle_int8`, with nothing imported but these.
ORDERS = {
    "first of all": ("", "from transformers import AutoModelForCausalLM"),
    "after a name of transformers": ("from transformers import AutoModelForCausalLM", ""),
    "after torch and triton, before a model's own module": (
        "import torch, triton",
        "from transformers.models.llama.modeling_llama import LlamaForCausalLM as AutoModelForCausalLM",
    ),
    "after parts of transformers": (
        "import transformers.utils.quantization_config, transformers.configuration_utils",
        "from transformers import AutoModelForCausalLM",
    ),
    "in a thread beside transformers": (
        "import threading, importlib\n"
        "threads = [threading.Thread(target=importlib.import_module, args=[name])\n"
        "           for name in ('transformers.modeling_utils', 'hf_tle_int8')]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]",
        "from transformers import AutoModelForCausalLM",
    ),
    # As where a module that the registry imports imports Triton, which imports this package.
    "within the registry": (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'transformers.models.auto.configuration_auto' and 'hf_tle_int8' not in sys.modules:\n"
        "            assert 'transformers.quantizers.auto' in sys.modules\n"
        "            import hf_tle_int8\n"
        "sys.meta_path.insert(0, Finder())\n"
        "import transformers.quantizers.auto",
        "from transformers import AutoModelForCausalLM",
    ),
}


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random Llama, saved in INT8."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes))
    hf_tle_int8.quantize_and_replace_linears(model)
    path = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("order", ORDERS)
def test_loading_in_every_order_of_imports(order, checkpoint):
    before, after = ORDERS[order]
    script = f"""
{before}
import hf_tle_int8
{after}
model = AutoModelForCausalLM.from_pretrained({str(checkpoint)!r})
print(type(model.model.layers[0].mlp.up_proj).__name__, model.model.layers[0].mlp.up_proj.weight.dtype)
"""
    found = run(script)
    assert found.stdout.split() == ["TLEInt8Linear", "torch.int8"], found.stderr


def test_importing_is_light():
    heavy = "{'torch', 'transformers', 'triton', 'numpy', 'llvmlite', 'accelerate', 'safetensors'}"
    script = f"import sys, hf_tle_int8; print(sorted({heavy} & set(sys.modules)), 'TLEInt8Config' in dir(hf_tle_int8))"
    found = run(script)
    assert found.stdout.split() == ["[]", "True"], found.stderr


def test_all_public_names_are_had():
    for name in hf_tle_int8.__all__:
        assert getattr(hf_tle_int8, name) is not None
    assert set(hf_tle_int8._HOMES) == set(hf_tle_int8.__all__) - {"__version__"}
    assert set(hf_tle_int8.__all__) <= set(dir(hf_tle_int8))


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match=r"no attribute 'TLEInt4Config'.*TLEInt8Config"):
        hf_tle_int8.TLEInt4Config  # noqa: B018


@pytest.mark.parametrize("first", ["import transformers.quantizers.auto", ""])
def test_a_transformers_without_the_registry_is_an_error(first, tmp_path):
    """Each time, whichever is imported first."""
    package = tmp_path / "transformers" / "quantizers"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py", package / "auto.py"):
        path.write_text("__version__ = '1.0'")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
{first}
for attempt in range(2):
    try:
        import hf_tle_int8, transformers.quantizers.auto
    except ImportError as error:
        print(error)
"""
    found = run(script)
    errors = found.stdout.splitlines()
    assert len(errors) == 2, found.stderr
    assert all("cannot register with transformers 1.0: No module named 'transformers.utils'" in e for e in errors)


def test_registered_by_import():
    assert auto.AUTO_QUANTIZATION_CONFIG_MAPPING["tle_int8"] is TLEInt8Config
    assert isinstance(auto.AutoHfQuantizer.from_config({"quant_method": "tle_int8"}), TLEInt8HfQuantizer)


def test_registering_again_changes_nothing():
    before = auto.AutoHfQuantizer.merge_quantization_configs
    registration.register(auto)
    assert auto.AutoHfQuantizer.merge_quantization_configs is before


def test_other_methods_pass_through():
    config = auto.AutoHfQuantizer.merge_quantization_configs({"quant_method": "fp8"}, None)
    assert config.quant_method == "fp8"


def test_a_model_config_keeps_the_quantization_config(tmp_path):
    config = AutoConfig.for_model("llama", quantization_config=TLEInt8Config(modules_to_not_convert=["mlp"]))
    config.save_pretrained(tmp_path)
    stored = AutoConfig.from_pretrained(tmp_path).quantization_config
    assert TLEInt8Config(**stored) == TLEInt8Config(modules_to_not_convert=["mlp"])


def test_import_starts_no_thread_and_opens_no_socket():
    script = (
        "import socket, threading\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "import torch, transformers.quantizers.auto\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "before = threading.active_count()\n"
        "import hf_tle_int8\n"
        "hf_tle_int8.TLEInt8HfQuantizer\n"
        "assert threading.active_count() == before\n"
        "import sys; assert 'llvmlite' not in sys.modules\n"
        "print('fine')"
    )
    output = run(script)
    assert output.stdout.strip() == "fine", output.stderr
