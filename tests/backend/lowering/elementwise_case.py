"""One elementwise operation of TTIR, applied to many values and compared with a reference."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jit_support import add_elementwise

from hf_tle_int8.backend.ir import I1, I8, FunctionBuilder, ModuleBuilder, Operand
from hf_tle_int8.backend.lowering import ir_type, lower_elementwise
from hf_tle_int8.backend.ttir import Operation, parse

COUNT = 512
LANES = 8

TORCH = {
    "i1": torch.bool, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
    "index": torch.int64, "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64,
}  # fmt: skip


def operation(name: str, inputs: tuple[str, ...], output: str, attributes: str = "") -> Operation:
    """An operation of TTIR on arguments of a function."""
    arguments = ", ".join(f"%a{i}: {kind}" for i, kind in enumerate(inputs))
    names = ", ".join(f"%a{i}" for i in range(len(inputs)))
    types = ", ".join(inputs)
    text = f"""
"builtin.module"() ({{
  "tt.func"() <{{function_type = ({types}) -> (), sym_name = "f", sym_visibility = "public"}}> ({{
  ^bb0({arguments}):
    %r = "{name}"({names}) {attributes} : ({types}) -> {output}
    "tt.return"() : () -> ()
  }}) : () -> ()
}}) : () -> ()"""
    return parse(text).kernel.regions[0].entry.operations[0]


def samples(kind: str, seed: int) -> torch.Tensor:
    """COUNT values of a type: special ones, then random ones over its whole range."""
    generator = torch.Generator().manual_seed(seed)
    dtype = TORCH[kind]
    if kind == "i1":
        return torch.randint(0, 2, (COUNT,), generator=generator).bool()
    if kind[0] == "i":
        info = torch.iinfo(dtype)
        special = torch.tensor([0, 1, -1, 2, 7, -7, info.min, info.max, info.min + 1, 31, 32, 33, 63, 64], dtype=dtype)
        bits = torch.randint(-(2**63), 2**63 - 1, (COUNT,), generator=generator)
        values = (bits >> torch.randint(0, 60, (COUNT,), generator=generator)).to(dtype)
    else:
        info = torch.finfo(dtype)
        limits = [info.max, -info.max, info.tiny, -info.tiny, info.tiny / 4, info.smallest_normal, info.eps]
        special = torch.tensor(
            [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, float("inf"), float("-inf"), float("nan"), *limits]
        )
        special = special.to(dtype)
        exponents = torch.randint(-12, 12, (COUNT,), generator=generator)
        values = torch.ldexp(torch.randn(COUNT, generator=generator, dtype=torch.float64), exponents).to(dtype)
    values[: len(special)] = special.roll(seed)
    return values


@dataclass(frozen=True)
class Case:
    """An operation, what torch makes of the same operands, and which elements have a defined answer."""

    name: str
    inputs: tuple[str, ...]
    output: str
    reference: Callable[..., torch.Tensor]
    attributes: str = ""
    defined: Callable[..., torch.Tensor] | None = None
    draw: Callable[[str, int], torch.Tensor] = field(default=samples)
    max_ulp: float = 0.0

    @property
    def id(self) -> str:
        """What pytest shows."""
        return f"{self.name}-{'-'.join(self.inputs)}-{self.output}{self.attributes}".replace(" ", "")

    def add_to(self, module: ModuleBuilder, name: str) -> None:
        """Add a function ``name(inputs…, output)`` over COUNT elements; booleans are bytes in memory."""
        found = operation(self.name, self.inputs, self.output, self.attributes)
        kinds = [ir_type(operand.type) for operand in found.operands]

        def emit(f: FunctionBuilder, *values: Operand) -> Operand:
            values = [f.cast("trunc", v, I1) if k == I1 else v for v, k in zip(values, kinds, strict=True)]
            result = lower_elementwise(f, found, values)
            return f.cast("zext", result, I8) if result.type.scalar == I1 else result

        memory = [I8 if kind == I1 else kind for kind in kinds]
        result = ir_type(found.result.type)
        add_elementwise(module, name, memory, I8 if result == I1 else result, COUNT, LANES, emit)

    def ir(self) -> str:
        """A module with the one function ``f``."""
        module = ModuleBuilder()
        self.add_to(module, "f")
        return str(module)

    def operands(self) -> list[torch.Tensor]:
        """The values that the operation is applied to."""
        return [self.draw(kind, seed) for seed, kind in enumerate(self.inputs)]

    def check(self, call: Callable[..., None]) -> None:
        """Run ``call(*input arrays, output array)`` and compare with the reference.

        Bit for bit but for the payload of NaN; or within ``max_ulp`` of a reference in fp64.
        """
        operands = self.operands()
        output = torch.full((COUNT,), 55).to(TORCH[self.output])
        arrays = [as_numpy(tensor.clone()) for tensor in operands]
        result = as_numpy(output)
        call(*arrays, result)
        actual = torch.from_numpy(result).view(TORCH[self.output])
        expected = self.reference(*operands)
        right = same(actual, expected) if not self.max_ulp else within(actual, expected, self.max_ulp)
        defined = torch.ones(COUNT, dtype=torch.bool) if self.defined is None else self.defined(*operands)
        assert defined.sum() > COUNT / 4
        assert right[defined].all(), self._difference(operands, actual, expected, ~right & defined)

    def _difference(self, operands, actual, expected, wrong) -> str:
        index = int(torch.nonzero(wrong)[0])
        return f"{[tensor[index].item() for tensor in operands]}: {actual[index].item()}, not {expected[index].item()}"


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def within(actual: torch.Tensor, exact: torch.Tensor, ulp: float) -> torch.Tensor:
    """Which fp32 elements are within ``ulp`` units in the last place of exact fp64 results."""
    unit = torch.exp2((torch.frexp(exact).exponent - 24).clamp(min=-149).double())
    rounded = exact.float()
    finite = (actual.double() - exact).abs() <= ulp * unit
    return same(actual, rounded) | (rounded.isfinite() & finite)


def same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Which elements are equal, signs of zeros included; NaN equals NaN."""
    assert a.dtype == b.dtype
    if not a.is_floating_point():
        return a == b
    return (a.isnan() & b.isnan()) | ((a == b) & (a.signbit() == b.signbit()))
