"""CPU features as Linux reports them.

LLVM's own detection lists no dot-product feature on AArch64, even where the CPU has them: the auxiliary vector does.
"""

import ctypes
import functools
import platform
from pathlib import Path

# Bits of the auxiliary vector: arch/arm64/include/uapi/asm/hwcap.h of the Linux kernel.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_HWCAP = {"asimd": 1 << 1, "fphp": 1 << 9, "asimdhp": 1 << 10, "asimddp": 1 << 20, "sve": 1 << 22}
_HWCAP2 = {"sve2": 1 << 1, "svei8mm": 1 << 9, "i8mm": 1 << 13, "bf16": 1 << 14}
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


def cpu_features() -> frozenset[str]:
    """The features of this CPU under Linux's names, without those that it refuses to this process.

    Empty where the operating system is another one.
    """
    if platform.system() != "Linux":
        return frozenset()
    if platform.machine() == "aarch64":
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
        return _set_bits(getauxval(_AT_HWCAP), _HWCAP) | _set_bits(getauxval(_AT_HWCAP2), _HWCAP2)
    flags = frozenset(cpuinfo("flags").split())
    return flags if "amx_tile" not in flags or may_use_tiles() else frozenset(f for f in flags if f[:4] != "amx_")


@functools.cache
def may_use_tiles() -> bool:
    """Ask Linux for the tile registers of AMX, which a process may use from then on, if it is not refused.

    Documentation/arch/x86/xstate.rst of the Linux kernel: ``arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)``.
    """
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0


def _set_bits(word: int, bits: dict[str, int]) -> frozenset[str]:
    return frozenset(name for name, bit in bits.items() if word & bit)


@functools.cache
def cpuinfo(key: str) -> str:
    """The first value of ``key`` in /proc/cpuinfo, or an empty string."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
