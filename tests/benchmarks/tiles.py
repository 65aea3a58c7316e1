"""Every tile that the kernels of INT8 linears take: measured on this CPU, or modelled for CPUs of another target.

python tests/benchmarks/tiles.py [--rows 1 2 4 8 32 128] [--shapes 2048x2048 8960x1536]
python tests/benchmarks/tiles.py --modelled neon-i8mm

The tiles of `hf_tle_int8.dispatch.SCHEMES` rest on this. Measured: one thread, all tiles of a shape in turn, round by
round, the least time of each relative to that of the tile in use. Modelled: multiplies per cycle by llvm-mca, as in
`machine_model.py`.
"""

import argparse
import itertools
from collections.abc import Callable

import torch

from hf_tle_int8 import execution
from hf_tle_int8.activations import quantize
from hf_tle_int8.backend.dot.plan import plan
from hf_tle_int8.backend.ir import I8
from hf_tle_int8.backend.target import TARGETS, Target
from hf_tle_int8.bench.timing import interleaved
from hf_tle_int8.dispatch import MOST_ROWS, Choice, choose, scheme


def tiles(target: Target) -> list[Choice]:
    """All that the packing of a target allows and whose accumulators are registers, by rows and columns."""
    layout = scheme(target)
    rows = [m for m in (1, 2, 4, 8, 16, MOST_ROWS) if m > 1 or not layout.interleaved]
    columns = [n for n in (8, 16, 32, 64) if layout.packing.n_multiple % n == 0 == n % layout.packing.columns]
    return [tile for tile in itertools.starmap(layout.choice, itertools.product(rows, columns)) if fits(target, tile)]


def fits(target: Target, tile: Choice) -> bool:
    """Whether the accumulators of a tile are registers."""
    k = tile.steps * scheme(target).packing.group
    return plan(target, I8, (tile.tile_m, k), (k, tile.tile_n), without_least=True).in_registers


def linear(choice: Choice, m: int, n: int, k: int) -> Callable[[], None]:
    """A linear of bf16 by one tile, with what it needs: quantization included."""
    packing = execution.layout().packing
    panels = packing.pack(torch.randint(-127, 128, (n, k), dtype=torch.int8))
    padded = panels.shape[1] * packing.group
    x, y, scale = torch.randn(m, k).bfloat16(), torch.empty((m, n), dtype=torch.bfloat16), torch.rand(n, 1)
    how = quantize(execution._quantizer(x.dtype, choice.rows, choice.flipped).call, m, k, padded, choice)
    scratch = torch.empty(how.size, dtype=torch.int8)
    call = execution._gemm((choice.tile_m, choice.tile_n), "bf16", None).call
    programs = -(-m // choice.tile_m), -(-n // choice.tile_n)

    def run() -> None:
        q = scratch.data_ptr()
        how.run(x, q)
        call(q + how.scales, q, panels.data_ptr(), scale.data_ptr(), 0, y.data_ptr(), n, m, n, padded, *programs, 1, 1)

    return run


def measure(rows: list[int], shapes: list[tuple[int, int]], rounds: int) -> None:
    """Print a table of times relative to the tile that is chosen."""
    torch.set_num_threads(1)
    layout = execution.layout()
    every = tiles(execution.target())
    print(f"{execution.target().name}: time / time of the tile that is chosen (*)\n")
    print("| M | N x K |", " | ".join(f"{tile.tile_m}x{tile.tile_n}" for tile in every), "|")
    print("|---|---|" + "---|" * len(every))
    for m, (n, k) in itertools.product(rows, shapes):
        chosen = choose(m, n, k, layout, 1)
        # A tile of many more rows than there are multiplies zeros.
        fit = [tile for tile in every if tile.tile_m < 2 * max(m, chosen.tile_m) or tile == chosen]
        times = interleaved({str(tile): linear(tile, m, n, k) for tile in fit}, rounds)
        seconds = {tile: times[str(tile)].minimum for tile in fit}
        cells = [
            f"{seconds[tile] / seconds[chosen]:.2f}{'*' * (tile == chosen)}" if tile in fit else "" for tile in every
        ]
        print(f"| {m} | {n}x{k} |", " | ".join(cells), "|", flush=True)


def model(name: str) -> None:
    """Print multiplies per cycle of every tile of a target."""
    import machine_model

    target = TARGETS[name]
    print("| target | CPU | model | tile | instructions | loads | stack | multiply | per cycle | bound | share |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for choice in tiles(target):
        for record in machine_model.records(target, choice):
            print(f"| {' | '.join(map(str, record.values()))} |", flush=True)


def main() -> None:
    """Measure or model, as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 32, 128])
    parser.add_argument("--shapes", nargs="+", default=["2048x2048", "8960x1536"], metavar="NxK")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--modelled", choices=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    if arguments.modelled:
        model(arguments.modelled)
        return
    shapes = [tuple(map(int, shape.split("x"))) for shape in arguments.shapes]
    measure(arguments.rows, [(n, k) for n, k in shapes], arguments.rounds)


if __name__ == "__main__":
    main()
