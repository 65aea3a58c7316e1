"""What `execution.packed_linear` does, as machine code that torch calls without Python."""

import functools
from collections.abc import Mapping, Sequence

from hf_tle_int8.activations import ALIGNMENT
from hf_tle_int8.backend import torch_abi
from hf_tle_int8.backend.ir import I1, I32, I64, PTR, FunctionBuilder, ModuleBuilder, Operand, constant
from hf_tle_int8.backend.torch_abi import TensorReader
from hf_tle_int8.dispatch import WORK_PER_THREAD, Scheme

# The numbers that `slot` takes for torch's dtypes.
DTYPES = {torch_abi.FLOAT32: 0, torch_abi.FLOAT16: 1, torch_abi.BFLOAT16: 2}
NO_BIAS = len(DTYPES)

_TENSORS = ("x", "panels", "scale", "bias")
_NO_RESULT = "there is no memory for the result"


# What the code is linked with: `slot_count` addresses of kernels, or 0, ``[dtype of x][dtype of the bias, or
# none][tile][gemm, quantize]``; and a function of C that takes the three numbers and an address, fills both slots and
# writes null there; or a message.
SLOTS, PREPARE = "linear_slots", "linear_prepare"


def slot_count(tiles: int) -> int:
    """How many addresses there are."""
    return len(DTYPES) * (len(DTYPES) + 1) * tiles * 2


def slot(dtype: int, bias: int, tile: int, tiles: int) -> int:
    """Of the gemm, by numbers of `DTYPES`, or `NO_BIAS`; the quantizer is behind it."""
    return ((dtype * (len(DTYPES) + 1) + bias) * tiles + tile) * 2


def module(layout: Scheme) -> str:
    """LLVM IR of ``linear`` and ``linear_bias``, implementations of operators; see `torch_abi.add_entry`.

    Their arguments: x ``[..., K]``, panels of ``layout``, scale fp32 ``[N, 1]``, for the second one a bias ``[N]``,
    and K. A result is ``[..., N]`` in the dtype of x. All must be contiguous.

    Args:
        layout: of the target.
    """
    made = ModuleBuilder()
    made.declare_global(SLOTS, PTR)
    _Linear(made, layout).add()
    for name, biased in (("linear", False), ("linear_bias", True)):
        _add_run(made, f"{name}_run", biased)
        torch_abi.add_entry(made, name, f"{name}_run", "tle_int8::packed_linear")
    return str(made)


def _add_run(module: ModuleBuilder, name: str, biased: bool) -> None:
    """``<name>(stack)``: calls ``compute`` with the arguments on the stack, which it gives up afterwards."""
    f = FunctionBuilder(module, name, {"stack": PTR}, "internal", result=PTR)
    stack = f.parameters["stack"]
    count = 4 if biased else 3
    places = [f.offset(stack, constant(I64, index), I64) for index in range(count + 1)]
    handles = [f.load(PTR, place) for place in places[:-1]]
    # Where there is no bias, the scale stands in for it: that has as many elements.
    four = (*handles, handles[2])[:4]
    given = (*four, constant(I1, biased), f.load(I64, places[-1]), stack)
    message = f.emit(PTR, f"call ptr @compute({', '.join(each.typed for each in given)})")
    for handle in handles:
        torch_abi.delete(f, handle)
    f.return_(message)
    f.finish()


