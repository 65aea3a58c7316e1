"""What each thread of a team runs: its share of the programs of a grid, by one of two schedules.

A context in memory has 8 bytes for each of the arguments of a kernel, the three extents of the grid, the number of its
programs and the number of those that were taken, which belongs to one launch and is counted by its threads alone.
"""

from collections.abc import Sequence

from hf_tle_int8.backend.ir import I32, I64, PTR, FunctionBuilder, IRType, ModuleBuilder, Operand, constant
from hf_tle_int8.backend.ir.frame import ALIGNMENT

# Elements of work that a thread takes at the least, a quarter of what is worth waking one: counting costs little then.
WORK_PER_CHUNK = 4096
# A thread takes one part in so many of its even share of what is left: guided self-scheduling (Polychronopoulos and
# Kuck, IEEE Trans. Computers C-36, 1987). Simulated for cores of which the slowest is up to 5 times slower than the
# fastest, and 32 programs a thread, it ends at most 3 % later than a perfect division; chunks of one size, eight a
# thread, up to 12 %.
_SHARE = 4

_TOTAL, _TAKEN = 3, 4
SLOTS = 5


def slot(f: FunctionBuilder, context: Operand, index: int) -> Operand:
    """The address of one of the 8-byte places of a context."""
    return f.offset(context, constant(I64, index), I64)


def add_even(module: ModuleBuilder, name: str, count: int, scratch: int) -> Operand:
    """Add ``<name>_even(context)``: an equal and contiguous part of the grid for each thread of the team.

    Args:
        module: one with ``<name>_range(context, begin, end)``, which takes the address of scratch, if any, behind that.
        name: of the kernel.
        count: of its arguments.
        scratch: bytes of memory that each thread needs; 0 for none.

    Returns:
        The address of the function.
    """
    f = FunctionBuilder(module, f"{name}_even", {"context": PTR}, "internal")
    context = f.parameters["context"]
    total = f.load(I64, slot(f, context, count + _TOTAL))
    number, team = (f.cast("zext", f.call(s, I32), I64) for s in ("omp_get_thread_num", "omp_get_num_threads"))
    bounds = [number, f.binary("add", number, constant(I64, 1))]
    begin, end = (f.binary("udiv", f.binary("mul", total, bound), team) for bound in bounds)
    run_range(f, name, context, begin, end, scratch)
    f.return_()
    f.finish()
    return Operand(PTR, f"@{f.name}")


def run_range(f: FunctionBuilder, name: str, context: Operand, begin: Operand, end: Operand, scratch: int) -> None:
    """Call ``<name>_range`` with so many bytes of scratch of its own."""
    memory = _allocate(f, scratch)
    f.call_local(f"{name}_range", context, begin, end, *memory)
    _free(f, memory)


def add_dynamic(module: ModuleBuilder, name: str, count: int, scratch: int, work: int) -> Operand:
    """Add ``<name>_dynamic(context)``: contiguous chunks of what is left of the grid, until nothing is.

    Args:
        module: as for `add_even`, and so are the others.
        name: of the kernel.
        count: of its arguments.
        scratch: bytes of memory that each thread needs; 0 for none.
        work: about how many elements one program computes.

    Returns:
        The address of the function.
    """
    f = FunctionBuilder(module, f"{name}_dynamic", {"context": PTR}, "internal")
    context = f.parameters["context"]
    total = f.load(I64, slot(f, context, count + _TOTAL))
    shares = f.binary("mul", f.cast("zext", f.call("omp_get_num_threads", I32), I64), constant(I64, _SHARE))
    least = constant(I64, -(-WORK_PER_CHUNK // max(work, 1)))
    memory = _allocate(f, scratch)
    ask, take, run, leave = (f.label(hint) for hint in ("ask", "take", "run", "leave"))
    f.jump(ask)
    f.place(ask)
    taken = slot(f, context, count + _TAKEN)
    begin = f.emit(I64, f"load atomic i64, {taken.typed} monotonic, align 8")
    f.branch(f.compare("ult", begin, total), take, leave)
    f.place(take)
    left = f.binary("sub", total, begin)
    chunk = f.intrinsic("umin", f.intrinsic("umax", f.binary("udiv", left, shares), least), left)
    end = f.binary("add", begin, chunk)
    # Monotonic is enough: GOMP_parallel orders what threads write before and after it.
    exchange = f"cmpxchg weak {taken.typed}, {begin.typed}, {end.typed} monotonic monotonic, align 8"
    outcome = f.emit(IRType("{ i64, i1 }"), exchange)
    f.branch(f.emit(IRType("i1"), f"extractvalue {outcome.typed}, 1"), run, ask)
    f.place(run)
    f.call_local(f"{name}_range", context, begin, end, *memory)
    f.jump(ask)
    f.place(leave)
    _free(f, memory)
    f.return_()
    f.finish()
    return Operand(PTR, f"@{f.name}")


def prepare_context(f: FunctionBuilder, context: Operand, count: int, total: Operand) -> None:
    """Write what is behind the arguments and the extents: ``total`` programs, none of them taken."""
    f.store(total, slot(f, context, count + _TOTAL))
    f.store(constant(I64, 0), slot(f, context, count + _TAKEN))


def _allocate(f: FunctionBuilder, size: int) -> list[Operand]:
    """The address of so many bytes; none for 0."""
    if not size:
        return []
    address = f.call("aligned_alloc", PTR, constant(I64, ALIGNMENT), constant(I64, size))
    failed, allocated = f.label("failed"), f.label("allocated")
    f.branch(f.compare("eq", address, constant(PTR, 0)), failed, allocated)
    f.place(failed)
    f.call_procedure("abort")
    f.do("unreachable")
    f.place(allocated)
    return [address]


def _free(f: FunctionBuilder, memory: Sequence[Operand]) -> None:
    for address in memory:
        f.call_procedure("free", address)
