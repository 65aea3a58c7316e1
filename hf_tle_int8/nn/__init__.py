"""Modules that hold INT8 weights."""

from hf_tle_int8.nn.experts import TLEInt8Experts
from hf_tle_int8.nn.linear import TLEInt8Linear

__all__ = ["TLEInt8Experts", "TLEInt8Linear"]
