"""TTIR to LLVM IR, one family of operations a module.

Elementwise operations are written for scalars and for vectors of any number of lanes alike; what a tensor is, and which
of its elements are computed where, is the business of `hf_tle_int8.backend.tensors`.
"""

from hf_tle_int8.backend.lowering.elementwise import ELEMENTWISE, UnsupportedOperationError, lower_elementwise
from hf_tle_int8.backend.lowering.types import ir_type

__all__ = ["ELEMENTWISE", "UnsupportedOperationError", "ir_type", "lower_elementwise"]
