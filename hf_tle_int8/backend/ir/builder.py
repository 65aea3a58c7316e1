"""Functions and modules of LLVM IR, written instruction by instruction."""

from collections.abc import Callable, Sequence

from hf_tle_int8.backend.ir.frame import SCRATCH, place_buffers
from hf_tle_int8.backend.ir.operands import BFLOAT, I1, I16, PTR, IRType, Operand
from hf_tle_int8.backend.ir.phis import Label, Phi, write_phis


class ModuleBuilder:
    """Collects functions, globals and the declarations that they need."""

    def __init__(self) -> None:
        self._declarations: dict[str, str] = {}
        self._globals: list[str] = []
        self._functions: list[str] = []

    def declare(self, name: str, result: IRType | None, parameters: Sequence[IRType]) -> None:
        """Declare an external function or intrinsic; a second time changes nothing."""
        types = ", ".join(map(str, parameters))
        self._declarations[name] = f"declare {'void' if result is None else result} @{name}({types})"

    def declare_global(self, name: str, kind: IRType) -> None:
        """Declare a variable of this process; a second time changes nothing."""
        self._declarations[name] = f"@{name} = external global {kind}"

    def add_global(self, text: str) -> None:
        """Add a definition of a global, written out."""
        self._globals.append(text)

    def add_table(self, values: Operand) -> Operand:
        """Add a constant vector as memory, and give its address."""
        return self.add_constant(f"{values.typed}, align 64")

    def add_constant(self, text: str) -> Operand:
        """Add a constant, its type and value written out, and give its address."""
        name = f"@constant{len(self._globals)}"
        self.add_global(f"{name} = internal constant {text}")
        return Operand(PTR, name)

    def add_text(self, words: str) -> Operand:
        """Add a constant C string of ASCII, and give its address."""
        escaped = "".join(character if character.isalnum() else f"\\{ord(character):02X}" for character in words)
        return self.add_constant(f'[{len(words) + 1} x i8] c"{escaped}\\00"')

    def likely(self) -> str:
        """The metadata of a branch that nearly always goes to the first of its labels."""
        self._declarations["!0"] = '!0 = !{!"branch_weights", i32 1000, i32 1}'
        return "!0"

    def add_function(self, text: str) -> None:
        """Add a function; `FunctionBuilder.finish` calls this."""
        self._functions.append(text)

    def __str__(self) -> str:
        return "\n".join([*self._globals, *self._declarations.values(), *self._functions])


