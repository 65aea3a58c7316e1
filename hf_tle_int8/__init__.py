"""INT8 (W8A8) inference of Hugging Face transformers models on CPUs.

    import hf_tle_int8
    model = AutoModelForCausalLM.from_pretrained(name, quantization_config=hf_tle_int8.TLEInt8Config())

Importing this package registers it with transformers, which also is what loading an INT8 checkpoint needs. It imports
neither torch nor transformers: Triton imports it too, for its backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hf_tle_int8 import adapters
from hf_tle_int8.import_hook import after_import
from hf_tle_int8.registration import REGISTRY, register
from hf_tle_int8.version import __version__

if TYPE_CHECKING:
    from hf_tle_int8.compressed_tensors import config_from_compressed_tensors, load_config, save_compressed_tensors
    from hf_tle_int8.config import TLEInt8Config
    from hf_tle_int8.convert import quantize_and_replace_linears, replace_linears_with_tle_int8
    from hf_tle_int8.errors import TLEInt8Error
    from hf_tle_int8.explanation import explain
    from hf_tle_int8.int_mm import override_int_mm, restore_int_mm
    from hf_tle_int8.nn import TLEInt8Linear
    from hf_tle_int8.quantizer import TLEInt8HfQuantizer

__all__ = [
    "TLEInt8Config",
    "TLEInt8Error",
    "TLEInt8HfQuantizer",
    "TLEInt8Linear",
    "__version__",
    "config_from_compressed_tensors",
    "explain",
    "load_config",
    "override_int_mm",
    "quantize_and_replace_linears",
    "replace_linears_with_tle_int8",
    "restore_int_mm",
    "save_compressed_tensors",
]

# The modules of the names above, each imported when one of its names is first used.
_HOMES = {
    "TLEInt8Config": "config",
    "TLEInt8Error": "errors",
    "TLEInt8HfQuantizer": "quantizer",
    "TLEInt8Linear": "nn",
    "config_from_compressed_tensors": "compressed_tensors",
    "explain": "explanation",
    "load_config": "compressed_tensors",
    "override_int_mm": "int_mm",
    "quantize_and_replace_linears": "convert",
    "replace_linears_with_tle_int8": "convert",
    "restore_int_mm": "int_mm",
    "save_compressed_tensors": "compressed_tensors",
}


if not TYPE_CHECKING:  # type checkers would take any name for an attribute

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Its names are {', '.join(__all__)}.")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


after_import(REGISTRY, register)
after_import(adapters.TUNERS, adapters.guard)
