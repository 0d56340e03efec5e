"""Arrays in memory of a device: where they lie and how their bytes are seen.

A block makes a hundred views of such arrays. Numba's own arrays cost tens of microseconds each to
make and to hand to a kernel; these are an address, a shape and a type, with the words that a kernel
takes for them made once (measured by `python -m tests.kernels.gpu.software.overheads`).
"""

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

DIMENSIONS_MAX: Final = 2

_FLAT: Final = struct.Struct("<7Q").pack
_ROWS: Final = struct.Struct("<9Q").pack


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
        item = self.dtype.itemsize
        assert address % item == 0, "elements lie at multiples of their size"
        if len(shape) == 1:
            size = shape[0]
            words = _FLAT(0, 0, size, item, address, size, item)
        else:
            rows, width = shape
            size = rows * width
            words = _ROWS(0, 0, size, item, address, rows, width, width * item, item)
        self.size = size
        self.nbytes = size * item
        self.words: bytes = words
        """what Numba's kernels take for an array: no owners, sizes, address, shape, strides"""
        self.kind: str = self.dtype.char * len(shape)

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
        row_bytes = self.nbytes // self.shape[0] if start else 0
        return DeviceArray(self.owner, self.address + start * row_bytes, shape, self.dtype)

    def seen_as(self, dtype: DTypeLike, shape: tuple[int, ...]) -> "DeviceArray":
        """Return the same bytes, or the first of them, as another type and shape."""
        view = DeviceArray(self.owner, self.address, shape, np.dtype(dtype))
        assert view.nbytes <= self.nbytes, "a view stays within its array"
        return view
