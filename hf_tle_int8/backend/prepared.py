"""Kernels compiled ahead of their first call, for callers that cannot afford ``kernel[grid]``'s Python."""

from collections.abc import Mapping
from typing import Any

from hf_tle_int8.backend.entry import KernelEntry
from hf_tle_int8.backend.launcher import Binary, CPULauncher
from hf_tle_int8.backend.target import Target


def prepare(kernel: Any, signature: Mapping[str, str], constexprs: Mapping[str, Any], target: Target) -> KernelEntry:
    """Compile a ``triton.jit`` function, or load it from Triton's cache.

    No argument is specialised: none is taken to be 1 or a multiple of 16.

    Args:
        kernel: the function.
        signature: Triton's names of the types of its arguments, in order: ``*fp32``, ``i32``, …; without constexprs.
        constexprs: values of the others.
        target: must be runnable here.

    Returns:
        Its entry: ``entry.call(*arguments, gx, gy, gz, threads)`` with pointers as addresses.

    Raises:
        RuntimeError: Triton does not know this backend; see `settings.why_not_registered`.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    from hf_tle_int8.backend import settings

    reason = settings.why_not_registered()
    if reason is not None:
        raise RuntimeError(reason)
    types = {name: "constexpr" if name in constexprs else signature[name] for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, types, {(kernel.arg_names.index(n),): v for n, v in constexprs.items()})
    compiled = triton.compile(source, target=GPUTarget("cpu", target.name, 1))
    return CPULauncher(source, compiled.metadata).entry(Binary(compiled.name, compiled.kernel))
