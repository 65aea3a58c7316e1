"""Lay the kernels out as a folder that Hugging Face's ``kernels`` loads and the Hub takes.

    python kernels/hub/lay_out.py FOLDER

Python alone is enough; the same sources give the same bytes. The format is that of the requirements for kernels of
https://huggingface.co/docs/kernels: one build variant, ``torch-universal``, of pure Python, which a torch that is built
for GPUs takes too.
"""

import argparse
import base64
import hashlib
import json
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

_HUB = Path(__file__).parent
_REPOSITORY = _HUB.parent.parent
_VERSION_FILE = _REPOSITORY / "hf_tle_int8" / "version.py"

NAME = "tle-int8"
# By the Hub's convention, 0 is for kernels whose functions may still change.
VERSION = 0
VARIANT = "torch-universal"
PUBLISHED = ("__init__.py", "functions.py", "operators.py", "requirement.py")


def variant_files() -> dict[str, bytes]:
    """The files of the module, by their path in it."""
    sources = {name: _HUB / name for name in PUBLISHED} | {"version.py": _VERSION_FILE}
    sources |= {f"kernels/{file.name}": file for file in (_REPOSITORY / "kernels" / "tle_int8").glob("*.py")}
    return {name: sources[name].read_bytes() for name in sorted(sources)}


def metadata(files: dict[str, bytes]) -> dict[str, object]:
    """``metadata.json`` of these files; its ``id``, the name that the module is imported under, is theirs alone."""
    digests = {name: hashlib.sha256(text).digest() for name, text in files.items()}
    all_of_them = hashlib.sha256("".join(f"{name} {digest.hex()}\n" for name, digest in digests.items()).encode())
    return {
        "name": NAME,
        "id": f"_{NAME.replace('-', '_')}_cpu_{all_of_them.hexdigest()[:12]}",
        "version": VERSION,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": "cpu"},
        "digest": {
            "algorithm": "sha256",
            "files": {name: base64.b64encode(digest).decode() for name, digest in digests.items()},
        },
    }


def files() -> dict[str, bytes]:
    """All files of the folder, by their path in it."""
    module = variant_files()
    release = runpy.run_path(str(_VERSION_FILE))["__version__"]
    card = (_HUB / "CARD.md").read_text().replace("{version}", release)
    described = json.dumps(metadata(module), indent=2) + "\n"
    variant = {f"build/{VARIANT}/{name}": text for name, text in module.items()}
    variant[f"build/{VARIANT}/metadata.json"] = described.encode()
    return {"LICENSE": (_REPOSITORY / "LICENSE").read_bytes(), "README.md": card.encode(), **variant}


def lay_out(folder: Path) -> None:
    """Write the folder, whole or not at all.

    Args:
        folder: where it shall be; it must not exist, or be empty.

    Raises:
        FileExistsError: there is something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists: a folder of kernels is written whole. Remove it, or name another one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, text in files().items():
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_bytes(text)
        beside.chmod(0o755)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside)
        raise


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write it")
    folder = parser.parse_args().folder
    try:
        lay_out(folder)
    except FileExistsError as error:
        parser.error(str(error))
    print(f"{folder}: {NAME} {VERSION}, build/{VARIANT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
