"""Reading a module of stock Triton.

The wheel's Python bindings show operations, operands and integer attributes, but neither float constants nor arrays.
The text in MLIR's generic form has all of it, and MLIR prints that form for a module that does not verify.
"""

from typing import Any

from hf_tle_int8.backend.ttir.model import Module
from hf_tle_int8.backend.ttir.parser import parse

# An attribute that the LLVM dialect verifies on every module; no data layout is called this.
_ATTRIBUTE, _INVALID = "llvm.data_layout", "z"


def generic_text(module: Any) -> str:
    """The generic form of a ``triton._C.libtriton.ir.module``, with locations. Makes the module fail verification."""
    from triton._C.libtriton import ir

    module.set_attr(_ATTRIBUTE, ir.builder(module.context).get_string_attr(_INVALID))
    return module.str()


def read(module: Any) -> Module:
    """A ``triton._C.libtriton.ir.module`` as typed objects. The module must not be used by Triton afterwards.

    Raises:
        TTIRSyntaxError: this release of Triton prints another form.
    """
    return parse(generic_text(module))
