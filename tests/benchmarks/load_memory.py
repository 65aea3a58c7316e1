"""Peak memory of loading a model in INT8 on the fly, what the packed weights take, and the time of packing.

    python tests/benchmarks/load_memory.py

Writes a random bf16 Llama of about 400 MB (sharded) to a temporary folder, then loads it in a fresh process for each
variant and samples that process's anonymous memory (RssAnon of /proc/<pid>/status: file pages of the mapped
checkpoint do not count). Linux only. The bound is that of the design: the INT8 size, plus the largest tensor of a
shard, plus 64 MB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

MEGABYTE = 1e6
VARIANTS = {"int8 on the fly": "on_the_fly", "int8 checkpoint": "reload", "bf16": "float"}

# Runs in the process that is measured; prints a line before and after the load.
_CHILD = """
import json, sys, time, torch, hf_tle_int8
from hf_tle_int8.packing import Packing
from hf_tle_int8 import execution
from transformers import AutoModelForCausalLM, LlamaForCausalLM
pack, packing = Packing.pack, [0.0]
def timed(*arguments):
    start = time.perf_counter()
    panels = pack(*arguments)
    packing[0] += time.perf_counter() - start
    return panels
Packing.pack = timed
options = {"quantization_config": hf_tle_int8.TLEInt8Config()} if sys.argv[2] == "on_the_fly" else {}
# What is imported on first use, Triton and LLVM among it, is not memory of the model.
hf_tle_int8.TLEInt8Linear.from_linear(torch.nn.Linear(8, 8))(torch.ones(1, 8))
LlamaForCausalLM
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], **options)
elapsed = time.perf_counter() - start
size = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
codes = [tensor for tensor in model.parameters() if tensor.dtype == torch.int8]
linears = [module for module in model.modules() if isinstance(module, hf_tle_int8.TLEInt8Linear)]
print(json.dumps({
    "size": size, "seconds": elapsed, "packing": packing[0], "panels": sum(tensor.nbytes for tensor in codes),
    "weights": sum(linear.in_features * linear.out_features for linear in linears),
}), flush=True)
sys.stdin.readline()
"""


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process: what it allocated, not what it mapped."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status has no RssAnon")


def measure(path: Path, variant: str) -> dict[str, float]:
    """Load ``path`` in a fresh process; returns bytes of the loaded model and the peak and final extra memory."""
    command = [sys.executable, "-c", _CHILD, str(path), variant]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline().strip() == "ready"
        before = peak = anonymous_bytes(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        import os

        os.set_blocking(process.stdout.fileno(), False)
        line = ""
        while not line:
            peak = max(peak, anonymous_bytes(process.pid))
            line = process.stdout.readline()
            time.sleep(0.0005)
        after = anonymous_bytes(process.pid)
        process.stdin.close()
    return {**json.loads(line), "peak": max(peak, after) - before, "final": after - before}


def write_model(folder: Path) -> int:
    """A random bf16 Llama of about 400 MB in shards of 100 MB; returns the bytes of its largest tensor."""
    config = LlamaConfig(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=14, vocab_size=16000, num_attention_heads=16,
        num_key_value_heads=16, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="100MB")
    return max(tensor.nbytes for tensor in model.state_dict().values())


def main() -> None:
    """Measure each variant three times and print the largest peak."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, saved = Path(folder, "bf16"), Path(folder, "int8")
        largest = write_model(source)
        convert = (
            "import sys, hf_tle_int8 as h; from transformers import AutoModelForCausalLM as A; "
            "A.from_pretrained(sys.argv[1], quantization_config=h.TLEInt8Config()).save_pretrained(sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", convert, str(source), str(saved)], check=True)
        print(f"largest tensor of the checkpoint: {largest / MEGABYTE:.0f} MB\n")
        print(f"{'':18}{'model':>10}{'peak':>10}{'final':>10}{'bound':>10}")
        for title, variant in VARIANTS.items():
            runs = [measure(saved if variant == "reload" else source, variant) for _ in range(arguments.runs)]
            size, peak, final = (max(run[key] for run in runs) / MEGABYTE for key in ("size", "peak", "final"))
            bound = f"{size + (largest / MEGABYTE) + 64:>7.0f} MB" if variant == "on_the_fly" else ""
            print(f"{title:18}{size:>7.0f} MB{peak:>7.0f} MB{final:>7.0f} MB{bound:>10}", flush=True)
            if runs[0]["weights"]:
                fastest = min(runs, key=lambda run: run["seconds"])
                share, memory = fastest["packing"] / fastest["seconds"], fastest["panels"] / fastest["weights"]
                print(f"{'':18}panels {memory:.3f} x int8 weights, packing {share:.1%} of {fastest['seconds']:.2f} s")


if __name__ == "__main__":
    main()
