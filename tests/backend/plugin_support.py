"""The backend registered with Triton by hand, with a cache of its own."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import plugin_kernels
import triton
from triton.backends import Backend, backends

from hf_tle_int8.backend.compiler import CPUBackend
from hf_tle_int8.backend.driver import CPUDriver


@contextmanager
def registered() -> Iterator[CPUDriver]:
    """Inside, kernels run on the CPU; none of them has been compiled in this process."""
    before, active = backends.get("cpu"), triton.runtime.driver._active
    backends["cpu"] = Backend(compiler=CPUBackend, driver=CPUDriver)
    driver = CPUDriver()
    triton.runtime.driver.set_active(driver)
    forget()
    try:
        yield driver
    finally:
        forget()
        triton.runtime.driver._active = active
        if before is None:
            del backends["cpu"]
        else:
            backends["cpu"] = before


def forget() -> None:
    """Make the kernels be loaded from Triton's cache again."""
    for kernel in plugin_kernels.KERNELS:
        kernel.device_caches.clear()
    plugin_kernels.tuned_kernel.cache.clear()


def run_script(script: str, **environment: str) -> str:
    """What a fresh process prints that has the backend registered; fails where that process does."""
    here = Path(__file__).parent
    prelude = f"""
import sys
sys.path[:0] = {[str(here), str(here.parent), str(here.parent.parent)]!r}
import torch
import plugin_kernels as k
from plugin_support import registered
"""
    command = [sys.executable, "-c", prelude + textwrap.dedent(script)]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment}
    )
    assert found.returncode == 0, found.stderr
    return found.stdout
