"""Matrices in poisoned memory with any strides, negative ones too, which torch has not."""

import dataclasses

import numpy as np
import torch
from hypothesis import strategies as st

POISON = 0x7B
EDGE = 40


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the elements of a matrix lie; no two at the same place.

    Attributes:
        upright: whether columns are contiguous, not rows.
        step: elements from one to the next.
        padding: elements from the end of a row (or column) to the next one.
        backwards: for rows and for columns, whether they lie in the reverse order.
    """

    upright: bool
    step: int
    padding: int
    backwards: tuple[bool, bool]

    def strides(self, rows: int, columns: int) -> tuple[int, int]:
        """Elements from a row to the next, and from a column to the next."""
        far = self.step * (rows if self.upright else columns) + self.padding
        steps = (self.step, far) if self.upright else (far, self.step)
        row, column = (-step if backwards else step for step, backwards in zip(steps, self.backwards, strict=True))
        return row, column


CONTIGUOUS = Layout(False, 1, 0, (False, False))
LAYOUTS = st.builds(
    Layout, st.booleans(), st.sampled_from([1, 1, 1, 2, 5]), st.integers(0, 9), st.tuples(st.booleans(), st.booleans())
)


class Strided:
    """A matrix in memory that is poison elsewhere.

    Args:
        values: ``[rows, columns]``.
        layout: where they lie.
    """

    def __init__(self, values: torch.Tensor, layout: Layout):
        self.dtype = values.dtype
        self.strides = layout.strides(*values.shape)
        reach = [(count - 1) * stride for count, stride in zip(values.shape, self.strides, strict=True)]
        self._first = EDGE - sum(min(distance, 0) for distance in reach)
        size = 2 * EDGE + 1 + sum(map(abs, reach))
        self.memory = np.full(size * values.element_size(), POISON, np.uint8).view(numpy_bits(values).dtype)
        itemsize = values.element_size()
        self._view = np.lib.stride_tricks.as_strided(
            self.memory[self._first :], values.shape, [stride * itemsize for stride in self.strides]
        )
        self._view[...] = numpy_bits(values)

    @property
    def pointer(self) -> torch.Tensor:
        """From the first element on; what precedes it in memory is there too."""
        return torch.from_numpy(self.memory).view(self.dtype)[self._first :]

    def assert_written(self, expected: torch.Tensor, where: torch.Tensor) -> None:
        """The matrix is ``expected`` where ``where`` is true, and poison is elsewhere and around it."""
        wanted = np.full(self.memory.nbytes, POISON, np.uint8).view(self.memory.dtype)
        actual, self.memory[...] = self.memory.copy(), wanted
        self._view[where.numpy()] = numpy_bits(expected)[where.numpy()]
        np.testing.assert_array_equal(actual, self.memory)

    @classmethod
    def poison(cls, dtype: torch.dtype, rows: int, columns: int, layout: Layout) -> "Strided":
        """A matrix that nothing has been written to."""
        found = cls(torch.zeros(rows, columns, dtype=dtype), layout)
        found.memory.view(np.uint8)[...] = POISON
        return found


def numpy_bits(tensor: torch.Tensor) -> np.ndarray:
    """The elements of a tensor as integers of their bits."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(integers[tensor.element_size()]).numpy()
