"""What a launch may ask of the compiler."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# What a product of fp32 matrices may be approximated by. All are computed in fp32, which is at least as exact.
DOT_INPUT_PRECISIONS = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")

# Options that tune a kernel for GPUs. They are accepted and change nothing, not even the key of the cache.
WITHOUT_EFFECT = frozenset(
    {
        "num_warps", "num_ctas", "num_stages", "maxnreg", "maxRegAutoWS", "minRegAutoWS", "pingpongAutoWS",
        "cluster_dims", "launch_cooperative_grid", "launch_pdl", "clc", "sched4reg", "ptx_version", "ptx_options",
        "min_shared_mem", "waves_per_eu", "kpack", "matrix_instr_nonkdim", "allow_flush_denorm", "schedule_hint",
        "enable_reflect_ftz",
    }
)  # fmt: skip


@dataclass(frozen=True)
class CPUOptions:
    """The fields that Triton's frontend and runtime read, in releases 3.7.1 to 3.9.0, and those of `WITHOUT_EFFECT`.

    ``default_dot_input_precision`` and the field after it are names that ``tl.dot(input_precision=…)`` may have;
    ``ir_override`` is a file that replaces the output of the stage that its extension names.
    """

    num_warps: int = 1
    num_ctas: int = 1
    num_stages: int = 1
    warp_size: int = 1
    shared: int = 0
    enable_fp_fusion: bool = True
    supported_fp8_dtypes: tuple[str, ...] = ()
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple[str, ...] = DOT_INPUT_PRECISIONS
    max_num_imprecise_acc_default: int = 0
    extern_libs: tuple[Any, ...] = ()
    debug: bool = False
    sanitize_overflow: bool = False
    backend_name: str = "cpu"
    arch: str | None = None
    instrumentation_mode: str = ""
    fpsan_homomorphic_casts: bool = False
    ir_override: str | None = None
    maxnreg: int | None = None
    maxRegAutoWS: int | None = None  # noqa: N815
    minRegAutoWS: int | None = None  # noqa: N815
    pingpongAutoWS: bool | None = None  # noqa: N815
    cluster_dims: tuple[int, ...] | None = None
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False
    clc: bool = False
    sched4reg: bool = False
    ptx_version: int | None = None
    ptx_options: str | None = None
    min_shared_mem: int | None = None
    waves_per_eu: int = 0
    kpack: int = 1
    matrix_instr_nonkdim: int = 0
    allow_flush_denorm: bool = False
    schedule_hint: str | None = None
    enable_reflect_ftz: bool = False

    def __post_init__(self) -> None:
        if self.extern_libs:
            raise ValueError(
                f"extern_libs={self.extern_libs!r}: libraries of LLVM bitcode are for GPUs. Leave the option out."
            )
        if self.default_dot_input_precision not in DOT_INPUT_PRECISIONS:
            raise ValueError(
                f"default_dot_input_precision={self.default_dot_input_precision!r} is unknown. "
                f"Choose of {', '.join(DOT_INPUT_PRECISIONS)}."
            )

    def hash(self) -> str:
        """A digest of the options that change code."""
        effective = {name: value for name, value in sorted(self.__dict__.items()) if name not in WITHOUT_EFFECT}
        return hashlib.sha256(repr(effective).encode()).hexdigest()


_FIELDS = frozenset(field.name for field in fields(CPUOptions))


def parse(given: Mapping[str, Any]) -> CPUOptions:
    """The options among ``given``; a None is the default, a list (as JSON has it) a tuple.

    Triton itself refuses a keyword that is neither an option nor an argument of the kernel.

    Raises:
        ValueError: an option has a value that nothing can be done with.
    """
    known: dict[str, Any] = {name: value for name, value in given.items() if name in _FIELDS and value is not None}
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return CPUOptions(**{**known, **lists})
