"""What the memory and the arithmetic of this machine can do at most, measured by kernels of the backend."""

import functools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from hf_tle_int8.backend import codegen, launch
from hf_tle_int8.backend.dot import tiles
from hf_tle_int8.backend.dot.instruction import Instruction
from hf_tle_int8.backend.dot.integers import INT8_DOTS
from hf_tle_int8.backend.entry import KernelEntry
from hf_tle_int8.backend.ir import I8, I32, PTR, FunctionBuilder, ModuleBuilder, Operand, constant
from hf_tle_int8.backend.prepared import prepare
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.tensors.index import Index, Lane
from hf_tle_int8.backend.tensors.memory import row_major
from hf_tle_int8.backend.tensors.values import Evaluator
from hf_tle_int8.bench.timing import seconds

_READ_BYTES = 256 << 20
# What eight registers of 256 bits hold.
_READ_LANES = 64
_REPEATS = 25

# Enough independent accumulators for the latency of any core's multiply, with two operands in 16 registers, or of
# eight tile registers.
_ACCUMULATORS, _TILES = 12, 6
_STEPS = 500_000


@triton.jit
def _read(x, sums, n, STREAMS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    program, lanes = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)[None, :]
    streams = program * STREAMS + tl.arange(0, STREAMS)[:, None]
    total = tl.zeros((STREAMS, BLOCK), tl.int32)
    for start in range(0, n, BLOCK):
        total += tl.load(x + streams * n + start + lanes)
    tl.store(sums + streams * BLOCK + lanes, total)


def streaming_bandwidth(target: Target, threads: int) -> float:
    """Bytes a second at which ``threads`` threads read 256 MB of memory: the best of several times and ways.

    Args:
        target: must be runnable here.
        threads: each reads a part of its own, as one stream or as several side by side, whichever is faster.
    """
    return max(_bandwidth(target, threads, streams) for streams in (1, 4, 8))


def _bandwidth(target: Target, threads: int, streams: int) -> float:
    signature, block = {"x": "*i32", "sums": "*i32", "n": "i64"}, _READ_LANES // streams
    entry = prepare(_read, signature, {"STREAMS": streams, "BLOCK": block}, target)
    each = _READ_BYTES // 4 // (threads * streams) // _READ_LANES * _READ_LANES
    x = torch.ones(each * streams * threads, dtype=torch.int32)
    sums = torch.zeros(threads * _READ_LANES, dtype=torch.int32)

    def task() -> None:
        entry.call(x.data_ptr(), sums.data_ptr(), each, threads, 1, 1, threads)

    best = min(seconds(task) for _ in range(_REPEATS))
    if int(sums.sum()) != x.numel():
        raise RuntimeError(f"the kernel that measures bandwidth read {int(sums.sum())} of {x.numel()} elements.")
    return x.nbytes / best


def int8_peak(target: Target, threads: int) -> float:
    """int8 operations a second (two for a multiply-add) of the target's dot instruction on operands in registers.

    Without such an instruction: of what the target's kernels do in its place, see `INT8_DOTS`.

    Args:
        target: must be runnable here.
        threads: how many compute.
    """
    instruction = peak_instruction(target)
    entry = KernelEntry(codegen.compile_module(target, peak_module(target)).object_code, target, "peak")
    results = torch.zeros(threads * 64, dtype=torch.int32)
    operands = torch.ones(1024, dtype=torch.int8)

    def task() -> None:
        entry.call(operands.data_ptr(), results.data_ptr(), _STEPS, threads, 1, 1, threads)

    best = min(seconds(task) for _ in range(_REPEATS))
    products = accumulators(instruction) * _STEPS << (instruction.lane_bits + instruction.k_bits)
    return 2.0 * products * threads / best


def peak_instruction(target: Target) -> Instruction:
    """The instruction of most products: the one for tile registers, if the target has these."""
    return INT8_DOTS[target.arch, "tdpbssd" if target.tile_registers else target.int8_dot](target)


def accumulators(instruction: Instruction) -> int:
    """How many `peak_module` multiplies into."""
    return _TILES if instruction.tiles else _ACCUMULATORS


def peak_module(target: Target) -> str:
    """LLVM IR of the kernel ``peak(operands, results, steps)`` whose loop multiplies registers."""
    module = ModuleBuilder()
    parameters = {"operands": PTR, "results": PTR, "steps": I32}
    grid = dict.fromkeys(("px", "py", "pz", "gx", "gy", "gz"), I32)
    f = FunctionBuilder(module, "peak_program", {**parameters, **grid}, "internal")
    instruction = peak_instruction(target)
    sums = _tile_loop(f, instruction) if instruction.tiles else _vector_loop(f, target, instruction)
    place = f.binary("mul", f.parameters["px"], constant(I32, 64))
    f.store(sums, f.offset(f.parameters["results"], place, I32))
    f.return_()
    f.finish()
    launch.add_launch(module, "peak", "peak_program", parameters, 1 << 20)
    launch.add_python_entry(module, "peak", parameters)
    return str(module)


def _tile_loop(f: FunctionBuilder, instruction: Instruction) -> Operand:
    e, index = Evaluator(f, False, 64), Index(tuple(map(Lane, range(10))), 10)
    rows, columns = ([tiles.load_tile(e, row_major(f.parameters["operands"], I8, 10), index)] for _ in range(2))
    start = [tiles.zero_tile(f) for _ in range(_TILES)]
    loop = f.counted_loop(constant(I32, 0), f.parameters["steps"], constant(I32, 1), start)
    loop.close([instruction.multiply(f, carried, rows, columns) for carried in loop.carried])
    first_row = Index((*map(Lane, range(4)), 0, 0, 0, 0), 4)
    return _total(f, [e.at(tiles.TileSums([tile], range(8)), first_row) for tile in loop.carried])


def _vector_loop(f: FunctionBuilder, target: Target, instruction: Instruction) -> Operand:
    kind, accumulator = I8.vector(target.vector_bytes), I32.vector(1 << instruction.lane_bits)
    behind = f.offset(f.parameters["operands"], constant(I32, target.vector_bytes), I8)
    rows = instruction.rows(f, f.load(kind, f.parameters["operands"]), 0)
    columns = list(instruction.columns(f, f.load(kind, behind)))
    loop = f.counted_loop(
        constant(I32, 0), f.parameters["steps"], constant(I32, 1), [constant(accumulator, 0)] * _ACCUMULATORS
    )
    sums = []
    for carried in loop.carried:
        columns = [_opaque(f, target, operand) for operand in columns]
        sums.append(instruction.multiply(f, carried, rows, columns))
    loop.close(sums)
    return _total(f, loop.carried)


def _total(f: FunctionBuilder, sums: Sequence[Operand]) -> Operand:
    return functools.reduce(lambda a, b: f.binary("add", a, b), sums)


def _opaque(f: FunctionBuilder, target: Target, operand: Operand) -> Operand:
    """The operand as LLVM cannot know it, so that no multiplication is left out or taken out of the loop."""
    register = "w" if target.arch == "aarch64" else "v" if target.vector_bytes == 64 else "x"
    return f.emit(operand.type, f'call {operand.type} asm sideeffect "", "={register},0"({operand.typed})')
