"""TTIR of kernels from the installed Triton, without any backend."""

import inspect
from dataclasses import dataclass
from typing import Any

from triton._C.libtriton import ir, passes
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@dataclass(frozen=True)
class FrontendOptions:
    """The fields that Triton's frontend reads of a backend's options."""

    num_warps: int = 1
    num_ctas: int = 1
    num_stages: int = 1
    warp_size: int = 1
    shared: int = 0
    enable_fp_fusion: bool = True
    launch_cooperative_grid: bool = False
    supported_fp8_dtypes: tuple[str, ...] = ()
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple[str, ...] = ("ieee",)
    max_num_imprecise_acc_default: int = 0
    extern_libs: tuple[Any, ...] = ()
    debug: bool = False
    sanitize_overflow: bool = False
    backend_name: str = "cpu"
    arch: str | None = None
    instrumentation_mode: str = ""
    fpsan_homomorphic_casts: bool = False


def stock_module(kernel, signature: dict[str, str], **constexprs: Any) -> Any:
    """The module that stock Triton makes of ``kernel``, inlined and canonicalized; keep it referenced while in use."""
    context = ir.context()
    ir.load_dialects(context)
    types = {**signature, **dict.fromkeys(constexprs, "constexpr")}
    source = ASTSource(kernel, signature=types, constexprs=constexprs)
    given = {
        "target": GPUTarget("cpu", "host", 1),
        "options": FrontendOptions(),
        "codegen_fns": {"min_dot_size": lambda a, b: (1, 1, 1), "convert_custom_types": None},
        "module_map": {},
        "context": context,
    }
    module = source.make_ir(**{name: given[name] for name in inspect.signature(source.make_ir).parameters})
    module.context = context
    manager = ir.pass_manager(context)
    passes.common.add_inliner(manager)
    passes.common.add_canonicalizer(manager)
    passes.common.add_cse(manager)
    passes.common.add_symbol_dce(manager)
    manager.run(module, "ttir")
    return module
