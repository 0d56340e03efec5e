"""Arrays in memory of a device: where they lie and how their bytes are seen.

A block makes a hundred views of such arrays. Numba's own arrays cost tens of microseconds each to
make and to hand to a kernel; these are an address, a shape and a type, with the words that a kernel
takes for them made once (measured by `python -m tests.kernels.gpu.software.overheads`).
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

DIMENSIONS_MAX: Final = 2


class DeviceArray:
    """C-contiguous elements of one type, of one or two dimensions; keeps their memory alive."""

    __slots__ = ("address", "dtype", "kind", "nbytes", "owner", "shape", "size", "words")

    def __init__(self, owner: Any, address: int, shape: tuple[int, ...], dtype: Any) -> None:
        """Stand at `address`, in memory that `owner` gives back when it dies."""
        assert 0 < len(shape) <= DIMENSIONS_MAX, shape
        self.owner = owner
        self.address = address
        self.shape = shape
        self.dtype: np.dtype[Any] = dtype
        itemsize = self.dtype.itemsize
        assert address % itemsize == 0, "elements lie at multiples of their size"
        self.size = math.prod(shape)
        self.nbytes = self.size * itemsize
        strides = (itemsize,) if len(shape) == 1 else (shape[1] * itemsize, itemsize)
        self.words = (0, 0, self.size, itemsize, address, *shape, *strides)
        """what Numba's kernels take for an array: no owners, sizes, address, shape, strides"""
        self.kind = (self.dtype.char, len(shape))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: int | slice) -> "DeviceArray":
        """Return consecutive rows, or one row of two dimensions as an array of one."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            assert step == 1, "rows are consecutive"
            shape = (max(0, stop - start), *self.shape[1:])
        else:
            assert 0 <= rows < self.shape[0], rows
            assert len(self.shape) == DIMENSIONS_MAX, "an element is fetched, not seen"
            start, shape = rows, self.shape[1:]
        return DeviceArray(self.owner, self.address + start * self.words[-len(self.shape)], shape,
                           self.dtype)  # fmt: skip

    def seen_as(self, dtype: DTypeLike, shape: tuple[int, ...]) -> "DeviceArray":
        """Return the same bytes, or the first of them, as another type and shape."""
        view = DeviceArray(self.owner, self.address, shape, np.dtype(dtype))
        assert view.nbytes <= self.nbytes, "a view stays within its array"
        return view
