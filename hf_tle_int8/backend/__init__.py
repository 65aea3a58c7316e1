"""A Triton backend for CPUs, from PyPI wheels alone: TTIR to LLVM IR to machine code through llvmlite.

Knows nothing of quantization, of transformers or of the rest of this package.
"""
