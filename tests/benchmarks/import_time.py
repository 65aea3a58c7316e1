"""What having this package installed adds to ``import triton``: fresh processes, with and without its backend in turn.

python tests/benchmarks/import_time.py
"""

import statistics
import subprocess
import sys

PROCESSES = 30
# As Triton looks for backends, but for ours: its own way to do without (TRITON_BACKENDS_IN_TREE) skips more than that.
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


def milliseconds(kind: str) -> float:
    """How long one import takes in a fresh process."""
    found = subprocess.run([sys.executable, "-c", SCRIPT, kind], capture_output=True, text=True, check=True)
    return 1e3 * float(found.stdout)


def main() -> None:
    """Print minimum and median of both kinds, and the difference."""
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(PROCESSES):
        for kind, found in times.items():
            found.append(milliseconds(kind))
    print(f"import triton, {PROCESSES} processes each  minimum   median")
    for kind, found in times.items():
        print(f"{kind:<36}{min(found):>5.1f} ms {statistics.median(found):>5.1f} ms")
    least, middle = (f(times["with"]) - f(times["without"]) for f in (min, statistics.median))
    print(f"{'difference':<36}{least:>5.1f} ms {middle:>5.1f} ms")


if __name__ == "__main__":
    main()
