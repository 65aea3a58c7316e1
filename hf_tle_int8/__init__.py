"""INT8 (W8A8) inference of Hugging Face transformers models on CPUs."""

from hf_tle_int8.convert import quantize_and_replace_linears, replace_linears_with_tle_int8
from hf_tle_int8.errors import TLEInt8Error
from hf_tle_int8.nn import TLEInt8Linear
from hf_tle_int8.version import __version__

__all__ = [
    "TLEInt8Error",
    "TLEInt8Linear",
    "__version__",
    "quantize_and_replace_linears",
    "replace_linears_with_tle_int8",
]
