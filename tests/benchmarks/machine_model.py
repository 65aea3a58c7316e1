"""The inner loops of the INT8 linears under LLVM's models of CPUs: multiply instructions per cycle.

    python tests/benchmarks/machine_model.py --csv docs/benchmarks/machine-model.csv > docs/benchmarks/machine-model.md

Compiles `gemm` with every tile of `hf_tle_int8.dispatch` for every target, runs the innermost loop with the target's
multiply instruction through llvm-mca, and prints a page in Markdown. Nothing is run on the CPUs that are modelled.
llvm-mca is the newest of ``llvm-mca-N`` and ``llvm-mca``; with one older than 22, some CPUs are given another's model.
"""

import argparse
import datetime
import functools
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget

from hf_tle_int8.backend.codegen import llvm
from hf_tle_int8.backend.dot.instruction import Instruction
from hf_tle_int8.backend.dot.plan import plan
from hf_tle_int8.backend.ir import I8
from hf_tle_int8.backend.target import TARGETS, Target
from hf_tle_int8.bench import tables
from hf_tle_int8.dispatch import Choice, constexprs, scheme
from hf_tle_int8.kernels.linear import gemm

CPUS = {
    "neon": ("cortex-a72",),
    "neon-dotprod": ("cortex-a76", "neoverse-n1"),
    "neon-i8mm": ("cortex-a720", "neoverse-n2", "neoverse-v1", "neoverse-v2"),
    "avx2": ("znver3",),
    "avxvnni": ("alderlake",),
    "avx512": ("skylake-avx512",),
    "avx512vnni": ("icelake-server",),
    "avx512bf16": ("znver4",),
    "amx": ("sapphirerapids",),
}
# By architecture and int8 dot of a target: what the multiply looks like, one with the accumulator {0}, and its products
# for each byte of a vector register.
MULTIPLIES = {
    ("aarch64", "smmla"): (r"smmla\b", "smmla v{0}.4s, v30.16b, v31.16b", 2.0),
    ("aarch64", "sdot"): (r"sdot\b", "sdot v{0}.4s, v30.16b, v31.16b", 1.0),
    ("aarch64", "widening"): (r"smull2?\b", "smull v{0}.8h, v30.8b, v31.8b", 0.5),
    ("x86_64", "vpdpbusd"): (r"(\{vex\} )?vpdpbusd\b", "{1}vpdpbusd %{2}mm15, %{2}mm14, %{2}mm{0}", 1.0),
    ("x86_64", "vpmaddubsw"): (r"vpmaddubsw\b", "vpmaddubsw %{2}mm15, %{2}mm14, %{2}mm{0}", 1.0),
    ("x86_64", "widening"): (r"vpmaddwd\b", "vpmaddwd %{2}mm15, %{2}mm14, %{2}mm{0}", 0.5),
    ("x86_64", "tdpbssd"): (r"tdpbssd\b", "tdpbssd %tmm6, %tmm7, %tmm{0}", 256.0),
}
ACCUMULATORS = 12
ITERATIONS = 1000
SIGNATURE = {
    **dict.fromkeys(("x", "y", "bias"), "*bf16"),
    **dict.fromkeys(("q", "w"), "*i8"),
    **dict.fromkeys(("scale_x", "scale_w"), "*fp32"),
    **dict.fromkeys(("M", "N", "K"), "i32"),
    "stride": "i64",
}

HEADER = """\
# The inner loops under LLVM's models of CPUs

**Modelled, not measured**: no line of this page has been timed on the CPU it names. llvm-mca takes every load for a hit
in the first-level cache and every branch for foreseen, so its figures are bounds that a real kernel stays below, and of
use to compare loops with each other.

Regenerate with `python tests/benchmarks/machine_model.py > docs/benchmarks/machine-model.md`; `--csv` writes a CSV too.

{versions}.

- model: the schedule that llvm-mca applies, by the name of its execution units; LLVM has none of its own for some.
- tile: rows x columns of accumulators; one row is a GEMV.
- instructions, loads, stack: of one iteration of the innermost loop; loads are instructions that read memory, stack
  those that touch the stack (spills).
- per cycle: multiplies that make products, and bound: of a loop of nothing but independent multiplies in registers.
- multiply: those that make products / all; vpdpbusd takes unsigned rows, and the others make up for that.
- Without a dot product, widening (smull, vpmaddwd) or signs (vpmaddubsw) and additions come beside each multiply: the
  bound is out of reach.
- LLVM's znver4 has one vpdpbusd of 512 bits in two cycles; a Zen 4 was measured at one a cycle (469 GOPS a core).

| target | CPU | model | tile | instructions | loads | stack | multiply | per cycle | bound | share |
|---|---|---|---|---|---|---|---|---|---|---|"""

