"""INT8 (W8A8) inference of Hugging Face transformers models on CPUs.

    import hf_tle_int8
    model = AutoModelForCausalLM.from_pretrained(name, quantization_config=hf_tle_int8.TLEInt8Config())

Importing this package registers it with transformers, which also is what loading an INT8 checkpoint needs.
"""

from hf_tle_int8.compressed_tensors import config_from_compressed_tensors, load_config, save_compressed_tensors
from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.convert import quantize_and_replace_linears, replace_linears_with_tle_int8
from hf_tle_int8.errors import TLEInt8Error
from hf_tle_int8.nn import TLEInt8Linear
from hf_tle_int8.quantizer import TLEInt8HfQuantizer
from hf_tle_int8.registration import register
from hf_tle_int8.version import __version__

__all__ = [
    "TLEInt8Config",
    "TLEInt8Error",
    "TLEInt8HfQuantizer",
    "TLEInt8Linear",
    "__version__",
    "config_from_compressed_tensors",
    "load_config",
    "quantize_and_replace_linears",
    "replace_linears_with_tle_int8",
    "save_compressed_tensors",
]

register()
