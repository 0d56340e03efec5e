"""Large zeroed arrays on huge pages.

State is read at random: with 4 KiB pages the page walk costs as much as the miss itself.
"""

import ctypes
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

HUGE_PAGE_BYTES = 1 << 21
_POPULATE_WRITE = 23
"""of `madvise`, since Linux 5.14"""


def zeros(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return a zeroed, 64-byte aligned array; pages are taken when they are first written."""
    bytes_needed = (
        math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
    )
    if bytes_needed < HUGE_PAGE_BYTES:
        buffer = np.zeros(bytes_needed + 63, np.uint8)
        start = -buffer.ctypes.data % 64
        return buffer[start : start + bytes_needed].view(dtype).reshape(shape)
    region = mmap.mmap(-1, bytes_needed, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        region.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(region, np.uint8, bytes_needed).view(dtype).reshape(shape)


def take(array: NDArray[Any]) -> None:
    """Take all pages of what `zeros` made, which stays as it is; others may write it meanwhile.

    Where a page is first written costs much on a virtual machine whose host has to find it, too.
    A kernel that cannot do so ahead does it then: that is no error.
    """
    if array.nbytes >= HUGE_PAGE_BYTES:
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        madvise(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), _POPULATE_WRITE)
