"""What machine a kernel is compiled for: vector width, registers, dot instructions and the packing that suits them."""

import functools
import os
import platform
from dataclasses import dataclass

from hf_tle_int8.backend.hwcap import cpu_features


@dataclass(frozen=True)
class Packing:
    """How the right operand of an int8 dot lies in memory so that a register is one contiguous load.

    Panels of ``columns`` output channels, groups of ``k`` along the inner dimension:
    ``[N / columns][K / k][columns][k]``.
    """

    columns: int
    k: int


@dataclass(frozen=True)
class Target:
    """A CPU, as far as code generation cares.

    Attributes:
        name: what `named` calls it.
        arch: ``x86_64`` or ``aarch64``.
        cpu: LLVM's name of the CPU whose instructions may be used.
        tune: LLVM's name of the CPU whose schedule is used; it must not add instructions.
        features: LLVM features to switch on beside those of ``cpu``.
        vector_bytes: bytes of a vector register.
        vector_registers: how many there are.
        int8_dot: the instruction for int8 products: ``smmla``, ``sdot``, ``vpdpbusd``, ``vpmaddubsw`` or ``widening``
            (none).
        bf16_dot: ``bfmmla``, ``dpbf16`` or ``fma`` (none).
        packing: of int8 weights.
        masked_memory: whether masked loads and stores are instructions.
        tile_registers: how many registers of 16 rows of 64 bytes there are, for products of such matrices (AMX).
    """

    name: str
    arch: str
    cpu: str
    tune: str
    features: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    int8_dot: str
    bf16_dot: str
    packing: Packing
    masked_memory: bool
    tile_registers: int = 0

    @property
    def triple(self) -> str:
        """LLVM's target triple."""
        return f"{self.arch}-unknown-linux-gnu"

    @property
    def feature_string(self) -> str:
        """``features`` in the form that LLVM reads."""
        return ",".join(f"+{feature}" for feature in self.features)

    def lanes(self, bits: int) -> int:
        """How many elements of ``bits`` bits (1 counts as 8) a vector register holds."""
        return self.vector_bytes * 8 // max(bits, 8)


_BY_FOUR, _BY_EIGHT, _WIDE = Packing(8, 4), Packing(8, 8), Packing(16, 4)

_DOTPROD = ("dotprod", "fullfp16")
_VNNI = ("avx512vnni",)
_AMX = (*_VNNI, "avx512bf16", "amx-tile", "amx-int8")

# LLVM's model of neoverse-v2 gives ldp of two vectors three of the six places in a cycle, and ldr one each.
# name, arch, cpu, tune, features, vector bytes, registers, int8 dot, bf16 dot, packing, masked memory, tile registers
_ROWS = (
    ("neon", "aarch64", "generic", "cortex-a72", (), 16, 32, "widening", "fma", _BY_FOUR, False),
    ("neon-dotprod", "aarch64", "generic", "neoverse-n1", _DOTPROD, 16, 32, "sdot", "fma", _BY_FOUR, False),
    (
        "neon-i8mm",
        "aarch64",
        "generic",
        "neoverse-n2",
        (*_DOTPROD, "i8mm", "bf16", "disable-ldp"),
        16,
        32,
        "smmla",
        "bfmmla",
        _BY_EIGHT,
        False,
    ),
    ("avx2", "x86_64", "x86-64-v3", "x86-64-v3", (), 32, 16, "vpmaddubsw", "fma", _BY_FOUR, True),
    ("avxvnni", "x86_64", "x86-64-v3", "alderlake", ("avxvnni",), 32, 16, "vpdpbusd", "fma", _BY_FOUR, True),
    ("avx512", "x86_64", "x86-64-v4", "skylake-avx512", (), 64, 32, "widening", "fma", _WIDE, True),
    ("avx512vnni", "x86_64", "x86-64-v4", "icelake-server", _VNNI, 64, 32, "vpdpbusd", "fma", _WIDE, True),
    ("avx512bf16", "x86_64", "x86-64-v4", "znver4", (*_VNNI, "avx512bf16"), 64, 32, "vpdpbusd", "dpbf16", _WIDE, True),
    ("amx", "x86_64", "x86-64-v4", "sapphirerapids", _AMX, 64, 32, "vpdpbusd", "dpbf16", _WIDE, True, 8),
)
TARGETS = {row[0]: Target(*row) for row in _ROWS}

_V3 = {"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}

# Features that Linux must report before code for a target may run; best first for each architecture.
_REQUIRED = {
    "aarch64": {
        "neon-i8mm": {"asimd", "asimddp", "i8mm", "bf16", "asimdhp"},
        "neon-dotprod": {"asimd", "asimddp", "asimdhp"},
        "neon": {"asimd"},
    },
    "x86_64": {
        "amx": _V4 | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8"},
        "avx512bf16": _V4 | {"avx512_vnni", "avx512_bf16"},
        "avx512vnni": _V4 | {"avx512_vnni"},
        "avx512": _V4,
        "avxvnni": _V3 | {"avx_vnni"},
        "avx2": _V3,
    },
}


def named(name: str) -> Target:
    """The target called ``name``.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in TARGETS:
        raise ValueError(f"{name!r} is no target. There are {', '.join(TARGETS)}.")
    return TARGETS[name]


def runnable(features: frozenset[str], machine: str) -> list[str]:
    """The names of the targets whose code runs on a CPU with ``features``, best first."""
    return [name for name, required in _REQUIRED.get(machine, {}).items() if required <= features]


@functools.cache
def host() -> Target:
    """The best target that this machine runs.

    Raises:
        RuntimeError: none does, or the operating system does not tell the features of the CPU.
    """
    machine = platform.machine()
    names = runnable(cpu_features(), machine)
    if not names:
        raise RuntimeError(
            f"this machine ({machine}, {platform.system()}) runs none of the targets {', '.join(TARGETS)}: "
            f"Linux on AArch64, or on x86-64 with AVX2, is needed."
        )
    return named(names[0])


# Names the target to compile for instead of the best one that this machine runs.
VARIABLE = "HF_TLE_INT8_TARGET"


def runnable_here(name: str) -> Target:
    """The target called ``name``, whose code this machine runs.

    Raises:
        RuntimeError: there is no such target, or this machine does not run it.
    """
    here = runnable(cpu_features(), platform.machine())
    choice = f"Choose of {', '.join(here)}" if here else "This machine runs none"
    if name not in TARGETS:
        raise RuntimeError(f"{name!r} is no target. {choice}.")
    if name not in here:
        raise RuntimeError(f"the target {name!r} needs instructions that this CPU does not have. {choice}.")
    return named(name)


def current() -> Target:
    """The target that kernels are compiled for and run on: what ``HF_TLE_INT8_TARGET`` names, or else `host`.

    Raises:
        RuntimeError: the variable names no target or one that does not run here, or this machine runs none at all.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return host()
    try:
        return runnable_here(name)
    except RuntimeError as error:
        raise RuntimeError(f"{VARIABLE}={name}: {error} Unset {VARIABLE} for the best target.") from error
