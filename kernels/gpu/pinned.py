"""Host memory of locked pages, lent and taken back.

Locking pages takes milliseconds, so buffers are kept, by size, and lent again when the last view of
what they were lent for is gone.
"""

import bisect
import math
import threading
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kernels.layout import U8

KEPT_BYTES_MAX: Final = 1 << 30
"""Of buffers that nobody uses; more are given back to the system."""
SIZE_MIN: Final = 1 << 12
_SIZE_END: Final = 1 << 64


Buffer = tuple[int, int, U8]
"""Address, size and memory."""


class _Loan:
    """What an array in a lent buffer holds on to: the buffer goes back when this is gone."""

    def __init__(
        self, pool: "PinnedPool", buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._pool = pool
        self._buffer = buffer
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (buffer[0], False),
            "version": 3,
        }

    def __del__(self) -> None:
        self._pool.give(self._buffer)


class PinnedPool:
    """Buffers by size, powers of two."""

    def __init__(self, make: Callable[[int], U8]) -> None:
        """make: returns a new buffer of so many bytes."""
        self._make = make
        self._free: dict[int, list[Buffer]] = {}
        self._kept_bytes = 0
        self._lent: list[Buffer] = []
        """what is lent, by ascending address"""
        # Arrays may die on any thread, also while this lock is held by their own.
        self._lock = threading.RLock()

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array with anything in it; its buffer comes back when its last view dies."""
        return self.take_at(shape, dtype)[0]

    def take_at(self, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[NDArray[Any], int]:
        """Return what `take` does, and its address."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        size = max(SIZE_MIN, 1 << max(0, size - 1).bit_length())
        buffer = None
        with self._lock:
            free = self._free.get(size)
            if free:
                buffer = free.pop()
                self._kept_bytes -= size
        if buffer is None:
            memory = self._make(size)
            buffer = (memory.ctypes.data, size, memory)
        with self._lock:
            bisect.insort(self._lent, buffer)
        return np.asarray(_Loan(self, buffer, shape, kind)), buffer[0]

    def holds(self, array: NDArray[Any]) -> bool:
        """Say whether a C-contiguous array lies in one lent buffer."""
        start = array.ctypes.data
        with self._lock:
            place = bisect.bisect_right(self._lent, (start, _SIZE_END))
            first, size = self._lent[place - 1][:2] if place else (0, 0)
        return first <= start and start + array.nbytes <= first + size

    def give(self, buffer: Buffer) -> None:
        """Take a buffer back that was lent."""
        address, size, _ = buffer
        with self._lock:
            del self._lent[bisect.bisect_left(self._lent, (address, size))]
            if self._kept_bytes + size <= KEPT_BYTES_MAX:
                self._free.setdefault(size, []).append(buffer)
                self._kept_bytes += size

    def close(self) -> None:
        """Give back what nobody uses; what is lent goes with its last view."""
        with self._lock:
            self._free.clear()
            self._kept_bytes = 0
