"""What Triton calls to run a compiled kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_tle_int8.backend import arguments, openmp

if TYPE_CHECKING:
    from hf_tle_int8.backend.entry import KernelEntry

_LARGEST_EXTENT = 2**31 - 1


@dataclass(frozen=True)
class Binary:
    """What Triton loaded from its cache, not yet trusted: only the launcher knows which kernel it must be."""

    name: str
    data: bytes


class CPULauncher:
    """Runs one kernel; made by Triton from its source and metadata.

    Raises:
        TypeError: a parameter has a type that is for GPUs.
    """

    def __init__(self, source: Any, metadata: Any):
        self._source = source
        self._metadata = metadata
        self._converters = arguments.converters(source.signature)
        self._entry: KernelEntry | None = None

    def __call__(
        self,
        grid_x: int,
        grid_y: int,
        grid_z: int,
        stream: Any,
        function: Binary,
        packed_metadata: Any,
        launch_metadata: Any,
        enter_hook: Callable[[Any], None] | None,
        exit_hook: Callable[[Any], None] | None,
        *values: Any,
    ) -> None:
        """Run the grid on torch's threads and wait for it; a grid with no programs runs nothing.

        Raises:
            ValueError: a tensor is not on the CPU, or the grid has more programs along an axis than 2³¹ - 1.
            TypeError: an argument is of another type than the kernel was compiled for.
            RuntimeError: this machine does not run the kernel's target.
        """
        entry = self._entry or self.entry(function)
        if max(grid_x, grid_y, grid_z) > _LARGEST_EXTENT:
            raise ValueError(
                f"the grid ({grid_x}, {grid_y}, {grid_z}) has an extent that does not fit 32 bits. "
                "Use a second axis, or larger blocks."
            )
        native = [convert(_at(values, path)) for path, convert in self._converters]
        if enter_hook is not None:
            enter_hook(launch_metadata)
        entry.call(*native, grid_x, grid_y, grid_z, openmp.threads())
        if exit_hook is not None:
            exit_hook(launch_metadata)

    def entry(self, function: Binary) -> "KernelEntry":
        """The kernel, loaded; its ``call`` checks no argument.

        Raises:
            RuntimeError: this machine does not run the kernel's target.
        """
        if self._entry is None:
            from hf_tle_int8.backend.cached_kernel import runnable_entry, target_of
            from hf_tle_int8.backend.entry import KernelEntry

            checked = runnable_entry(self._source, self._metadata, function.data)
            if len(checked.parameters) != len(self._converters):
                raise RuntimeError(
                    f"kernel {checked.name} takes {len(checked.parameters)} native arguments, but Triton's signature "
                    f"{self._source.signature} has {len(self._converters)}. Please report this."
                )
            self._entry = KernelEntry(checked.object_code, target_of(self._metadata), checked.name)
        return self._entry


def _at(values: tuple[Any, ...], path: arguments.Path) -> Any:
    value: Any = values
    for index in path:
        value = value[index]
    return value
