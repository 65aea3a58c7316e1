"""Which linears have their weight read by model code, rather than being called.

A layer whose parent computes with ``self.proj.weight`` itself (``F.linear(x, self.proj.weight)``,
``x.to(self.proj.weight.dtype)``) cannot hold int8 codes: the parent would compute on them, in the worst case without
an error. The source of each module's class tells.
"""

from collections.abc import Iterator

from torch import nn

from hf_tle_int8.code_paths import Path
from hf_tle_int8.weight_reads import reads_of

# Base classes that never compute with a weight of a layer below them; the second has 5000 lines to parse.
_BASE_MODULES = ("torch.nn.modules.module", "transformers.modeling_utils")
# Which of its methods compute with the weights below them is what `adapters` knows and guards.
_PEFT = "peft."


def weights_read_by_code(model: nn.Module) -> set[str]:
    """The names of the modules of ``model`` whose ``weight`` is read by the code of a module around them."""
    names: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        dotted = f"{prefix}." if prefix else ""
        names |= {dotted + name for name in _read_inside(module)}
    return names


def _read_inside(module: nn.Module) -> Iterator[str]:
    """The names, from ``module`` on, of the modules inside of it whose weight its class reads."""
    reads = [path for cls in type(module).__mro__ if _may_read(cls) for path in reads_of(cls.__module__, cls.__name__)]
    exact = {path[1:] for path in reads if path[0] == "self"}
    # Of a local variable of unknown origin, such as `block.proj.weight`, only the last name tells.
    endings = {path[-1] for path in reads if path[0] != "self" and len(path) > 1}
    if any(exact) or endings:
        for name, _ in module.named_modules(remove_duplicate=False):
            parts = tuple(name.split("."))
            if parts[-1] in endings or any(_fits(parts, path) for path in exact):
                yield name


def _may_read(cls: type) -> bool:
    module = cls.__module__
    return issubclass(cls, nn.Module) and module not in _BASE_MODULES and not module.startswith(_PEFT)


def _fits(parts: Path, path: Path) -> bool:
    return len(parts) == len(path) and all(wanted in ("*", part) for part, wanted in zip(parts, path, strict=True))
