import subprocess
import sys

from transformers import AutoConfig
from transformers.quantizers import auto

from hf_tle_int8 import TLEInt8Config, registration
from hf_tle_int8.quantizer import TLEInt8HfQuantizer


def test_registered_by_import():
    assert auto.AUTO_QUANTIZATION_CONFIG_MAPPING["tle_int8"] is TLEInt8Config
    assert auto.AUTO_QUANTIZER_MAPPING["tle_int8"] is TLEInt8HfQuantizer
    assert isinstance(auto.AutoHfQuantizer.from_config({"quant_method": "tle_int8"}), TLEInt8HfQuantizer)


def test_registering_again_changes_nothing():
    before = auto.AutoHfQuantizer.merge_quantization_configs
    registration.register()
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
        "assert threading.active_count() == before\n"
        "import sys; assert 'llvmlite' not in sys.modules\n"
        "print('fine')"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert output.stdout.strip() == "fine", output.stderr
