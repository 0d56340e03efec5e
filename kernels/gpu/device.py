"""A device: its memory, counted and bounded, its streams, and copies through pinned buffers.

Everything that a driver can refuse (memory, a launch, a device that is gone) comes out as
`DeviceFailed`; whoever asked does the same work on the CPU. Nothing here is imported where no
device is used. Kernels run in one stream in the order of their launches; copies to and from the
host go through buffers of locked pages, of which the pool keeps some. Read `resident` next.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError, device_memset
from numba.cuda.cudadrv.error import CudaSupportError
from numpy.typing import DTypeLike, NDArray

from kernels.gpu.failures import DeviceFailed
from kernels.gpu.grid import SIMULATED, THREADS, blocks_for
from kernels.gpu.meter import Meter
from kernels.gpu.pinned import PinnedPool
from kernels.layout import U8

STAGING_BYTES: Final = 8 << 20
"""Of each of the two buffers through which pageable memory is copied: one fills, one flies."""
RESERVE_SHIFT: Final = 4
"""1/16 of the device's memory is left to the driver, to compiled code and to others."""
SIMULATED_BYTES: Final = 1 << 30
"""What a simulated device has."""
FAILURES: Final = (CudaAPIError, CudaSupportError, MemoryError)
"""What Numba raises where the driver refuses something."""


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what the driver raises into DeviceFailed; any thread may come."""
    try:
        cuda.current_context()  # makes the device's context that of this thread
        yield
    except FAILURES as error:
        raise DeviceFailed(f"{what}: {error}") from error


class Device:
    """The first device that this process sees."""

    def __init__(self, bytes_max: int | None = None) -> None:
        """Open it; bytes_max: of memory that may be taken, None: most of what is free now."""
        with refusals("open"):
            context = cuda.current_context()
            self.name = "simulator" if SIMULATED else _text(context.device.name)
            free = SIMULATED_BYTES if SIMULATED else int(context.get_memory_info().free)
            self.stream: Any = cuda.stream()
            self.uploads: Any = cuda.stream()
        self.bytes_max = free - (free >> RESERVE_SHIFT) if bytes_max is None else bytes_max
        self.bytes_taken = 0
        """of device memory, by arrays that are alive"""
        self.lock = threading.RLock()
        """is held through every piece of work: pool and queries hash while a block is executed"""
        self.pinned = PinnedPool(_pinned_buffer)
        self.meter: Meter | None = None
        """measures what the device does, while there is one"""
        self._staging: list[tuple[U8, Any]] = []

    def array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return a zeroed array on the device; raises DeviceFailed where memory ends."""
        array = self.empty(shape, dtype)
        self.zero(array)
        return array

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return an array on the device with anything in it; as `array`."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if self.bytes_taken + size > self.bytes_max:
            raise DeviceFailed(
                f"memory: {size} bytes more than the {self.bytes_taken} that are taken exceed the"
                f" {self.bytes_max} that may be"
            )
        with refusals(f"memory of {size} bytes"):
            array = cuda.device_array(shape, dtype)
        self.bytes_taken += size
        weakref.finalize(array, self._forget, size).atexit = False
        return array

    def _forget(self, size: int) -> None:
        self.bytes_taken -= size

    def zero(self, array: Any) -> None:
        """Set all bytes of a contiguous array to zero."""
        if array.size:
            with refusals("zeros"):
                device_memset(array.reshape(int(array.size)), 0, array.nbytes, stream=self.stream)

    def put(self, array: NDArray[Any]) -> Any:
        """Return a copy of a small host array on the device, there when this returns."""
        source = np.ascontiguousarray(array)
        target = self.empty(source.shape, source.dtype)
        self.copy_in(source, target)
        return target

    def copy_in(self, source: NDArray[Any], target: Any, *, is_ahead: bool = False) -> None:
        """Copy a C-contiguous host array to an equal one on the device, before later launches.

        The source may change as soon as this returns, unless it is pinned by this device's pool:
        then it must stay as it is until the results of later launches are fetched. is_ahead: in a
        stream of its own, beside launches of before; none of them may use the target.
        """
        if not source.size:
            return
        data = source.reshape(-1).view(np.uint8)
        bytes_target = target.reshape(int(target.size)).view(np.uint8)
        stream = self.uploads if is_ahead else self.stream
        with refusals("copy to the device"), self._metered("copy_in", data.nbytes, stream):
            if self.pinned.holds(data):
                bytes_target.copy_to_device(data, stream=stream)
            else:
                self._copy_staged(data, bytes_target, stream)
        if is_ahead:
            self._follow_uploads()

    def _copy_staged(self, data: U8, target: Any, stream: Any) -> None:
        """Copy through two pinned buffers: one is filled while the other is on its way."""
        if not self._staging:
            self._staging = [(_pinned_buffer(STAGING_BYTES), cuda.event()) for _ in range(2)]
            for _, event in self._staging:
                event.record(stream)
        for start in range(0, len(data), STAGING_BYTES):
            buffer, event = self._staging[0]
            self._staging.reverse()
            event.synchronize()
            piece = data[start : start + STAGING_BYTES]
            buffer[: len(piece)] = piece
            target[start : start + len(piece)].copy_to_device(buffer[: len(piece)], stream=stream)
            event.record(stream)

    def _follow_uploads(self) -> None:
        """Let what is launched next wait for the copies that were begun."""
        with refusals("copy to the device"):
            event = cuda.event()
            event.record(self.uploads)
            event.wait(self.stream)

    def fetch(self, array: Any) -> NDArray[Any]:
        """Return a device array on the host, in pinned memory; waits for all launches before it."""
        out = self.begin_fetch(array)
        self.wait()
        return out

    def begin_fetch(self, array: Any) -> NDArray[Any]:
        """Begin what `fetch` does: the array is complete after the next `wait`."""
        shape = tuple(int(extent) for extent in array.shape)
        out = self.pinned.take(shape, array.dtype)
        if out.size:
            with (
                refusals("copy from the device"),
                self._metered("copy_back", out.nbytes, self.stream),
            ):
                array.copy_to_host(out, stream=self.stream)
        return out

    def wait(self) -> None:
        """Wait for everything that was launched."""
        with refusals("a launch"):
            self.stream.synchronize()

    def launch(self, kernel: Any, count: int, *arguments: Any) -> None:
        """Run a kernel on `count` items, one thread each."""
        if count:
            self.launch_blocks(kernel, blocks_for(count), *arguments)

    def launch_blocks(self, kernel: Any, blocks: int, *arguments: Any) -> None:
        """Run a kernel on so many blocks of threads."""
        with refusals("a launch"), self._metered(kernel.__name__, blocks * THREADS, self.stream):
            kernel[blocks, THREADS, self.stream](*arguments)

    def _metered(
        self, name: str, items: int, stream: Any
    ) -> contextlib.AbstractContextManager[None]:
        return (
            contextlib.nullcontext() if self.meter is None else self.meter.span(name, items, stream)
        )

    def close(self) -> None:
        """Give the buffers back, when nothing copies from them any more; arrays go with owners."""
        with contextlib.suppress(DeviceFailed):  # a device that is lost copies nothing
            self.wait()
            self.uploads.synchronize()
        self._staging = []
        self.pinned.close()


