"""Peak memory of loading a model in INT8 on the fly, what the packed weights take, and the time of packing.

    python tests/benchmarks/load_memory.py [--record docs/benchmarks]

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

import recording
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
packing[0] = 0.0
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


def write_model(folder: Path, layers: int) -> int:
    """A random bf16 Llama of about 400 MB (14 layers) in shards of 100 MB; returns the bytes of its largest tensor."""
    config = LlamaConfig(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=layers, vocab_size=16000, num_attention_heads=16,
        num_key_value_heads=16, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="100MB")
    return max(tensor.nbytes for tensor in model.state_dict().values())


def memory(variant: str, runs: list[dict[str, float]]) -> dict[str, object]:
    """Bytes of the model, and the largest of what the runs took in anonymous memory."""
    size, peak, final = (int(max(run[key] for run in runs)) for key in ("size", "peak", "final"))
    weights, panels = int(runs[0]["weights"]), int(runs[0]["panels"])
    share = recording.rounded(panels / weights) if weights else None
    return {
        "variant": variant, "model_bytes": size, "peak_bytes": peak, "after_bytes": final, "int8_bytes": panels,
        "packed_share": share,
    }  # fmt: skip


def loading(variant: str, runs: list[dict[str, float]]) -> dict[str, object]:
    """Seconds of the fastest run."""
    fastest = min(runs, key=lambda run: run["seconds"])
    seconds, packing = fastest["seconds"], fastest["packing"]
    return {
        "variant": variant, "seconds": recording.rounded(seconds), "packing_seconds": recording.rounded(packing),
        "packing_share": recording.rounded(packing / seconds),
    }  # fmt: skip


def main() -> None:
    """Measure each variant and print the largest peak and the least time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each variant (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=14, help="of the model (default: %(default)s)")
    recording.add_options(parser)
    arguments = parser.parse_args()
    memories, times = [], []
    with tempfile.TemporaryDirectory() as folder:
        source, saved = Path(folder, "bf16"), Path(folder, "int8")
        largest = write_model(source, arguments.layers)
        convert = (
            "import sys, hf_tle_int8 as h; from transformers import AutoModelForCausalLM as A; "
            "A.from_pretrained(sys.argv[1], quantization_config=h.TLEInt8Config()).save_pretrained(sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", convert, str(source), str(saved)], check=True)
        print(f"largest tensor of the checkpoint: {largest / MEGABYTE:.0f} MB")
        for title, variant in VARIANTS.items():
            runs = [measure(saved if variant == "reload" else source, variant) for _ in range(arguments.runs)]
            memories.append(memory(title, runs))
            times.append(loading(title, runs))
            size, peak, final = (memories[-1][f"{key}_bytes"] / MEGABYTE for key in ("model", "peak", "after"))
            bound = f", bound {size + largest / MEGABYTE + 64:.0f} MB" if variant == "on_the_fly" else ""
            print(f"{title}: model {size:.0f} MB, peak {peak:.0f} MB{bound}, after loading {final:.0f} MB")
            if memories[-1]["packed_share"]:
                print(f"  panels {memories[-1]['packed_share']:.3f} x int8 weights")
            print(f"  {times[-1]['seconds']} s, packing {times[-1]['packing_share']:.1%} of it", flush=True)
    threads = torch.get_num_threads()
    recording.write(arguments, "memory", memories, threads)
    recording.write(arguments, "load", times, threads)


if __name__ == "__main__":
    main()