class _Linear:
    """Writes ``compute(x, panels, scale, bias, biased, k, result)``: null, with the result written; or a message."""

    def __init__(self, module: ModuleBuilder, layout: Scheme):
        self.module, self.layout = module, layout

    def add(self) -> None:
        parameters = {**dict.fromkeys(_TENSORS, PTR), "biased": I1, "k": I64, "result": PTR}
        f = FunctionBuilder(self.module, "compute", parameters, "internal", result=PTR)
        reader = TensorReader(f)
        sizes, strides = (f.emit(PTR, f"alloca [{torch_abi.MOST_DIMENSIONS} x i64], align 8") for _ in range(2))
        x, n = self._check(f, reader)
        self._describe_result(f, (sizes, strides), x, n)
        m = f.binary("sdiv", x["numel"], f.parameters["k"])
        run, empty = f.label("run"), f.label("empty")
        f.branch(f.compare("eq", m, constant(I64, 0)), empty, run)
        f.place(empty)
        y = reader.new(x["dim"], sizes, strides, x["dtype"])
        self._require(f, [f.compare("ne", y, constant(PTR, 0))], _NO_RESULT)
        f.store(y, f.parameters["result"])
        f.return_(constant(PTR, 0))
        f.place(run)
        self._run(f, reader, x, (m, n, sizes, strides))
        f.finish()

    def _check(self, f: FunctionBuilder, reader: TensorReader) -> tuple[Mapping[str, Operand], Operand]:
        """What is needed to know of x, and N; returns a message from arguments that do not go together."""
        given, k = f.parameters, f.parameters["k"]
        wanted = {"x": ("dim", "sizes", "numel", "dtype"), "panels": ("dim", "sizes", "dtype")}
        known = {
            name: {what: reader.get(what, given[name]) for what in wanted.get(name, ("numel", "dtype"))}
            for name in _TENSORS
        }
        contiguous = [reader.is_contiguous(given[name]) for name in _TENSORS]
        self._require(f, [f.compare("eq", reader.failed, constant(I1, 0))], "a tensor cannot be read")
        self._require(f, contiguous, "a tensor is not contiguous")
        x, panels, scale, bias = known.values()
        some = [f.compare("sgt", each, constant(I64, 0)) for each in (x["dim"], k)]
        some.append(f.compare("sle", x["dim"], constant(I64, torch_abi.MOST_DIMENSIONS)))
        self._require(f, some, "x has no dimensions or more than 64, or in_features is not positive")
        last = f.binary("sub", x["dim"], constant(I64, 1))
        same = f.compare("eq", f.load(I64, f.offset(x["sizes"], last, I64)), k)
        self._require(f, [same], "the last dimension of x is not in_features")
        n = scale["numel"]
        dtypes = (
            f.compare("eq", panels["dtype"], constant(I32, torch_abi.INT8)),
            f.compare("eq", scale["dtype"], constant(I32, torch_abi.FLOAT32)),
            f.compare("eq", bias["numel"], n),
        )
        self._require(f, dtypes, "the weight is not int8, its scale not float32, or the bias not as long as that")
        self._check_panels(f, panels, n)
        return {**x, "bias_dtype": bias["dtype"]}, n

    def _check_panels(self, f: FunctionBuilder, panels: Mapping[str, Operand], n: Operand) -> None:
        packing, k = self.layout.packing, f.parameters["k"]
        message = "the weight is not packed for this CPU and these sizes: call the layer once outside of torch.compile"
        self._require(f, [f.compare("eq", panels["dim"], constant(I64, 4))], message)
        padded = (_padded(f, n, packing.n_multiple, packing.columns), _padded(f, k, packing.k_multiple, packing.group))
        sizes = (*padded, constant(I64, packing.columns), constant(I64, packing.group))
        places = [f.offset(panels["sizes"], constant(I64, index), I64) for index in range(len(sizes))]
        equal = [f.compare("eq", f.load(I64, place), size) for place, size in zip(places, sizes, strict=True)]
        self._require(f, equal, message)

    def _describe_result(
        self, f: FunctionBuilder, places: tuple[Operand, Operand], x: Mapping[str, Operand], n: Operand
    ) -> None:
        """Write sizes and strides of ``[..., N]``, contiguous."""
        one, (sizes, strides) = constant(I64, 1), places
        last = f.binary("sub", x["dim"], one)
        loop = f.counted_loop(constant(I64, 0), x["dim"], one, [one])
        index, (stride,) = f.binary("sub", last, loop.index), loop.carried
        own = f.load(I64, f.offset(x["sizes"], index, I64))
        size = f.select(f.compare("eq", index, last), n, own)
        f.store(size, f.offset(sizes, index, I64))
        f.store(stride, f.offset(strides, index, I64))
        loop.close([f.binary("mul", stride, f.intrinsic("smax", size, one))])

    def _run(
        self, f: FunctionBuilder, reader: TensorReader, x: Mapping[str, Operand], sizes: tuple[Operand, ...]
    ) -> None:
        """Quantize and multiply, then return."""
        m, n, *places = sizes
        given, k = f.parameters, f.parameters["k"]
        tile, (tile_m, tile_n, rows) = self._tile(f, m)
        gemm, quantize = self._kernels(f, x, tile)
        products = f.binary("mul", f.binary("mul", m, n), k)
        enough = f.intrinsic("smax", f.binary("sdiv", products, constant(I64, WORK_PER_THREAD)), constant(I64, 1))
        team = f.intrinsic("smin", f.cast("sext", torch_abi.threads(f), I64), enough)
        data = {name: reader.get("data_ptr", given[name]) for name in _TENSORS}
        there = [f.compare("ne", address, constant(PTR, 0)) for address in data.values()]
        self._require(f, [f.compare("eq", reader.failed, constant(I1, 0)), *there], "a tensor has no memory")
        padded_k = _padded(f, k, self.layout.packing.k_multiple)
        room = f.binary("mul", _parts(f, m, tile_m), tile_m)
        scales = _padded(f, f.binary("mul", room, constant(I64, 4)), ALIGNMENT)
        size = _padded(f, f.binary("add", scales, f.binary("mul", room, padded_k)), ALIGNMENT)
        memory = f.call("aligned_alloc", PTR, constant(I64, ALIGNMENT), size)
        self._require(f, [f.compare("ne", memory, constant(PTR, 0))], "there is no memory for quantized activations")
        codes = f.emit(PTR, f"getelementptr i8, {memory.typed}, {scales.typed}")
        y = reader.new(x["dim"], places[0], places[1], x["dtype"])
        made, failed = f.label("made"), f.label("failed")
        f.branch(f.compare("ne", y, constant(PTR, 0)), made, failed, likely=True)
        f.place(failed)
        f.call_procedure("free", memory)
        f.return_(self.module.add_text(_NO_RESULT))
        f.place(made)
        f.store(y, given["result"])
        one = constant(I64, 1)
        _launch(f, quantize, [data["x"], k, codes, memory], [m, k, padded_k, _parts(f, m, rows), one, one, team])
        bias = f.select(given["biased"], data["bias"], constant(PTR, 0))
        pointers = [codes, memory, data["panels"], data["scale"], bias, reader.get("data_ptr", y)]
        programs = [_parts(f, m, tile_m), _parts(f, n, tile_n), one, team]
        _launch(f, gemm, [*pointers, n], [m, n, padded_k, *programs])
        f.call_procedure("free", memory)
        f.return_(constant(PTR, 0))

    def _tile(self, f: FunctionBuilder, m: Operand) -> tuple[Operand, list[Operand]]:
        """Of the tile for so many rows: its number, and its rows, columns and rows that lie together."""
        tiles = [(number, *tile, self.layout.choice(*tile).rows) for number, tile in enumerate(self.layout.tiles)]
        found = [constant(I64, value) for value in tiles[-1]]
        for tile in reversed(tiles[:-1]):
            serves = f.compare("sle", m, constant(I64, tile[1]))
            found = [f.select(serves, constant(I64, value), other) for value, other in zip(tile, found, strict=True)]
        return found[0], found[1:]

    def _kernels(self, f: FunctionBuilder, x: Mapping[str, Operand], tile: Operand) -> list[Operand]:
        """The addresses of gemm and quantizer, compiled now if they were not yet."""
        dtype = self._number(f, x["dtype"])
        bias = f.select(f.parameters["biased"], self._number(f, x["bias_dtype"]), constant(I64, NO_BIAS))
        tiles = len(self.layout.tiles)
        row = f.binary("add", f.binary("mul", dtype, constant(I64, len(DTYPES) + 1)), bias)
        index = f.binary("add", f.binary("mul", row, constant(I64, tiles)), tile)
        first = f.offset(Operand(PTR, f"@{SLOTS}"), f.binary("mul", index, constant(I64, 2)), I64)
        places = [first, f.offset(first, constant(I64, 1), I64)]
        missing, ready = f.label("missing"), f.label("ready")
        there = [f.compare("ne", f.load(PTR, place), constant(PTR, 0)) for place in places]
        f.branch(f.binary("and", *there), ready, missing, likely=True)
        f.place(missing)
        # Stays there if the function is left in any other way.
        f.store(self.module.add_text("the compilation of a kernel was interrupted"), f.parameters["result"])
        f.call_procedure(PREPARE, dtype, bias, tile, f.parameters["result"])
        message = f.load(PTR, f.parameters["result"])
        failed = f.label("failed")
        f.branch(f.compare("eq", message, constant(PTR, 0)), ready, failed, likely=True)
        f.place(failed)
        f.return_(message)
        f.place(ready)
        return [f.load(PTR, place) for place in places]

    def _number(self, f: FunctionBuilder, dtype: Operand) -> Operand:
        """That of `DTYPES`, of one of torch's; returns a message from another one."""
        found = constant(I64, -1)
        for code, number in DTYPES.items():
            found = f.select(f.compare("eq", dtype, constant(I32, code)), constant(I64, number), found)
        self._require(
            f, [f.compare("sge", found, constant(I64, 0))], "x or the bias is not float32, float16 or bfloat16"
        )
        return found

    def _require(self, f: FunctionBuilder, conditions: Sequence[Operand], message: str) -> None:
        """Go on where all hold, and else return the message."""
        holds, fails = f.label("holds"), f.label("fails")
        f.branch(functools.reduce(lambda a, b: f.binary("and", a, b), conditions), holds, fails, likely=True)
        f.place(fails)
        f.return_(self.module.add_text(message))
        f.place(holds)


def _launch(f: FunctionBuilder, kernel: Operand, arguments: list[Operand], integers: list[Operand]) -> None:
    """Call a kernel by its address; ``integers`` are int32 to it."""
    given = [*arguments, *(f.cast("trunc", each, I32) for each in integers)]
    f.do(f"call void {kernel.text}({', '.join(each.typed for each in given)})")


def _parts(f: FunctionBuilder, value: Operand, divisor: Operand) -> Operand:
    """``ceil(value / divisor)``."""
    return f.binary("sdiv", f.binary("add", value, f.binary("sub", divisor, constant(I64, 1))), divisor)


def _padded(f: FunctionBuilder, value: Operand, multiple: int, unit: int = 1) -> Operand:
    """``value`` rounded up to a multiple, in units."""
    return f.binary("mul", _parts(f, value, constant(I64, multiple)), constant(I64, multiple // unit))