class Arena:
    """Arrays that are used again in each block, by name: a device allocates slowly."""

    def __init__(self, device: Device) -> None:
        """Begin with none."""
        self._device = device
        self._buffers: dict[str, Any] = {}

    def take(self, name: str, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return an array with anything in it; the one that had this name before is gone."""
        count = int(np.prod(shape, dtype=np.int64))
        size = max(1, count * np.dtype(dtype).itemsize)
        buffer = self._buffers.get(name)
        if buffer is None or int(buffer.shape[0]) < size:
            self._buffers.pop(name, None)
            buffer = None
            buffer = self._device.empty(1 << (size - 1).bit_length(), np.uint8)
            self._buffers[name] = buffer
        if not count:
            return self._device.empty(shape, dtype)
        return buffer[:size].view(np.dtype(dtype)).reshape(shape)

    def put(self, name: str, array: NDArray[Any]) -> Any:
        """Return a copy of a host array under a name."""
        target = self.take(name, array.shape, array.dtype)
        self._device.copy_in(np.ascontiguousarray(array), target)
        return target


def _pinned_buffer(size: int) -> U8:
    """Return `size` bytes of locked pages."""
    with refusals(f"pinned memory of {size} bytes"):
        buffer: U8 = cuda.pinned_array(size, np.uint8)
    return buffer


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
