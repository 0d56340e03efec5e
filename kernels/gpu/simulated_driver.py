"""The driver of Numba's simulator: memory of the host, and everything done when it is asked for.

For tests, of which `kernels.gpu.grid` speaks. Sources run as Python; streams are none.
"""

import ctypes
from typing import Any, Final

import numpy as np
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from numpy.typing import NDArray

from kernels.gpu.arrays import DeviceArray
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.grid import THREADS
from kernels.layout import U8

MEMORY_BYTES: Final = 1 << 30


class SimulatedDriver:
    """Implements `driver.Driver`."""

    name = "simulator"

    def __init__(self) -> None:
        """Compile nothing."""
        self.compile_ns: dict[str, int] = {}

    def enter(self) -> None:
        """Stay."""

    def free_bytes(self) -> int:
        """Return what a simulated device has."""
        return MEMORY_BYTES

    def allocate(self, size: int) -> tuple[Any, int]:
        """Take memory of the host, at a boundary that any element may have."""
        owner = np.empty(-(-size // 8), np.uint64)
        return owner, owner.ctypes.data

    def pinned(self, size: int) -> U8:
        """Take memory of the host."""
        return np.empty(size, np.uint8)

    def give_back(self) -> None:
        """Leave it to the host."""

    def new_stream(self) -> Any:
        """Return none."""

    def new_event(self, *, is_timed: bool = False) -> Any:
        """Return none."""

    def record(self, event: Any, stream: Any) -> None:
        """Be done already."""

    def follow(self, stream: Any, event: Any) -> None:
        """Be done already."""

    def wait_event(self, event: Any) -> None:
        """Be done already."""

    def elapsed_ns(self, start: Any, stop: Any) -> int:
        """Return 0: the simulator's times mean nothing."""
        return 0

    def wait(self, stream: Any) -> None:
        """Be done already."""

    def copy_in(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy now."""
        ctypes.memmove(target, source, size)

    def copy_out(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy now."""
        ctypes.memmove(target, source, size)

    def copy_within(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy now."""
        ctypes.memmove(target, source, size)

    def fill(self, target: int, byte: int, size: int, stream: Any) -> None:
        """Fill now."""
        ctypes.memset(target, byte, size)

    def launch(self, kernel: Any, blocks: int, arguments: tuple[Any, ...], stream: Any) -> None:
        """Run now."""
        kernel[blocks, THREADS](*map(_simulated, arguments))

    def load_source(self, name: str, source: str, options: tuple[str, ...]) -> Any:
        """Raise DeviceFailed: the simulator runs Python."""
        raise DeviceFailed(f"{name} is CUDA C, which the simulator does not run")

    def launch_source(self, kernel: Any, blocks: int, threads: int, words: tuple[int, ...],
                      stream: Any) -> None:  # fmt: skip
        """Never be called: nothing was loaded."""
        raise AssertionError(kernel)


def _simulated(argument: Any) -> Any:
    return FakeCUDAArray(_host(argument)) if isinstance(argument, DeviceArray) else argument


def _host(array: DeviceArray) -> NDArray[Any]:
    if not array.size:
        return np.empty(array.shape, array.dtype)
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.address)
    return np.frombuffer(memory, array.dtype).reshape(array.shape)
