"""Triton's IR as typed Python objects, and the reader that makes them from a module of stock Triton."""

from hf_tle_int8.backend.ttir.model import Block, DenseElements, Location, Module, Operation, Region, Value
from hf_tle_int8.backend.ttir.parser import TTIRSyntaxError, parse
from hf_tle_int8.backend.ttir.types import (
    FloatType,
    FunctionType,
    IntegerType,
    OpaqueType,
    PointerType,
    TensorType,
    Type,
)

__all__ = [
    "Block",
    "DenseElements",
    "FloatType",
    "FunctionType",
    "IntegerType",
    "Location",
    "Module",
    "OpaqueType",
    "Operation",
    "PointerType",
    "Region",
    "TTIRSyntaxError",
    "TensorType",
    "Type",
    "Value",
    "parse",
]
