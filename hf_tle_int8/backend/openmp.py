"""The OpenMP runtime that torch has loaded: its pool runs the programs of a grid, so that no second pool exists.

GNU's libgomp, LLVM's libomp and Intel's libiomp5 all export ``GOMP_parallel`` and the ``omp_*`` functions.
"""

import ctypes
import functools
import os
import re
from pathlib import Path

_RUNTIME = re.compile(r"/lib(?:g|i)?omp[^/]*\.so[^/]*$")
SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")

_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


# The pool's threads do not survive a fork, and its runtime would wait for them forever.
os.register_at_fork(after_in_child=_mark_forked)


def loaded_runtimes() -> list[str]:
    """Paths of the OpenMP runtimes in this process, torch's own first."""
    import torch

    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {line.split(maxsplit=5)[-1] for line in lines if _RUNTIME.search(line)}
    home = str(Path(torch.__file__).parent.parent)
    return sorted(paths, key=lambda path: (not path.startswith(home), path))


@functools.cache
def runtime_symbols() -> dict[str, int]:
    """Addresses of `SYMBOLS` in torch's OpenMP runtime.

    Raises:
        RuntimeError: torch was built without OpenMP, or the system does not list its libraries.
    """
    runtimes = loaded_runtimes()
    if not runtimes:
        raise RuntimeError(
            "torch has loaded no OpenMP runtime (libgomp, libomp or libiomp5), on whose threads kernels run. "
            "Install a torch that torch.__config__.parallel_info() shows with OpenMP."
        )
    library = ctypes.CDLL(runtimes[0])
    addresses = {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in SYMBOLS}
    return {name: address for name, address in addresses.items() if address is not None}


def threads() -> int:
    """How many threads a launch may use: ``torch.get_num_threads()``; 1 in a process that was forked."""
    if _forked:
        return 1
    import torch

    return torch.get_num_threads()
