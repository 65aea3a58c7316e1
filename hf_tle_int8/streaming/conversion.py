"""Converting a checkpoint folder."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging as progress

from hf_tle_int8 import compressed_tensors, inspection
from hf_tle_int8.checks import check_complete
from hf_tle_int8.streaming import destination as destinations
from hf_tle_int8.streaming import source as sources
from hf_tle_int8.streaming.destination import Destination
from hf_tle_int8.streaming.meta_model import MetaModel, place
from hf_tle_int8.streaming.options import FORMATS, Options, Outcome
from hf_tle_int8.streaming.origin import NotStreamableError, Origin
from hf_tle_int8.streaming.plan import Plan, plan
from hf_tle_int8.streaming.shard_file import ShardFile
from hf_tle_int8.streaming.small_files import copy_small_files
from hf_tle_int8.streaming.source import Source
from hf_tle_int8.version import __version__

logger = logging.getLogger(__name__)


def convert_checkpoint(source: Path, destination: Path, options: Options) -> Outcome:
    """Write the INT8 checkpoint that ``from_pretrained`` and ``save_pretrained`` would, tensor by tensor.

    Memory is that of the largest tensor; it does not depend on the size of the model. ``destination`` appears when it
    is complete. A run that was interrupted leaves ``<destination>.partial``, and the same call continues there.

    Args:
        source: folder of a float checkpoint with safetensors files, which stays as it is.
        destination: folder to write.
        options: see `Options`.

    Raises:
        CheckpointError: ``source`` is missing, damaged or incomplete, or its class is none of transformers.
        ConfigError: options that contradict each other or the model, or a ``destination`` that cannot be used.
        UnsupportedSchemeError: ``source`` was quantized by another method.
        InputValueError: a weight holds NaN or Inf.
        OSError: the disk is full, for one.
    """
    destination = destination.resolve()
    found = sources.read(source)
    destinations.check(source, destination, options.overwrite)
    dtype = options.dtype or found.dtype()
    model = inspection.skeleton(source, found.config, dtype)
    with found:
        try:
            meta = place(model, options.config, dtype, found.files, found.headers, found.same)
            planned = plan(meta, options.max_shard_size)
        except NotStreamableError as error:
            reason = str(error)
        else:
            return _convert_tensors(found, destination, options, meta, planned)
    return _convert_whole(found, destination, options, reason, type(model))


def _convert_tensors(source: Source, destination: Path, options: Options, meta: MetaModel, planned: Plan) -> Outcome:
    with destinations.filling(destination, _identity(source, options), options.overwrite) as filled:
        resumed = len(filled.finished)
        _check_space(planned, filled)
        _write_shards(planned, source, filled)
        _load_generation_config(meta.model, source.folder)
        _save_all_but_weights(meta.model, filled.folder, options)
        planned.write_index(filled.folder)
        copy_small_files(source.folder, filled.folder)
        return _outcome(meta.model, destination, filled, resumed, meta.left_out, None)


def _identity(source: Source, options: Options) -> dict[str, Any]:
    """What must be equal for a run to continue another one."""
    stats = {file.name: file.stat() for file in [*source.files, source.folder / "config.json"]}
    return {
        "source": str(source.folder.resolve()),
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
        "options": [options.config.to_dict(), str(options.dtype), options.max_shard_size, options.format],
        "versions": [__version__, transformers.__version__],
    }


def _check_space(planned: Plan, filled: Destination) -> None:
    needed = sum(planned.size(shard) for shard in planned.shards if shard not in filled.finished)
    free = shutil.disk_usage(filled.folder).free
    if needed > free:
        raise OSError(
            f"the INT8 checkpoint needs {needed / 1e9:.1f} GB, and the disk of {filled.folder} has {free / 1e9:.1f} GB "
            f"free. Free the rest, or name a folder on another disk."
        )


def _write_shards(planned: Plan, source: Source, filled: Destination) -> None:
    total = sum(map(planned.size, planned.shards))
    with tqdm(total=total, unit="B", unit_scale=True, desc="Converting", disable=None, leave=False) as bar:
        for shard, tensors in planned.shards.items():
            if shard in filled.finished:
                bar.update(planned.size(shard))
                continue
            with ShardFile(filled.folder / shard, tensors) as file:
                for name, tensor in _made(planned, tensors, source):
                    file.write(name, tensor)
                    bar.update(tensor.nbytes)
            filled.finish(shard)


def _made(planned: Plan, names: Iterable[str], source: Source) -> Iterator[tuple[str, Tensor]]:
    """The tensors to write, by name; codes and scales of one source are made together."""
    by_source: dict[Origin, list[str]] = {}
    for name in names:
        by_source.setdefault(replace(planned.origins[name], part=0), []).append(name)
    for origin, of_one in by_source.items():
        tensor = source.tensor(origin.source).to(origin.dtype)
        made = (tensor,) if origin.quantize is None else origin.quantize(tensor)
        for name in of_one:
            yield name, made[planned.origins[name].part]


def _load_generation_config(model: PreTrainedModel, folder: Path) -> None:
    """As ``from_pretrained`` does."""
    if model.can_generate() and hasattr(model, "adjust_generation_fn"):
        model.adjust_generation_fn(
            None, False, False, folder, cache_dir=None, force_download=False, proxies=None, local_files_only=True,
            token=None, revision="main", subfolder="", trust_remote_code=False,
        )  # fmt: skip


def _save(model: PreTrainedModel, folder: Path, options: Options) -> None:
    if options.format == FORMATS[0]:
        model.save_pretrained(folder, max_shard_size=options.max_shard_size)
    else:
        compressed_tensors.save_compressed_tensors(model, folder, max_shard_size=options.max_shard_size)


def _save_all_but_weights(model: PreTrainedModel, folder: Path, options: Options) -> None:
    shown = progress.is_progress_bar_enabled()
    # transformers deletes weights that it finds where it saves.
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        # It would show that it writes none.
        progress.disable_progress_bar()
        try:
            _save(model, Path(beside), options)
        finally:
            if shown:
                progress.enable_progress_bar()
        for file in Path(beside).iterdir():
            os.replace(file, folder / file.name)


def _convert_whole(
    source: Source, destination: Path, options: Options, reason: str, cls: type[PreTrainedModel]
) -> Outcome:
    """The same through the memory."""
    logger.warning("the whole model is loaded, instead of tensor by tensor: %s.", reason)
    dtype = options.dtype or source.dtype()
    with destinations.filling(destination, _identity(source, options), options.overwrite) as filled:
        model, loaded = cls.from_pretrained(
            source.folder, quantization_config=options.config, dtype=dtype, output_loading_info=True
        )
        check_complete(source.folder, loaded["missing_keys"])
        _save(model, filled.folder, options)
        copy_small_files(source.folder, filled.folder)
        return _outcome(model, destination, filled, 0, [], reason)


def _outcome(
    model: PreTrainedModel, destination: Path, filled: Destination, resumed: int, left_out: list[str], whole: str | None
) -> Outcome:
    files = sorted(filled.folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    modules = model.config.quantization_config.int8_modules or []
    return Outcome(str(destination), modules, [file.name for file in files], size, resumed, left_out, whole)
