"""TTIR to LLVM IR, one family of operations a module.

What is here computes on scalars and on vectors of any number of lanes alike; tensors are the business of what calls it.
"""

from hf_tle_int8.backend.lowering.elementwise import ELEMENTWISE, UnsupportedOperationError, lower_elementwise
from hf_tle_int8.backend.lowering.types import ir_type

__all__ = ["ELEMENTWISE", "UnsupportedOperationError", "ir_type", "lower_elementwise"]
