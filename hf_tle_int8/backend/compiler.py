"""The compiler that Triton finds: exactly one concrete ``BaseBackend`` may be visible in this module."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from triton.backends.compiler import BaseBackend, GPUTarget

from hf_tle_int8.backend import options as cpu_options
from hf_tle_int8.backend.identity import backend_key
from hf_tle_int8.backend.options import CPUOptions
from hf_tle_int8.backend.target import TARGETS, named


class CPUBackend(BaseBackend):
    """Compiles for ``GPUTarget("cpu", <name of a target>, 1)``; the target need not be this machine's.

    Raises:
        ValueError: there is no target of that name.
    """

    binary_ext = "obj"

    def __init__(self, target: GPUTarget):
        self._cpu = named(target.arch)
        super().__init__(target)

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Whether ``target`` is one of ours; another backend for CPUs has others."""
        return target.backend == "cpu" and target.arch in TARGETS

    def hash(self) -> str:
        """All that code depends on beside the kernel and its options.

        Raises:
            ImportError: llvmlite is not installed.
        """
        return backend_key(self._cpu)

    def parse_options(self, options: dict[str, Any]) -> CPUOptions:
        """The options of a launch; those that tune for GPUs have no effect.

        Raises:
            ValueError: an option has a value that nothing can be done with.
        """
        return cpu_options.parse(options)

    def pack_metadata(self, metadata: Any) -> tuple[()]:
        """Nothing: the object itself says what a launch needs."""
        return ()

    def get_codegen_implementation(self, options: CPUOptions) -> dict[str, Callable[..., Any] | None]:
        """What the frontend asks a backend: dots of any shape will do, types need no conversion."""
        return {"min_dot_size": lambda left, right: (1, 1, 1), "convert_custom_types": None}

    def get_module_map(self) -> dict[str, ModuleType]:
        """No module of ``tl.extra`` has an implementation here."""
        return {}

    def load_dialects(self, context: Any) -> None:
        """Nothing: Triton's own dialects suffice."""

    def add_stages(self, stages: dict[str, Any], options: CPUOptions, language: Any = None) -> None:
        """Add ``ttir``, ``llir``, ``asm`` and ``obj``; Triton before 3.9 names no language.

        Raises:
            RuntimeError: Triton is set to store nothing but the code of GPUs.
            NotImplementedError: the kernel is written in Gluon.
        """
        from hf_tle_int8.backend.pipeline import Pipeline

        if language is not None and language.name != "TRITON":
            raise NotImplementedError(
                f"the kernel is written in {language.name.title()}, a language for GPUs. Write it in Triton."
            )
        Pipeline(self._cpu, self.hash()).add_to(stages)
