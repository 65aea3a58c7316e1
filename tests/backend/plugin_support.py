"""The backend that Triton has found, with a cache of its own."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import plugin_kernels
import triton
from triton.backends import backends

from hf_tle_int8.backend import settings
from hf_tle_int8.backend.driver import CPUDriver


@contextmanager
def registered() -> Iterator[CPUDriver]:
    """Inside, kernels run by the registered driver, on machines with a GPU too; none is compiled in this process."""
    reason = settings.why_not_registered()
    assert reason is None, reason
    runtime = triton.runtime.driver
    before = runtime._active
    runtime.set_active(backends[settings.NAME].driver())
    forget()
    try:
        yield runtime.active
    finally:
        forget()
        runtime._active = before


def forget() -> None:
    """Make the kernels be loaded from Triton's cache again."""
    for kernel in plugin_kernels.KERNELS:
        kernel.device_caches.clear()
    plugin_kernels.tuned_kernel.cache.clear()


def run_script(script: str, **environment: str) -> str:
    """What a fresh process prints whose kernels run on the CPU; fails where that process does."""
    prelude = (
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport torch\nimport plugin_kernels as k\n"
    )
    return run_python("-c", prelude + textwrap.dedent(script), TRITON_DEFAULT_BACKEND=settings.NAME, **environment)


def run_python(*arguments: str, **environment: str) -> str:
    """What a fresh Python prints; fails where it does."""
    found = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )
    assert found.returncode == 0, found.stderr
    return found.stdout
