import os
import subprocess
import sys
from pathlib import Path


def test_nothing_beside_the_operands_is_touched():
    # Kernels are lowered here without any backend of Triton: none need be imported.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TRITON_BACKENDS_IN_TREE": "1"}
    command = [sys.executable, str(Path(__file__).with_name("guarded_linears.py"))]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert found.returncode == 0, found.stderr
    done, *deadly = found.stdout.split()
    assert int(done) > 1000
    assert deadly == ["bias", "q", "scale_w", "scale_x", "w", "x", "y"], "an element beyond one of the others is unseen"
