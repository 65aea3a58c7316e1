"""The stages from Triton's IR to object code."""

from collections.abc import Callable
from typing import Any

from hf_tle_int8.backend import cache_entry, codegen, debug
from hf_tle_int8.backend.codegen import MachineCode
from hf_tle_int8.backend.lowering.kernel import lower_kernel
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.ttir import stock

# In this order; a release of Triton that lacks one of the optional ones leaves it out.
_PASSES = (
    ("common", "add_inliner"),
    ("ttir", "add_rewrite_tensor_pointer"),
    ("ttir", "add_rewrite_tensor_descriptor_to_pointer"),
    ("common", "add_canonicalizer"),
    ("ttir", "add_combine"),
    ("ttir", "add_reorder_broadcast"),
    ("common", "add_cse"),
    ("common", "add_symbol_dce"),
    ("ttir", "add_loop_unroll"),
    ("ttir", "add_triton_licm"),
    ("common", "add_canonicalizer"),
)
_OPTIONAL = {"add_rewrite_tensor_pointer", "add_triton_licm"}


class Pipeline:
    """The stages of one compilation.

    Args:
        target: what to compile for.
        key: of the backend, see `identity.backend_key`.
    """

    def __init__(self, target: Target, key: str):
        self._target = target
        self._key = key
        self._code: MachineCode | None = None
        debug.requested()

    def add_to(self, stages: dict[str, Callable[[Any, dict[str, Any]], Any]]) -> None:
        """Add the stages, each a function of what the one before gave and of the kernel's metadata.

        Raises:
            RuntimeError: Triton is set to store nothing but the code of GPUs.
        """
        from triton import knobs

        if knobs.compilation.store_binary_only:
            raise RuntimeError(
                "TRITON_STORE_BINARY_ONLY is set, with which Triton stores code for GPUs only and "
                "cannot load code for CPUs. Unset it."
            )
        stages.update(ttir=self.ttir, llir=self.llir, asm=self.asm, obj=self.obj)

    def ttir(self, module: Any, metadata: dict[str, Any]) -> Any:
        """Inline, simplify and unroll; tensor descriptors become pointers."""
        from triton._C.libtriton import ir, passes

        manager = ir.pass_manager(module.context)
        for group, name in _PASSES:
            found = getattr(getattr(passes, group), name, None)
            if found is not None:
                found(manager)
            elif name not in _OPTIONAL:
                raise RuntimeError(f"this release of Triton has no pass {group}.{name}. Use one of 3.7.1 to 3.9.0.")
        manager.run(module, "ttir")
        debug.show("ttir", module.get_entry_func_name(), module)
        return module

    def llir(self, module: Any, metadata: dict[str, Any]) -> str:
        """Lower to LLVM IR. Reading spoils the module, whose text Triton has stored by then.

        Raises:
            UnsupportedOperationError: the kernel uses what is not supported; the message has the file and line.
        """
        lowered = lower_kernel(stock.read(module), self._target)
        metadata["name"] = lowered.name
        metadata["parameters"] = [str(kind) for kind in lowered.parameters.values()]
        metadata["shared"] = 0
        debug.show("llir", lowered.name, lowered.body)
        return lowered.body

    def asm(self, body: str, metadata: dict[str, Any]) -> str:
        """Compile; the text is for reading.

        Raises:
            RuntimeError: LLVM refuses the IR.
        """
        self._code = codegen.compile_module(self._target, body)
        debug.show("asm", metadata["name"], self._code.assembly)
        return self._code.assembly

    def obj(self, assembly: str | None, metadata: dict[str, Any]) -> bytes:
        """The object with its frame, as it is stored.

        Raises:
            RuntimeError: the assembly was overridden.
        """
        if self._code is None or assembly != self._code.assembly:
            raise RuntimeError(
                "the assembly was overridden, but there is no assembler to read it. Override the stage llir instead."
            )
        key = cache_entry.entry_key(self._key, metadata["hash"])
        entry = cache_entry.Entry(metadata["name"], tuple(metadata["parameters"]), self._code.object_code)
        return cache_entry.frame(entry, key)


def recompile(source: Any, metadata: Any, backend: Any) -> bytes:
    """Compile a kernel once more, past Triton's cache.

    Args:
        source: Triton's ``ASTSource`` or ``IRSource``.
        metadata: of the kernel, whose options are used again.
        backend: the compiler, for the same target.

    Raises:
        RuntimeError: the kernel came from a file that has changed.
        Exception: whatever the compilation raised.
    """
    from triton._C.libtriton import ir

    options = backend.parse_options(metadata._asdict())
    stages: dict[str, Callable[[Any, dict[str, Any]], Any]] = {}
    backend.add_stages(stages, options)
    first = list(stages).index(source.ext)
    context = ir.context()
    if hasattr(source, "fn"):
        ir.load_dialects(context)
    else:
        # The module that Triton read has lost its context. The passes of a file's own stage are not run.
        source, first = _read_again(source, context, backend), first + 1
    functions = backend.get_codegen_implementation(options)
    result = source.make_ir(backend.target, options, functions, backend.get_module_map(), context)
    collected: dict[str, Any] = {"hash": metadata.hash}
    for stage in list(stages.values())[first:]:
        result = stage(result, collected)
    return result


def _read_again(source: Any, context: Any, backend: Any) -> Any:
    again = type(source)(source.path, context, backend)
    if again.hash() != source.hash():
        raise RuntimeError(f"{source.path} has changed since the kernel was made of it. Compile it again.")
    return again
