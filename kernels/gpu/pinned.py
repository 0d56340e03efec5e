"""Host memory of locked pages, lent and taken back.

Locking pages takes milliseconds, so buffers are kept, by size, and lent again when the last view of
what they were lent for is gone.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kernels.layout import U8

KEPT_BYTES_MAX: Final = 1 << 30
"""Of buffers that nobody uses; more are given back to the system."""
SIZE_MIN: Final = 1 << 12


class _Loan:
    """What an array in a lent buffer holds on to: the buffer is free when this is gone."""

    def __init__(self, buffer: U8, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._buffer = buffer
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (buffer.ctypes.data, False),
            "version": 3,
        }


class PinnedPool:
    """Buffers by size, powers of two."""

    def __init__(self, make: Callable[[int], U8]) -> None:
        """make: returns a new buffer of so many bytes."""
        self._make = make
        self._free: dict[int, list[U8]] = {}
        self._kept_bytes = 0
        self._lent: dict[int, int] = {}
        """address -> size of what is lent"""
        # Arrays may die on any thread, also while this lock is held by their own.
        self._lock = threading.RLock()

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array with anything in it; its buffer comes back when its last view dies."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        size = max(SIZE_MIN, 1 << max(0, size - 1).bit_length())
        with self._lock:
            free = self._free.get(size)
            buffer = free.pop() if free else None
            if buffer is not None:
                self._kept_bytes -= size
        if buffer is None:
            buffer = self._make(size)
        with self._lock:
            self._lent[buffer.ctypes.data] = size
        loan = _Loan(buffer, shape, kind)
        weakref.finalize(loan, self._give, buffer, size).atexit = False
        return np.asarray(loan)

    def holds(self, array: NDArray[Any]) -> bool:
        """Say whether a C-contiguous array lies in one lent buffer."""
        start, stop = array.ctypes.data, array.ctypes.data + array.nbytes
        with self._lock:
            lent = list(self._lent.items())
        return any(first <= start and stop <= first + size for first, size in lent)

    def _give(self, buffer: U8, size: int) -> None:
        with self._lock:
            self._lent.pop(buffer.ctypes.data, None)
            if self._kept_bytes + size <= KEPT_BYTES_MAX:
                self._free.setdefault(size, []).append(buffer)
                self._kept_bytes += size

    def close(self) -> None:
        """Give back what nobody uses; what is lent goes with its last view."""
        with self._lock:
            self._free.clear()
            self._kept_bytes = 0
