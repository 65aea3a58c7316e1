"""Running AArch64 code without an Arm machine: objects of ours, a freestanding runner, qemu-user.

The runner is assembled and linked by GNU binutils for AArch64 and needs no C library and no root file system. It reads
a request from its standard input (an entry point, up to eight integer or pointer arguments, the bytes of all buffers),
calls the entry point and writes the buffers back, until the input ends.
"""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import arm_threads
import numpy as np
import pytest

EMULATOR = "qemu-aarch64-static"
ASSEMBLER = "aarch64-linux-gnu-as"
LINKER = "aarch64-linux-gnu-ld"

# What qemu must be to run each target of hf_tle_int8.backend.target and nothing beyond it.
CPU_OF_TARGET = {"neon": "cortex-a72", "neon-dotprod": "neoverse-n1", "neon-i8mm": "max,sve=off"}

_REGISTERS = 8
_ARGUMENTS = 18
_ALIGNMENT = 64
_MEMORY = 1 << 24

_RUNNER = """\
    .text
    .global _start
_start:
    adrp x19, request
    add x19, x19, :lo12:request
    adrp x20, memory
    add x20, x20, :lo12:memory
next:
    mov x0, #63                     // read
    mov x1, #0
    mov x2, x19
    mov x3, #{header}
    bl transfer
    cbnz x0, quit
    mov x0, #63
    mov x1, #0
    mov x2, x20
    ldr x3, [x19]
    bl transfer
    ldp x9, x10, [x19, #8]          // entry point, which arguments are offsets into memory
    sub sp, sp, #{stack}
{arguments}
    adrp x11, entries
    add x11, x11, :lo12:entries
    ldr x11, [x11, x9, lsl #3]
    blr x11
    add sp, sp, #{stack}
    mov x0, #64                     // write
    mov x1, #1
    mov x2, x20
    ldr x3, [x19]
    bl transfer
    b next
quit:
    mov x8, #93                     // exit
    mov x0, #0
    svc #0

transfer:                           // call x0 on descriptor x1 until x3 bytes at x2 are done; x0 = bytes left
    mov x8, x0
    mov x4, x1
    mov x5, x2
    mov x6, x3
more:
    cbz x6, done
    mov x0, x4
    mov x1, x5
    mov x2, x6
    svc #0
    cmp x0, #0
    b.le done
    add x5, x5, x0
    sub x6, x6, x0
    b more
done:
    mov x0, x6
    ret

    .data
    .balign 8
entries:
{entries}
    .bss
    .balign {alignment}
request:
    .zero {header}
    .balign {alignment}
memory:
    .zero {memory}
"""


class EmulatedDeathError(RuntimeError):
    """The emulated process was killed; ``returncode`` is that of `subprocess`: -4 for an illegal instruction."""

    def __init__(self, returncode: int):
        super().__init__(f"the emulated process ended with {returncode}")
        self.returncode = returncode


def require_emulator() -> None:
    """Skip the test where the tools are missing; on CI, fail it."""
    missing = [tool for tool in (EMULATOR, ASSEMBLER, LINKER) if shutil.which(tool) is None]
    if missing:
        message = f"{', '.join(missing)} missing: apt-get install qemu-user-static binutils-aarch64-linux-gnu"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def link(objects: list[bytes], entries: list[str], folder: Path) -> Path:
    """A static executable around ``objects`` that calls their functions ``entries``."""
    header = 8 * (3 + _ARGUMENTS)
    loads = []
    for index in reversed(range(_ARGUMENTS)):
        register = f"x{min(index, _REGISTERS)}"
        loads += [f"    ldr {register}, [x19, #{24 + 8 * index}]", f"    ubfx x12, x10, #{index}, #1"]
        loads += [f"    madd {register}, x12, x20, {register}"]
        if index >= _REGISTERS:
            loads.append(f"    str {register}, [sp, #{8 * (index - _REGISTERS)}]")
    table = "\n".join(f"    .quad {entry}" for entry in entries)
    stack = 8 * (_ARGUMENTS - _REGISTERS)
    source = _RUNNER.format(
        stack=stack, header=header, arguments="\n".join(loads), entries=table, alignment=_ALIGNMENT, memory=_MEMORY
    )
    assembly, program = folder / "runner.s", folder / "program"
    assembly.write_text(source + arm_threads.ASSEMBLY)
    subprocess.run([ASSEMBLER, "-o", folder / "runner.o", assembly], check=True)
    files = [folder / "runner.o"]
    for number, data in enumerate(objects):
        files.append(folder / f"kernel{number}.o")
        files[-1].write_bytes(data)
    subprocess.run([LINKER, "-static", "-e", "_start", "-o", program, *files], check=True)
    return program


class ArmProcess:
    """An emulated process; use as a context manager.

    Args:
        program: what `link` made.
        entries: the same names in the same order.
        cpu: qemu's CPU model, such as ``neoverse-n1`` or ``max,sve=off``.
    """

    def __init__(self, program: Path, entries: list[str], cpu: str):
        self.entries = entries
        command = [EMULATOR, "-cpu", cpu, str(program)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> "ArmProcess":
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def call(self, entry: str, *arguments: "np.ndarray | int") -> None:
        """Call ``entry``; arrays are passed by address and changed in place.

        Raises:
            EmulatedDeathError: the process died of it.
        """
        memory = bytearray()
        values, pointers, places = [0] * _ARGUMENTS, 0, []
        for index, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                memory += bytes(-len(memory) % _ALIGNMENT)
                values[index], pointers = len(memory), pointers | 1 << index
                places.append((argument, len(memory)))
                memory += argument.tobytes()
            else:
                values[index] = argument
        assert len(memory) <= _MEMORY
        request = struct.pack(f"<3Q{_ARGUMENTS}q", len(memory), self.entries.index(entry), pointers, *values)
        reply = self._exchange(request + bytes(memory), len(memory))
        for array, start in places:
            array[...] = np.frombuffer(reply, array.dtype, array.size, start).reshape(array.shape)

    def _exchange(self, request: bytes, size: int) -> bytes:
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EmulatedDeathError(self._process.wait()) from None
        reply = self._process.stdout.read(size)
        if len(reply) < size:
            raise EmulatedDeathError(self._process.wait())
        return reply
