"""Entry points around the program of a kernel: the grid, the threads, and a call from Python without overhead.

A kernel is a function ``program(arguments…, px, py, pz, gx, gy, gz)`` that computes one program of the grid. Around it:

- ``<name>_launch(arguments…, gx, gy, gz, threads)`` runs the whole grid, for callers that know C's calling convention,
  and divides it evenly;
- ``<name>_launch_dynamic`` is the same with the dynamic schedule of `workers`;
- ``<name>_python`` is both as a method of CPython (``METH_FASTCALL``), which releases the GIL while it runs.
"""

from hf_tle_int8.backend import workers
from hf_tle_int8.backend.casts import convert_float
from hf_tle_int8.backend.ir import I8, I32, I64, PTR, FunctionBuilder, IRType, Label, ModuleBuilder, Operand, constant
from hf_tle_int8.backend.workers import slot

# Elements of work that are worth a thread: waking one takes about as long as computing this many.
WORK_PER_THREAD = 16384

_GRID = ("gx", "gy", "gz")


def add_launch(
    module: ModuleBuilder, name: str, program: str, parameters: dict[str, IRType], work: int, scratch: int = 0
) -> None:
    """Add ``<name>_launch`` and ``<name>_launch_dynamic`` to the module that holds the program of a kernel.

    Args:
        module: the module.
        name: of the kernel.
        program: name of the function that computes one program.
        parameters: names and types of its arguments before the six integers of the grid.
        work: about how many elements one program computes; little work is not spread over threads.
        scratch: bytes of memory whose address the program takes behind all else; 0 if it takes none. Each thread has
            its own for all of its programs. A process that has not as much memory is aborted.
    """
    _add_range(module, name, program, parameters, bool(scratch))
    even = workers.add_even(module, name, len(parameters), scratch)
    dynamic = workers.add_dynamic(module, name, len(parameters), scratch, work)
    _add_whole_grid(module, name, parameters, work, scratch)
    for suffix, worker in (("launch", even), ("launch_dynamic", dynamic)):
        f = FunctionBuilder(module, f"{name}_{suffix}", {**parameters, **dict.fromkeys((*_GRID, "threads"), I32)})
        f.call_local(f"{name}_grid", *f.parameters.values(), worker)
        f.return_()
        f.finish()


def _add_range(module: ModuleBuilder, name: str, program: str, parameters: dict[str, IRType], scratch: bool) -> None:
    """``<name>_range(context, begin, end)``: the programs of linear numbers ``[begin, end)``, one after another.

    ``scratch``: it takes the address of the program's scratch behind that.
    """
    own = {"context": PTR, "begin": I64, "end": I64, **({"memory": PTR} if scratch else {})}
    f = FunctionBuilder(module, f"{name}_range", own, "internal")
    context, begin, end, *memory = f.parameters.values()
    count = len(parameters)
    arguments = [f.load(kind, slot(f, context, index)) for index, kind in enumerate(parameters.values())]
    grid = [f.load(I32, slot(f, context, count + axis)) for axis in range(3)]
    wide = [f.cast("zext", extent, I64) for extent in grid[:2]]
    plane = f.binary("udiv", begin, wide[0])
    start = [f.binary("urem", begin, wide[0]), f.binary("urem", plane, wide[1]), f.binary("udiv", plane, wide[1])]
    positions = [f.cast("trunc", position, I32) for position in start]
    before, header, body, leave = f.current, f.label("header"), f.label("body"), f.label("leave")
    f.jump(header)
    f.place(header)
    index, px, py, pz = (f.phi(kind) for kind in (I64, I32, I32, I32))
    for phi, value in zip((index, px, py, pz), (begin, *positions), strict=True):
        f.add_incoming(phi, value, before)
    f.branch(f.compare("slt", index, end), body, leave)
    f.place(body)
    f.call_local(program, *arguments, px, py, pz, *grid, *memory)
    following = _next_position(f, (px, py, pz), grid)
    for phi, value in zip((index, px, py, pz), (f.binary("add", index, constant(I64, 1)), *following), strict=True):
        f.add_incoming(phi, value, f.current)
    f.jump(header)
    f.place(leave)
    f.return_()
    f.finish()


def _next_position(f: FunctionBuilder, position: tuple[Operand, ...], grid: list[Operand]) -> list[Operand]:
    """The program after ``position``, x fastest."""
    one, zero = constant(I32, 1), constant(I32, 0)
    x, y, z = position
    x_next = f.binary("add", x, one)
    x_wraps = f.compare("eq", x_next, grid[0])
    y_next = f.select(x_wraps, f.binary("add", y, one), y)
    y_wraps = f.compare("eq", y_next, grid[1])
    z_next = f.select(y_wraps, f.binary("add", z, one), z)
    return [f.select(x_wraps, zero, x_next), f.select(y_wraps, zero, y_next), z_next]