PEERS = """
## For comparison

The loops of others under the same kind of model, multiply instructions per cycle / peak of the core; figures that were
taken down when these kernels were designed, not run by this script.

| loop | instruction | N1 | A720, N2 | V2 |
|---|---|---|---|---|
| KleidiAI GEMM 16x4 (16 accumulators, 1.6 multiplies a load) | smmla | - | 2 / 2 | 3.46 / 4 |
| KleidiAI GEMV 1x4 (2 accumulators) | sdot | 0.53 / 2 | 0.67 / 2 | 1.45 / 4 |
| an ideal 8x8 (16 accumulators, 2 + 2 operands) | sdot | 1.73 / 2 | 2 / 2 | 3.99 / 4 |
| an ideal 8x8 (16 accumulators, 4 + 4 operands) | smmla | - | 2 / 2 | 3.45 / 4 |
| an ideal GEMV of 32 columns, groups of 4 k (8 accumulators) | sdot | 0.94 / 2 | 2 / 2 | 2.66 / 4 |
| an ideal GEMV of 16 columns, groups of 8 k (8 accumulators) | sdot | 0.61 / 2 | 1.63 / 2 | 1.98 / 4 |"""


@dataclass(frozen=True)
class Modelled:
    """What llvm-mca says of a loop: cycles of one iteration, and the prefix of the names of the model's units."""

    cycles: float
    model: str


def llvm_mca() -> str:
    """The newest llvm-mca that is installed.

    Raises:
        SystemExit: there is none.
    """
    names = [f"llvm-mca-{version}" for version in range(40, 13, -1)] + ["llvm-mca"]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        sys.exit("llvm-mca is not installed, which models CPUs: apt-get install llvm-22 (or newer).")
    return found


