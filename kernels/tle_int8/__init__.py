"""Triton kernels of the INT8 scheme and the constants that define it; imported as ``hf_tle_int8.kernels``."""
