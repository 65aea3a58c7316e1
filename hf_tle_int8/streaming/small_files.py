"""What a checkpoint folder holds beside weights and configuration: tokenizers, processors, templates, licences."""

import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

# Written anew, since they describe the weights.
_OWN = {"config.json", "generation_config.json", "README.md"}
_WEIGHTS = (
    ".safetensors", ".index.json", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".onnx_data",
    ".tflite", ".ot", ".npz",
)  # fmt: skip
_MOST_BYTES = 100_000_000


def copy_small_files(source: Path, folder: Path) -> None:
    """Copy to ``folder`` all files below ``source`` that are neither weights nor written anew nor hidden.

    A file of more than 100 MB is left out, which a warning says.
    """
    for file in sorted(source.rglob("*")):
        path = file.relative_to(source)
        hidden = any(part.startswith(".") for part in path.parts)
        if not file.is_file() or hidden or file.name.endswith(_WEIGHTS) or str(path) in _OWN:
            continue
        if file.stat().st_size > _MOST_BYTES:
            logger.warning("%s is not copied: it has more than %d MB.", file, _MOST_BYTES // 10**6)
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / path)
