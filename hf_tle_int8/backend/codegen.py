"""LLVM IR text to object code, through llvmlite's LLVM: for the host, or for any target of `target`.

llvmlite is imported on first use: importing the backend must stay cheap.
"""

import functools
from dataclasses import dataclass
from typing import Any

from hf_tle_int8.backend.target import Target


@dataclass(frozen=True)
class MachineCode:
    """What LLVM made of one module.

    Attributes:
        object_code: a relocatable ELF object.
        module: llvmlite's module after optimization.
        machine: llvmlite's target machine.
    """

    object_code: bytes
    module: Any
    machine: Any

    @functools.cached_property
    def assembly(self) -> str:
        """The object as text, for reading and for tests; generating it takes as long again as the object did."""
        return self.machine.emit_assembly(self.module)

    @functools.cached_property
    def ir(self) -> str:
        """The IR after optimization."""
        return str(self.module)


@functools.cache
def llvm() -> Any:
    """The module ``llvmlite.binding`` with all targets initialized.

    Raises:
        ImportError: llvmlite is not installed; the message says how to get it.
    """
    try:
        import llvmlite.binding as binding
    except ImportError as error:
        raise ImportError(
            f"kernels are compiled by llvmlite, which cannot be imported ({error}): pip install llvmlite."
        ) from error
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    return binding


@functools.cache
def target_machine(target: Target) -> Any:
    """LLVM's target machine for ``target``: position-independent code at the highest optimization level."""
    machine = llvm().Target.from_triple(target.triple)
    return machine.create_target_machine(
        cpu=target.cpu, features=target.feature_string, opt=3, reloc="pic", codemodel="small"
    )


def function_attributes(target: Target) -> str:
    """The attributes that every function has, as the text of an IR attribute group."""
    features = f'"target-features"="{target.feature_string}"' if target.features else ""
    width = f'"prefer-vector-width"="{8 * target.vector_bytes}" "min-legal-vector-width"="{8 * target.vector_bytes}"'
    cpu = f'"target-cpu"="{target.cpu}" "tune-cpu"="{target.tune}"'
    return f'"no-trapping-math"="true" "frame-pointer"="none" {cpu} {features} {width}'


def module_text(target: Target, body: str) -> str:
    """A module around ``body``, whose functions carry the attribute group ``#0``; or ``#1``, if they may throw."""
    return (
        f'target triple = "{target.triple}"\n'
        f'target datalayout = "{target_machine(target).target_data}"\n'
        f"{body}\n"
        f"attributes #0 = {{ nounwind {function_attributes(target)} }}\n"
        f"attributes #1 = {{ uwtable {function_attributes(target)} }}\n"
    )


def compile_module(target: Target, body: str) -> MachineCode:
    """Optimize and compile the functions in ``body``.

    The vectorizers and the loop unroller are off: the lowering chooses vectors and loops itself.

    Args:
        target: what to compile for; need not be the host.
        body: LLVM IR of functions and globals, without triple and data layout.

    Raises:
        RuntimeError: LLVM refuses the IR; its message is included.
    """
    binding = llvm()
    machine = target_machine(target)
    module = binding.parse_assembly(module_text(target, body))
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=2)
    options.slp_vectorization = options.loop_vectorization = options.loop_unrolling = False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return MachineCode(machine.emit_object(module), module, machine)