def _add_whole_grid(module: ModuleBuilder, name: str, parameters: dict[str, IRType], work: int, scratch: int) -> None:
    """``<name>_grid(arguments…, gx, gy, gz, threads, worker)``: on this thread, or on a team that runs ``worker``."""
    own = {**parameters, **dict.fromkeys((*_GRID, "threads"), I32), "worker": PTR}
    f = FunctionBuilder(module, f"{name}_grid", own, "internal")
    *values, threads, worker = f.parameters.values()
    grid = values[-3:]
    context = f.emit(PTR, f"alloca [{len(parameters) + workers.SLOTS} x i64], align 8")
    for index, value in enumerate(values):
        f.store(value, slot(f, context, index))
    # A negative extent is an empty grid, as is zero.
    extents = [f.cast("zext", f.intrinsic("smax", extent, constant(I32, 0)), I64) for extent in grid]
    total = f.binary("mul", f.binary("mul", extents[0], extents[1]), extents[2])
    workers.prepare_context(f, context, len(parameters), total)
    enough = f.binary("udiv", f.binary("mul", total, constant(I64, max(work, 1))), constant(I64, WORK_PER_THREAD))
    team = f.intrinsic("umin", f.intrinsic("umin", f.cast("zext", threads, I64), total), enough)
    one, several, leave = f.label("one"), f.label("several"), f.label("leave")
    _branch_on_team(f, total, team, (one, several, leave))
    f.place(one)
    workers.run_range(f, name, context, constant(I64, 0), total, scratch)
    f.jump(leave)
    f.place(several)
    f.call_procedure("GOMP_parallel", worker, context, f.cast("trunc", team, I32), constant(I32, 0))
    f.jump(leave)
    f.place(leave)
    f.return_()
    f.finish()


def _branch_on_team(f: FunctionBuilder, total: Operand, team: Operand, labels: tuple[Label, Label, Label]) -> None:
    one, several, leave = labels
    some = f.label("some")
    f.branch(f.compare("eq", total, constant(I64, 0)), leave, some)
    f.place(some)
    f.branch(f.compare("ule", team, constant(I64, 1)), one, several)


def add_python_entry(module: ModuleBuilder, name: str, parameters: dict[str, IRType]) -> None:
    """Add ``<name>_python(self, args, nargs)``, which takes Python ints (addresses for pointers) and floats.

    Its schedule is even where ``self`` is NULL, and else dynamic: two methods can be made of one compiled kernel.

    Args:
        module: one that `add_launch` has completed.
        name: of the kernel.
        parameters: names and types of its arguments.
    """
    f = FunctionBuilder(module, f"{name}_python", {"self": PTR, "args": PTR, "nargs": I64}, result=PTR)
    null = constant(PTR, 0)
    kinds = [*parameters.values(), I32, I32, I32, I32]
    parse, run, refuse, fail = (f.label(hint) for hint in ("parse", "run", "refuse", "fail"))
    f.branch(f.compare("eq", f.parameters["nargs"], constant(I64, len(kinds))), parse, refuse)
    f.place(parse)
    values = [_from_python(f, f.load(PTR, slot(f, f.parameters["args"], i)), kind) for i, kind in enumerate(kinds)]
    f.branch(f.compare("eq", f.call("PyErr_Occurred", PTR), null), run, fail)
    f.place(run)
    state = f.call("PyEval_SaveThread", PTR)
    even = f.compare("eq", f.parameters["self"], null)
    worker = f.select(even, Operand(PTR, f"@{name}_even"), Operand(PTR, f"@{name}_dynamic"))
    f.call_local(f"{name}_grid", *values, worker)
    f.call_procedure("PyEval_RestoreThread", state)
    none = Operand(PTR, "@_Py_NoneStruct")
    f.call_procedure("Py_IncRef", none)
    f.return_(none)
    f.place(refuse)
    message = f"{name} takes {len(kinds)} arguments: its own, the grid (x, y, z) and the number of threads"
    module.declare_global("_Py_NoneStruct", I8)
    module.declare_global("PyExc_TypeError", PTR)
    error = f.load(PTR, Operand(PTR, "@PyExc_TypeError"))
    f.call_procedure("PyErr_SetString", error, module.add_text(message))
    f.jump(fail)
    f.place(fail)
    f.return_(null)
    f.finish()


def _from_python(f: FunctionBuilder, value: Operand, kind: IRType) -> Operand:
    """A Python object as ``kind``; an error is left in the interpreter. Integers wrap to their width."""
    if kind.base == "ptr":
        return f.call("PyLong_AsVoidPtr", PTR, value)
    if kind.is_float:
        double = f.call("PyFloat_AsDouble", IRType("double"), value)
        # Not fptrunc: for 16 bits LLVM calls a function of its runtime library, which no process has.
        return convert_float(f, double, kind)
    number = f.call("PyLong_AsLongLong", I64, value)
    return number if kind == I64 else f.cast("trunc", number, kind)
