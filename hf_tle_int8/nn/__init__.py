"""Modules that hold INT8 weights."""

from hf_tle_int8.nn.conv1d import TLEInt8Conv1D
from hf_tle_int8.nn.experts import TLEInt8Experts
from hf_tle_int8.nn.linear import TLEInt8Linear
from hf_tle_int8.nn.training import guard

__all__ = ["TLEInt8Conv1D", "TLEInt8Experts", "TLEInt8Linear"]

guard((TLEInt8Linear, TLEInt8Experts))
