"""Host memory of locked pages, lent and taken back.

Locking pages takes milliseconds, so buffers are kept, by size, and lent again when the last view of
what they were lent for is gone.
"""

import bisect
import math
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
_SIZE_END: Final = 1 << 64


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
        self._lent: list[tuple[int, int]] = []
        """addresses and sizes of what is lent, ascending"""
        # Arrays may die on any thread, also while this lock is held by their own.
        self._lock = threading.RLock()

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array with anything in it; its buffer comes back when its last view dies."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        size = max(SIZE_MIN, 1 << max(0, size - 1).bit_length())
        with self._lock:
            free = self._free.get(size)
            buffer = free.pop() if free else None
            if buffer is not None:
                self._kept_bytes -= size
        if buffer is None:
            buffer = self._make(size)
        with self._lock:
            bisect.insort(self._lent, (buffer.ctypes.data, size))
        loan = _Loan(buffer, shape, kind)
        weakref.finalize(loan, self._give, buffer, size).atexit = False
        return np.asarray(loan)

    def holds(self, array: NDArray[Any]) -> bool:
        """Say whether a C-contiguous array lies in one lent buffer."""
        start = array.ctypes.data
        with self._lock:
            place = bisect.bisect_right(self._lent, (start, _SIZE_END))
            first, size = self._lent[place - 1] if place else (0, 0)
        return first <= start and start + array.nbytes <= first + size

    def _give(self, buffer: U8, size: int) -> None:
        with self._lock:
            del self._lent[bisect.bisect_left(self._lent, (buffer.ctypes.data, size))]
            if self._kept_bytes + size <= KEPT_BYTES_MAX:
                self._free.setdefault(size, []).append(buffer)
                self._kept_bytes += size

    def close(self) -> None:
        """Give back what nobody uses; what is lent goes with its last view."""
        with self._lock:
            self._free.clear()
            self._kept_bytes = 0