@functools.cache
def modelled(loop: tuple[str, ...], target: Target, cpu: str) -> Modelled:
    """Run llvm-mca.

    Raises:
        SystemExit: it refuses the loop; its message is shown.
    """
    command = [llvm_mca(), f"-mtriple={target.triple}", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    text = "\n".join(loop) + "\n"
    output = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    cycles = re.search(r"Total Cycles:\s+(\d+)", output.stdout)
    if output.returncode or cycles is None:
        sys.exit(f"{' '.join(command)} refuses a loop:\n{output.stderr}")
    unit = re.search(r"^ *\[[\d.]+\] +- ([A-Z]+[a-z]*\d*?)(?=Unit|Port|Divider|AGU|ALU)", output.stdout, re.MULTILINE)
    return Modelled(int(cycles[1]) / ITERATIONS, unit[1] if unit else "?")


def assembly(target: Target, choice: Choice) -> str:
    """`gemm` with the tile of ``choice`` and a bias, compiled as Triton does it, bf16 in and out."""
    kernel = gemm
    values = {**constexprs(scheme(target), choice), "HAS_BIAS": True}
    types = {name: "constexpr" if name in values else SIGNATURE[name] for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in values.items()}
    source = triton.compiler.ASTSource(kernel, types, places)
    return triton.compile(source, target=GPUTarget("cpu", target.name, 1)).asm["asm"]


def choices(target: Target) -> Iterator[Choice]:
    """The tiles that serve linears on ``target``."""
    yield from itertools.starmap(scheme(target).choice, scheme(target).tiles)


def innermost_loops(text: str) -> Iterator[tuple[str, ...]]:
    """The instructions of each loop without a label inside, its backward branch included."""
    label, body = None, []
    for line in text.splitlines():
        stripped = re.sub(r"\s+", " ", line.split("//")[0].split("# ")[0]).strip()
        if found := re.match(r"(\.\w+):", stripped):
            label, body = found[1], []
        elif stripped and not stripped.startswith((".", "#")):
            body.append(stripped)
            if label and re.search(rf"{re.escape(label)}$", stripped):
                yield tuple(body)


def count(loop: tuple[str, ...], pattern: str) -> int:
    """How many instructions match from their beginning."""
    return sum(re.match(pattern, instruction) is not None for instruction in loop)


def instruction_of(target: Target, choice: Choice) -> Instruction:
    """What the products of a tile are summed by."""
    k = choice.steps * scheme(target).packing.group
    return plan(target, I8, (choice.tile_m, k), (k, choice.tile_n), without_least=True).instruction


def registers_only(target: Target, instruction: Instruction) -> tuple[str, ...]:
    """A loop of independent multiplies."""
    vex, width = ("{vex} ", "y") if target.vector_bytes == 32 else ("", "z")
    template, count = MULTIPLIES[target.arch, instruction.name][1], 6 if instruction.tiles else ACCUMULATORS
    return tuple(template.format(number, vex, width) for number in range(count))


def useful(target: Target, choice: Choice, instruction: Instruction) -> float:
    """How many multiplies the products of one iteration take."""
    products = choice.tile_m * choice.tile_n * choice.steps * scheme(target).packing.group
    return products / (target.vector_bytes * MULTIPLIES[target.arch, instruction.name][2])


def records(target: Target, choice: Choice) -> Iterator[dict[str, object]]:
    """What one kernel does on each CPU.

    Raises:
        SystemExit: the kernel's loop has fewer of the target's multiply instructions than its products take.
    """
    instruction = instruction_of(target, choice)
    pattern = MULTIPLIES[target.arch, instruction.name][0]
    loop = max(innermost_loops(assembly(target, choice)), key=lambda body: count(body, pattern), default=())
    multiplies, needed = count(loop, pattern), useful(target, choice, instruction)
    if multiplies < needed:
        sys.exit(f"{target.name}: no loop of {choice} has {needed:.0f} of {instruction.name} ({pattern}).")
    loads = count(loop, r"ld" if target.arch == "aarch64" else r"(?!lea)(?!.*\)$).*\(")
    stack = count(loop, r".*(\[sp|%rsp)")
    registers = registers_only(target, instruction)
    for cpu in CPUS[target.name]:
        found, bound = modelled(loop, target, cpu), modelled(registers, target, cpu)
        rate, peak = needed / found.cycles, len(registers) / bound.cycles
        yield {
            "target": target.name, "cpu": cpu, "model": found.model, "tile": f"{choice.tile_m}x{choice.tile_n}",
            "instructions": len(loop), "loads": loads, "stack": stack, "multiply": f"{needed:.0f} / {multiplies}",
            "per_cycle": f"{rate:.2f}", "bound": f"{peak:.2f}", "share": f"{rate / peak:.0%}",
        }  # fmt: skip


def main() -> None:
    """Print the page, and write the table as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, metavar="FILE")
    given = parser.parse_args()
    tool = subprocess.run([llvm_mca(), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"LLVM version (\S+)", tool)
    versions = f"llvm-mca {version[1] if version else 'of an unknown version'}; kernels compiled by triton "
    versions += f"{triton.__version__} and LLVM {'.'.join(map(str, llvm().llvm_version_info))}"
    today, every = str(datetime.date.today()), []
    print(HEADER.format(versions=f"{versions}; {today}"))
    for target in TARGETS.values():
        for choice in choices(target):
            for record in records(target, choice):
                print(f"| {' | '.join(map(str, record.values()))} |", flush=True)
                every.append(record)
    print(PEERS)
    if given.csv is not None:
        facts = {"date": today, "versions": versions, "how": "modelled by llvm-mca, not measured on the CPU"}
        tables.write_csv(given.csv, every, facts)


if __name__ == "__main__":
    main()
