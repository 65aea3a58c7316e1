"""Linears by kernels that are compiled for one tile, and the data they are tested with.

Where they run is up to who loads them: `kernel_runs.on_host`, also for targets whose instructions the host lacks, or
`kernel_runs.on_arm`.
"""

import dataclasses
import platform
from collections.abc import Callable, Sequence

import numpy as np
import torch
from kernel_runs import Kernel
from tensor_kernels import POISON, KernelCase
from torch import Tensor

from hf_tle_int8.backend import target
from hf_tle_int8.backend.hwcap import cpu_features
from hf_tle_int8.backend.target import Target
from hf_tle_int8.dispatch import QUANTIZED_BLOCK, Choice, choose, constexprs, scheme
from hf_tle_int8.kernels.linear import gemm
from hf_tle_int8.kernels.quantize import quantize

Place = Callable[[str, np.ndarray], np.ndarray]
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

# Rows that `activations` must be asked for to give every kind.
ALL_ROWS = 20

# Elements between the end of a row and the next one.
_GAP = 3


def host_targets() -> list[str]:
    """Targets that differ in int8 and run in this process; x86-64 has functions for the instructions that it lacks."""
    machine = platform.machine()
    names = target.TARGETS if machine == "x86_64" else target.runnable(cpu_features(), machine)
    of_machine = [found for name, found in target.TARGETS.items() if name in names and found.arch == machine]
    kinds = {(t.int8_dot, t.vector_bytes, t.tile_registers): t.name for t in reversed(of_machine)}
    return list(kinds.values())[::-1]


def choices(chosen: Target) -> list[Choice]:
    """Every tile of a target."""
    return [choose(rows, 1, 1, scheme(chosen), 1) for rows, _ in scheme(chosen).tiles]


def kernel_case(kernel: Callable, x: torch.dtype, bias: torch.dtype | None, values: dict[str, object]) -> KernelCase:
    """A kernel of the package for types of ``x`` (and of the result) and of the bias, without data."""
    floats = f"*{TYPES[x]}"
    kinds = dict.fromkeys(("M", "N", "K", "K_PADDED"), "i32") | {"q": "*i8", "w": "*i8", "x": floats, "y": floats}
    kinds |= {"stride": "i64"}
    kinds |= dict.fromkeys(("scale", "scale_x", "scale_w"), "*fp32") | {"bias": f"*{TYPES[bias or x]}"}
    signature = {name: kinds[name] for name in kernel.arg_names if name not in values}
    return KernelCase(kernel, signature, values, (), np.zeros(0))


