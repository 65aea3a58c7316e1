"""TTIR of kernels from the installed Triton, as the lowering gets it."""

from typing import Any

from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hf_tle_int8.backend.compiler import CPUBackend
from hf_tle_int8.backend.options import CPUOptions
from hf_tle_int8.backend.pipeline import Pipeline
from hf_tle_int8.backend.target import host


def stock_module(kernel, signature: dict[str, str], **constexprs: Any) -> Any:
    """The module that stock Triton makes of ``kernel``, after the passes; keep it referenced while in use."""
    context = ir.context()
    ir.load_dialects(context)
    types = {**signature, **dict.fromkeys(constexprs, "constexpr")}
    source = ASTSource(kernel, signature=types, constexprs=constexprs)
    backend, options = CPUBackend(GPUTarget("cpu", host().name, 1)), CPUOptions()
    functions, modules = backend.get_codegen_implementation(options), backend.get_module_map()
    module = source.make_ir(backend.target, options, functions, modules, context)
    module.context = context
    return Pipeline(host(), "").ttir(module, {})
