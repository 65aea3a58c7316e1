"""Time and memory of ``hf-tle-int8 convert`` for a Llama of random weights in bf16, which is written first.

python tests/benchmarks/convert_memory.py --layers 32 --folder /a/disk/with/three/times/its/size
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

SHARD_BYTES = 2_000_000_000


def shards(sizes: dict[str, torch.Size]) -> Iterator[list[str]]:
    """Names of tensors, two bytes an element, by file."""
    names: list[str] = []
    for name in sizes:
        if names and 2 * sum(sizes[other].numel() for other in [*names, name]) > SHARD_BYTES:
            yield names
            names = []
        names.append(name)
    yield names


def write_checkpoint(folder: Path, layers: int) -> int:
    """The shape of Llama-2-7B with so many layers; returns bytes of weights."""
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers, num_attention_heads=32, vocab_size=32000,
        architectures=["LlamaForCausalLM"], dtype="bfloat16", tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        sizes = {name: p.shape for name, p in AutoModelForCausalLM.from_config(config).named_parameters()}
    config.save_pretrained(folder)
    values = (torch.randn(max(size.numel() for size in sizes.values())) * 0.02).bfloat16()
    places = {}
    for number, names in enumerate(shards(sizes)):
        file = f"model-{number:05d}.safetensors"
        places.update(dict.fromkeys(names, file))
        # safetensors stores no shared memory.
        tensors = {name: values[: sizes[name].numel()].reshape(sizes[name]).clone() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    total = 2 * sum(size.numel() for size in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def peak_of(command: list[str | Path]) -> int:
    """Run a command; the most bytes that were resident, those mapped of files too (Linux)."""
    peak = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            # A process that has ended, and was not waited for, has none.
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))])
            time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    return peak


def main() -> None:
    """Print the size of the model, the time that converting takes, and its peak of resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4, help="of 405 MB each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to write both models (default: the temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as beside:
        source, destination = Path(beside, "bf16"), Path(beside, "int8")
        total = write_checkpoint(source, arguments.layers)
        start = time.perf_counter()
        peak = peak_of([Path(sys.executable).parent / "hf-tle-int8", "convert", source, destination])
        seconds = time.perf_counter() - start
    print(f"{total / 1e9:.2f} GB of bf16: {seconds:.0f} s, peak {peak / 1e6:.0f} MB resident")


if __name__ == "__main__":
    main()