def quantizer(chosen: Target, dtype: torch.dtype, choice: Choice) -> KernelCase:
    """`quantize` for a tile of one target."""
    values = {"ROWS": choice.rows, "GROUP": scheme(chosen).packing.group, "BLOCK": QUANTIZED_BLOCK}
    return kernel_case(quantize, dtype, None, {**values, "FLIPPED": choice.flipped})


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear by one tile.

    Attributes:
        target: what the kernels are lowered for.
        choice: the tile.
        dtype: of the activations and of the result.
        bias: dtype of the bias, or None.
    """

    target: Target
    choice: Choice
    dtype: torch.dtype
    bias: torch.dtype | None

    @property
    def cases(self) -> list[KernelCase]:
        """The kernels: one that quantizes, one that multiplies."""
        values = {**constexprs(scheme(self.target), self.choice), "HAS_BIAS": self.bias is not None}
        case = kernel_case(gemm, self.dtype, self.bias, values)
        return [quantizer(self.target, self.dtype, self.choice), case]

    def run(
        self, kernels: Sequence[Kernel], x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None,
        place: Place = lambda _, values: values,
    ) -> Tensor:  # fmt: skip
        """The result for ``x [M, K]`` and int8 ``weight [N, K]``.

        Rows lie apart and all room is poisoned; what is not of the result must stay so.

        Args:
            kernels: `cases`, ready to run.
            place: puts the values of an operand, given its name, where the kernels shall find them.
        """
        (m, k), n, packing = x.shape, len(weight), scheme(self.target).packing
        padded, groups = packing.padded(n, k)[1], -(-m // self.choice.rows)
        rows, columns = -(-m // self.choice.tile_m), -(-n // self.choice.tile_n)
        room = self.choice.tile_m * rows
        source, y = (poisoned((m - 1) * (size + _GAP) + size, x.dtype) for size in (k, n))
        source.as_strided((m, k), (k + _GAP, 1))[...] = x
        operands = {
            "x": source, "q": poisoned(room * padded, torch.int8), "scale_x": poisoned(room, torch.float32),
            "w": packing.pack(weight).flatten(), "scale_w": scale, "bias": bias, "y": y,
        }  # fmt: skip
        placed = [0 if values is None else place(name, array(values)) for name, values in operands.items()]
        kernels[0](placed[0], k + _GAP, *placed[1:3], m, k, padded, groups, 1, 1, 1)
        kernels[1](*placed[1:], n + _GAP, m, n, padded, rows, columns, 1, 1)
        y = torch.from_numpy(placed[-1]).view(x.dtype)
        gaps = y.as_strided((m - 1, _GAP), (n + _GAP, 1), n).contiguous()
        assert (gaps.view(torch.uint8) == POISON).all()
        return y.as_strided((m, n), (n + _GAP, 1))


def poisoned(shape: tuple[int, ...] | int, dtype: torch.dtype) -> Tensor:
    """A tensor that nothing has been written to."""
    tensor = torch.empty(shape, dtype=dtype)
    tensor.view(torch.uint8).fill_(POISON)
    return tensor


def array(tensor: Tensor) -> np.ndarray:
    """The memory of a contiguous tensor; numpy has no bf16."""
    assert tensor.is_contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal bits, but for those of NaN."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    nan = expected.isnan()
    assert torch.equal(found.isnan(), nan)
    bits = {4: torch.int32, 2: torch.int16}[found.element_size()]
    different = (found.contiguous().view(bits) != expected.contiguous().view(bits)) & ~nan
    assert not different.any(), f"{int(different.sum())} of {found.numel()} differ, first {different.nonzero()[0]}"


def activations(m: int, k: int, dtype: torch.dtype) -> Tensor:
    """Ordinary rows and, at each second place, those that arithmetic stumbles on; all of these in `ALL_ROWS`."""
    x, limits, at = torch.randn(m, k), torch.finfo(dtype), torch.arange(k)
    kinds = [
        torch.zeros(k),
        torch.where(at % 2 == 0, limits.max, limits.min),
        torch.full((k,), limits.smallest_normal / 2),
        torch.where(at == k - 1, torch.nan, 1.0),
        torch.where(at == k // 2, torch.inf, 1.0),
        torch.where(at == 0, -torch.inf, 1.0),
        torch.where(at == k - 1, 1e4, torch.randn(k)),
        # Halfway between two codes.
        torch.where(at == 0, 127.0, at % 253 / 2 - 63.0),
        torch.where(at % 2 == 0, limits.max, torch.nan),
        torch.full((k,), -1e-8),
    ]
    for row in range(1, m, 2):
        x[row] = kinds[row // 2 % len(kinds)]
    assert len(kinds) * 2 == ALL_ROWS
    return x.to(dtype)


def weights(n: int, k: int) -> tuple[Tensor, Tensor]:
    """int8 ``[n, k]``, the extremes more often than by chance and whole channels of them, and fp32 ``[n]`` scales."""
    weight = torch.randint(-128, 128, (n, k), dtype=torch.int8)
    chance = torch.rand(n, k)
    weight[chance < 0.2], weight[chance > 0.8] = -128, 127
    weight[::7], weight[3::7] = -128, 127
    scale = torch.rand(n) * 0.02 + 1e-4
    scale[5::11], scale[6::11] = torch.finfo(torch.float32).smallest_normal, 1e30
    return weight, scale


def biases(n: int, dtype: torch.dtype | None) -> Tensor | None:
    """Of one dtype, or none."""
    return None if dtype is None else torch.randn(n).mul_(100).to(dtype)
