"""Launches of a module's kernels by ctypes, with arguments as Numba passes them."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.kernels.gpu.software.modules import Launch

Number = ctypes.c_int64 | ctypes.c_uint64 | ctypes.c_uint32
Argument = NDArray[Any] | Number


def parameters(argument: Argument) -> list[Number]:
    """Return what a kernel takes for an argument.

    Of an array: two references that only its owner uses, how many items, their size in bytes,
    where they are, the shape and the strides in bytes.
    """
    if not isinstance(argument, np.ndarray):
        return [argument]
    assert argument.flags.c_contiguous
    fields = [0, 0, argument.size, argument.itemsize, argument.ctypes.data]
    fields += [*argument.shape, *argument.strides]
    return [ctypes.c_uint64(field) for field in fields]


def launch(
    module: Path, name: str, blocks: int, threads: int, numbers: list[Number],
    *, seed: int = 0, shared: int = 0,
) -> int:  # fmt: skip
    """Run a kernel on parameters as they are; return 0 or a Stop. Writes to the host's arrays."""
    params = (ctypes.c_void_p * len(numbers))(*map(ctypes.addressof, numbers))
    how = Launch((blocks, 1, 1), (threads, 1, 1), shared, seed)
    answer: int = getattr(ctypes.CDLL(str(module)), name)(params, ctypes.byref(how))
    return answer
