"""What having this package installed adds to ``import triton``: fresh processes, with and without its backend in turn.

python tests/benchmarks/import_time.py
"""

import os
import statistics
import subprocess
import sys
import tempfile

PROCESSES = 30
# Hides our entry point alone: what Triton has for this (TRITON_BACKENDS_IN_TREE) skips the look for all others, too.
SCRIPT = """
import importlib.metadata as metadata, sys, time
if sys.argv[1] == "without":
    found = metadata.entry_points
    class Others:
        def select(self, **given):
            return [entry for entry in found().select(**given) if entry.value != "hf_tle_int8.backend"]
    metadata.entry_points = Others
start = time.perf_counter()
import triton
print(time.perf_counter() - start)
assert ("hf_tle_int8" in sys.modules) == (sys.argv[1] == "with"), "hf_tle_int8 is not installed"
"""


def milliseconds(kind: str, bytecode: str) -> float:
    """How long one import takes in a fresh process that finds compiled Python in the folder ``bytecode``."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", SCRIPT, kind]
    return 1e3 * float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def main() -> None:
    """Print minimum and median of both kinds, and the difference."""
    times: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as bytecode:
        milliseconds("with", bytecode)
        for _ in range(PROCESSES):
            for kind, found in times.items():
                found.append(milliseconds(kind, bytecode))
    print(f"import triton, {PROCESSES} processes each  minimum   median")
    for kind, found in times.items():
        print(f"{kind:<34}{min(found):>6.1f} ms{statistics.median(found):>6.1f} ms")
    least, middle = (f(times["with"]) - f(times["without"]) for f in (min, statistics.median))
    print(f"{'difference':<34}{least:>6.1f} ms{middle:>6.1f} ms")


if __name__ == "__main__":
    main()
