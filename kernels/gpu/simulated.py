"""The name `cuda` inside kernels that run in Numba's simulator.

Threads of the simulator are threads of the system. Two things that it gives them do not bear that,
the less the sooner threads take turns. Whenever a device function is called, it puts its own object
under the name `cuda` into that module's globals and takes it out again behind the call: the first
thread that returned took it away from the others. And two threads that asked for a shared array at
the same time got one each. Here the object is there for good, asks at each use which kernel runs,
and gives out one array.
"""

import sys
import threading
from typing import Any, Final

import numpy as np
from numba import cuda
from numba.cuda.simulator import kernel as simulator
from numba.np.numpy_support import as_dtype
from numpy.typing import NDArray


class _Shared:
    """Shared arrays of the kernel that runs, by the line that asks for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kernel: Any = None
        self._arrays: dict[tuple[str, int], NDArray[Any]] = {}

    def array(self, shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return the array of the line that calls this, with anything in it."""
        caller = sys._getframe(1)
        line = (caller.f_code.co_filename, caller.f_lineno)
        with self._lock:
            kernel = simulator._get_kernel_context()
            if kernel is not self._kernel:
                self._kernel, self._arrays = kernel, {}
            if line not in self._arrays:
                self._arrays[line] = np.empty(shape, as_dtype(dtype))
            return self._arrays[line]


class _Cuda:
    """Has what the running kernel has under `cuda`, and what the module has where none runs."""

    shared: Final = _Shared()

    def __getattr__(self, name: str) -> Any:
        kernel = simulator._get_kernel_context()
        return getattr(cuda if kernel is None else kernel, name)


_CUDA: Final = _Cuda()


def simulate(function: Any, *, is_called: bool) -> Any:
    """Return a kernel, or where `is_called` by kernels a device function, of the simulator."""
    if function.__globals__.get("cuda") is cuda:
        function.__globals__["cuda"] = _CUDA
    return cuda.jit(device=is_called)(function)
