"""Writing LLVM IR as text: types, operands, functions and modules."""

from hf_tle_int8.backend.ir.builder import CountedLoop, FunctionBuilder, ModuleBuilder
from hf_tle_int8.backend.ir.operands import (
    BFLOAT,
    DOUBLE,
    FLOAT,
    HALF,
    I1,
    I8,
    I16,
    I32,
    I64,
    PTR,
    IRType,
    Operand,
    constant,
)
from hf_tle_int8.backend.ir.phis import Label

__all__ = [
    "BFLOAT",
    "DOUBLE",
    "FLOAT",
    "HALF",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "PTR",
    "CountedLoop",
    "FunctionBuilder",
    "IRType",
    "Label",
    "ModuleBuilder",
    "Operand",
    "constant",
]
