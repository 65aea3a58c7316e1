"""Tensors of a kernel: where their elements are, and how to have those that a vector needs."""
