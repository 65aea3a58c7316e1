"""What is known of each layer of a model that multiplies by a matrix, as data and as a table."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_tle_int8 import execution, native
from hf_tle_int8.dispatch import choose
from hf_tle_int8.matching import without_numbers
from hf_tle_int8.report import what_calls_linears, what_runs_linears

INT8, CONVERTIBLE, FLOAT = "int8", "convertible", "float"


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name: as in ``model.named_modules()``.
        kind: its class.
        shape: ``[N, K]``; of experts, ``[E, N, K]`` of the first product; of another layer, the shape of its largest
            tensor.
        state: ``int8``; ``convertible``: in float, and ``TLEInt8Config()`` would convert it; or ``float``.
        dtype: of its weight.
        decode: the kernel and its tile (rows x columns) for one row, or ``plain torch``.
        prefill: the same for many rows, see `LayerTable.prefill_rows`.
        held_bytes: of its weight as it is now, in memory or on disk; of a layer that is no linear, of all its tensors.
        row_major_bytes: of its weight as int8 without padding, N * K; None where it stays in float.
        packed_bytes: of its weight as panels for the kernels of this machine; None too where none can run.
        saved: names of the tensors that a checkpoint has of it -> dtype and shape; classes that rename or fuse tensors
            while loading, such as Llava and mixtures of experts, have other names in their files.
        reason: why it is not INT8; empty where it is.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    state: str
    dtype: str
    decode: str
    prefill: str
    held_bytes: int
    saved: dict[str, str]
    row_major_bytes: int | None = None
    packed_bytes: int | None = None
    reason: str = ""

    @property
    def padding_bytes(self) -> int:
        """Of its panels: what they take beyond `row_major_bytes`."""
        return 0 if self.packed_bytes is None else self.packed_bytes - (self.row_major_bytes or 0)


def kernel_of(m: int, n: int, k: int) -> str:
    """The kernel for ``[m, k]`` by ``[n, k]`` on this machine with its tile, rows x columns; or ``plain torch``."""
    if execution.unavailable() is not None:
        return "plain torch"
    choice = choose(m, n, k, execution.layout(), torch.get_num_threads())
    return f"gemm {choice.tile_m}x{choice.tile_n}"


def packed_bytes_of(n: int, k: int) -> int | None:
    """Bytes of an int8 weight ``[n, k]`` as panels for this machine; None where no kernel can run."""
    if execution.unavailable() is not None:
        return None
    padded_n, padded_k = execution.layout().packing.padded(n, k)
    return padded_n * padded_k


@dataclass(frozen=True)
class LayerTable:
    """The layers of a model; ``print`` shows a table in which layers that differ in a number only share a line.

    Attributes:
        rows: one for each layer.
        prefill_rows: M of the column for many rows.
        total_bytes: of all tensors of the model or checkpoint.
        notes: what else there is to know.
    """

    rows: tuple[LayerRow, ...]
    prefill_rows: int
    total_bytes: int
    notes: tuple[str, ...] = ()

    def totals(self) -> dict[str, Any]:
        """Counts of layers by state, and bytes."""
        int8 = [row for row in self.rows if row.state == INT8]
        states = Counter(row.state for row in self.rows)
        return {
            **{f"{state}_layers": states[state] for state in (INT8, CONVERTIBLE, FLOAT)},
            "int8_weight_bytes": sum(row.held_bytes for row in int8),
            "padding_bytes": sum(row.padding_bytes for row in int8),
            "other_layer_bytes": sum(row.held_bytes for row in self.rows if row.state != INT8),
            "total_bytes": self.total_bytes,
        }

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        rows = [
            {**dataclasses.asdict(row), "shape": list(row.shape), "padding_bytes": row.padding_bytes}
            for row in self.rows
        ]
        return {
            "runs_on": what_runs_linears(),
            "called": what_calls_linears(),
            "target": None if execution.unavailable() else execution.target().name,
            "threads": torch.get_num_threads(),
            "prefill_rows": self.prefill_rows,
            "totals": self.totals(),
            "notes": list(self.notes),
            "layers": rows,
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        facts = self.to_dict()
        threads = f"{facts['threads']} thread{'s' * (facts['threads'] != 1)}"
        target = f" ({facts['target']}, {threads})" if facts["target"] else ""
        title = ("layer", "", "N x K", "weights", "M=1", f"M={self.prefill_rows}", "bytes", "packed", "padding", "")
        cells = Counter(map(_cells, self.rows))
        lines = [title, *((name, f"{count} x", *rest) for (name, *rest), count in cells.items())]
        totals = facts["totals"]
        sums = (
            f"{totals['int8_layers']} layers in INT8 ({totals['int8_weight_bytes']:,} bytes), "
            f"{totals['convertible_layers']} that TLEInt8Config() would convert, {totals['float_layers']} in floating "
            f"point; {totals['total_bytes']:,} bytes in all."
        )
        slowly = native.unavailable() is not None and execution.unavailable() is None
        called = [f"INT8 linears are called {facts['called']}"] * slowly
        return "\n".join(
            [f"INT8 linears run on {facts['runs_on']}{target}.", *called, *self.notes, "", *_aligned(lines), "", sums]
        )


def _cells(row: LayerRow) -> tuple[str, ...]:
    weights = f"{row.dtype} -> int8" if row.state == CONVERTIBLE else row.dtype
    packed = "" if row.packed_bytes is None else f"{row.packed_bytes:,}"
    sizes = f"{row.held_bytes:,}", packed, f"{row.padding_bytes:,}" if packed else ""
    shape = " x ".join(map(str, row.shape))
    return without_numbers(row.name) or "(itself)", shape, weights, row.decode, row.prefill, *sizes, row.reason


# Columns of the table that are aligned to the right.
_NUMBERS = (1, 6, 7, 8)


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(_justified, line, widths, range(len(line)))).rstrip() for line in lines]


def _justified(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