class FunctionBuilder:
    """One function being written, at a position: the end of the current block.

    Args:
        module: what the function is added to.
        name: of the function.
        parameters: names and types.
        linkage: ``""`` (external) or ``internal``.
        result: what it returns; None for nothing.
        throws: whether exceptions of C++ may leave it.

    Attributes:
        scratch_bytes: once it is finished, how many bytes its last parameter, ``scratch``, must point to, aligned to 64
            bytes; 0 if it has no such parameter.
    """

    def __init__(
        self,
        module: ModuleBuilder,
        name: str,
        parameters: dict[str, IRType],
        linkage: str = "",
        result: IRType | None = None,
        throws: bool = False,
    ):
        self.module = module
        self.name = name
        self.linkage = linkage
        self.result = result
        self._attributes = "#1" if throws else "#0"
        self.parameters = {parameter: Operand(kind, f"%{parameter}") for parameter, kind in parameters.items()}
        self._counter = 0
        self.current = Label("entry")
        self._labels = [self.current]
        self._buffers: list[tuple[Operand, int]] = []
        self.scratch_bytes = 0
        self._phis: list[Phi] = []

    def finish(self) -> None:
        """Close the function and add it to the module."""
        write_phis(self._phis)
        addresses, self.scratch_bytes = place_buffers(self._buffers)
        self._labels[0].lines[:0] = addresses
        if self.scratch_bytes:
            self.parameters["scratch"] = SCRATCH
        signature = ", ".join(operand.typed for operand in self.parameters.values())
        linkage = f"{self.linkage} " if self.linkage else ""
        body = "\n".join("\n".join([f"{label.name}:", *label.lines]) for label in self._labels)
        result = "void" if self.result is None else str(self.result)
        self.module.add_function(
            f"define {linkage}{result} @{self.name}({signature}) {self._attributes} {{\n{body}\n}}"
        )

    # Positions

    def label(self, hint: str) -> Label:
        """A new block, not yet placed; its name begins with ``hint``."""
        self._counter += 1
        return Label(f"{hint}{self._counter}")

    def place(self, label: Label) -> None:
        """Place a block after the others and continue there."""
        self._labels.append(label)
        self.current = label

    def do(self, line: str) -> None:
        """Write an instruction without a result."""
        self.current.lines.append(f"  {line}")

    def emit(self, kind: IRType, instruction: str) -> Operand:
        """Write an instruction with a result of type ``kind``."""
        self._counter += 1
        result = Operand(kind, f"%v{self._counter}")
        self.do(f"{result.text} = {instruction}")
        return result

    # Arithmetic; operands of one instruction have the same type

    def binary(self, op: str, a: Operand, b: Operand) -> Operand:
        """``add``, ``fmul``, ``shl``, …; flags may follow the name: ``add nsw``."""
        return self.emit(a.type, f"{op} {a.typed}, {b.text}")

    def compare(self, predicate: str, a: Operand, b: Operand) -> Operand:
        """``slt``, ``ult``, ``oeq``, ``uno``, …: integers and pointers by icmp, floats by fcmp."""
        op = "fcmp" if a.type.is_float else "icmp"
        return self.emit(a.type.of(I1), f"{op} {predicate} {a.typed}, {b.text}")

    def select(self, condition: Operand, a: Operand, b: Operand) -> Operand:
        """``condition ? a : b``, lane by lane where the condition is a vector."""
        if a.type.base == "bfloat":
            return self._as_integers(lambda x, y: self.select(condition, x, y), a, b)
        return self.emit(a.type, f"select {condition.typed}, {a.typed}, {b.typed}")

    def cast(self, op: str, a: Operand, base: IRType) -> Operand:
        """``sext``, ``fptrunc``, ``bitcast``, … to elements of type ``base``, with as many lanes."""
        kind = a.type.of(base)
        return a if kind == a.type else self.emit(kind, f"{op} {a.typed} to {kind}")

    def reinterpret(self, a: Operand, kind: IRType) -> Operand:
        """The same bits as any type of as many."""
        return a if kind == a.type else self.emit(kind, f"bitcast {a.typed} to {kind}")

    def negate(self, a: Operand) -> Operand:
        """The float with the other sign."""
        return self.emit(a.type, f"fneg {a.typed}")

    def call(self, name: str, result: IRType, *arguments: Operand) -> Operand:
        """Call a function of another module, or an intrinsic, by its full name; it is declared as needed."""
        self.module.declare(name, result, [argument.type for argument in arguments])
        return self.emit(result, f"call {result} @{name}({_listed(arguments)})")

    def call_procedure(self, name: str, *arguments: Operand) -> None:
        """Call a function of another module that returns nothing; it is declared as needed."""
        self.module.declare(name, None, [argument.type for argument in arguments])
        self.call_local(name, *arguments)

    def call_local(self, name: str, *arguments: Operand) -> None:
        """Call a function of this module that returns nothing."""
        self.do(f"call void @{name}({_listed(arguments)})")

    def intrinsic(self, name: str, *arguments: Operand) -> Operand:
        """Call ``llvm.name``, overloaded on the type of its first argument, which its result has too."""
        kind = arguments[0].type
        return self.call(f"llvm.{name}.{kind.mangled}", kind, *arguments)

    # Vectors

    def splat(self, a: Operand, lanes: int) -> Operand:
        """A vector whose every lane is the scalar ``a``."""
        kind = a.type.vector(lanes)
        if a.is_literal and not a.text.startswith("@"):
            return Operand(kind, f"splat ({a.typed})")
        if kind.base == "bfloat":
            return self._as_integers(lambda x: self.splat(x, lanes), a)
        first = self.insert(Operand(kind, "poison"), a, 0)
        return self.shuffle(first, None, [0] * lanes)

    def shuffle(self, a: Operand, b: Operand | None, lanes: Sequence[int]) -> Operand:
        """The lanes of ``a`` and then ``b`` by number; -1 is any value."""
        if a.type.base == "bfloat":
            parts = [a] if b is None else [a, b]
            return self._as_integers(lambda x, y=None: self.shuffle(x, y, lanes), *parts)
        mask = ", ".join("i32 poison" if lane < 0 else f"i32 {lane}" for lane in lanes)
        second = f"{a.type} poison" if b is None else b.typed
        return self.emit(a.type.vector(len(lanes)), f"shufflevector {a.typed}, {second}, <{len(lanes)} x i32> <{mask}>")

    def extract(self, a: Operand, lane: int) -> Operand:
        """One lane of a vector."""
        if a.type.base == "bfloat":
            return self._as_integers(lambda x: self.extract(x, lane), a)
        return self.emit(a.type.scalar, f"extractelement {a.typed}, i64 {lane}")

    def insert(self, vector: Operand, a: Operand, lane: int) -> Operand:
        """A vector with ``a`` as one of its lanes."""
        if a.type.base == "bfloat":
            return self._as_integers(lambda x, y: self.insert(x, y, lane), vector, a)
        return self.emit(vector.type, f"insertelement {vector.typed}, {a.typed}, i64 {lane}")

    def _as_integers(self, emit: Callable[..., Operand], *operands: Operand) -> Operand:
        """An operation that only moves bf16, on its bits: no bf16 may be left that one block hands to another.

        Where CPUs lack it, LLVM hands over every lane as an fp32 and calls a function of its runtime library to narrow
        it again.
        """
        result = emit(*(self.reinterpret(operand, operand.type.of(I16)) for operand in operands))
        return self.reinterpret(result, result.type.of(BFLOAT))

    # Memory

    def offset(self, pointer: Operand, count: Operand, element: IRType) -> Operand:
        """The address ``count`` elements behind ``pointer``; a vector of them where one of the two is a vector."""
        base = "i8" if element.bits == 1 else element.base
        lanes = max(pointer.type.lanes, count.type.lanes)
        return self.emit(PTR.vector(lanes), f"getelementptr {base}, {pointer.typed}, {count.typed}")

    def load(self, kind: IRType, pointer: Operand) -> Operand:
        """Load, aligned to an element."""
        return self.emit(kind, f"load {kind}, {pointer.typed}, align {max(kind.bits, 8) // 8}")

    def store(self, value: Operand, pointer: Operand) -> None:
        """Store, aligned to an element."""
        self.do(f"store {value.typed}, {pointer.typed}, align {max(value.type.bits, 8) // 8}")

    def allocate(self, element: IRType, count: int) -> Operand:
        """Memory of this call's own, for ``count`` elements, aligned to 64 bytes; see `frame`."""
        self._counter += 1
        result = Operand(PTR, f"%v{self._counter}")
        self._buffers.append((result, count * max(element.bits, 8) // 8))
        return result

    # Control flow

    def jump(self, target: Label) -> None:
        """Go to ``target``."""
        self.do(f"br label %{target.name}")

    def branch(self, condition: Operand, yes: Label, no: Label, likely: bool = False) -> None:
        """Go to ``yes``, which may be said to be the likely way, or to ``no``."""
        weights = f", !prof {self.module.likely()}" if likely else ""
        self.do(f"br {condition.typed}, label %{yes.name}, label %{no.name}{weights}")

    def phi(self, kind: IRType) -> Operand:
        """A value that depends on where the current block was entered from; see `add_incoming`."""
        self._counter += 1
        result = Operand(kind, f"%v{self._counter}")
        self._phis.append(Phi(self.current, len(self.current.lines), result))
        self.do("phi")
        return result

    def add_incoming(self, phi: Operand, value: Operand, source: Label) -> None:
        """Say which value ``phi`` has when its block is entered from the end of ``source``."""
        next(entry for entry in self._phis if entry.result is phi).incoming.append((value, source))

    def return_(self, value: Operand | None = None) -> None:
        """Leave the function, with a value where it returns one."""
        self.do("ret void" if value is None else f"ret {value.typed}")

    def counted_loop(
        self,
        start: Operand,
        stop: Operand,
        step: Operand,
        carried: Sequence[Operand] = (),
        unsigned: bool = False,
    ) -> "CountedLoop":
        """A ``for`` loop over ``[start, stop)``, entered; call `CountedLoop.close` at the end of its body.

        ``carried`` are initial values of what one iteration hands on to the next.
        """
        return CountedLoop(self, start, stop, step, carried, unsigned)


class CountedLoop:
    """``for (index = start; index < stop; index += step)``; the body may have more blocks.

    Attributes:
        index: of the iteration.
        carried: in the body, what the iteration before has handed on; behind the loop, what the last one has.
    """

    def __init__(
        self,
        function: FunctionBuilder,
        start: Operand,
        stop: Operand,
        step: Operand,
        carried: Sequence[Operand] = (),
        unsigned: bool = False,
    ):
        self._function = function
        self._step = step
        self._header, body = function.label("header"), function.label("body")
        self._exit = function.label("exit")
        before = function.current
        function.jump(self._header)
        function.place(self._header)
        self.index = function.phi(start.type)
        function.add_incoming(self.index, start, before)
        self.carried = [function.phi(initial.type) for initial in carried]
        for phi, initial in zip(self.carried, carried, strict=True):
            function.add_incoming(phi, initial, before)
        function.branch(function.compare("ult" if unsigned else "slt", self.index, stop), body, self._exit)
        function.place(body)

    def close(self, following: Sequence[Operand] = ()) -> None:
        """End the body, hand ``following`` on to the next iteration, and continue behind the loop."""
        function = self._function
        next_index = function.binary("add", self.index, self._step)
        function.add_incoming(self.index, next_index, function.current)
        for phi, value in zip(self.carried, following, strict=True):
            function.add_incoming(phi, value, function.current)
        function.jump(self._header)
        function.place(self._exit)


def _listed(arguments: Sequence[Operand]) -> str:
    return ", ".join(argument.typed for argument in arguments)
