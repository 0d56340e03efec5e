"""A device: its memory, counted and bounded, its streams, and copies through pinned buffers.

Everything that a driver can refuse (memory, a launch, a device that is gone) comes out as
`DeviceFailed`; whoever asked does the same work on the CPU. Nothing here is imported where no
device is used. Kernels run in one stream, in the order of their launches. A block's columns come in
a stream of their own while the block before them runs (see `columns`), and what is fetched beside
launches leaves in a third one. Copies to and from the host go through buffers of locked pages, of
which the pool keeps some. Read `resident` next.
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
from kernels.gpu.grid import SIMULATED, THREADS, blocks_for, new_event
from kernels.gpu.meter import Meter
from kernels.gpu.pinned import PinnedPool
from kernels.gpu.staging import Staging
from kernels.layout import U8

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
            self.downloads: Any = cuda.stream()
        self.bytes_max = free - (free >> RESERVE_SHIFT) if bytes_max is None else bytes_max
        self.bytes_taken = 0
        """of device memory, by arrays that are alive"""
        self.lock = threading.RLock()
        """is held through every piece of work: pool and queries hash while a block is executed"""
        self._counting = threading.RLock()
        self.pinned = PinnedPool(_pinned_buffer)
        self.meter: Meter | None = None
        """measures what the device does, while there is one"""
        self._staging = Staging(self.stream, _pinned_buffer)
        self._staging_ahead = Staging(self.uploads, _pinned_buffer)
        self._is_downloading = False

    def array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return a zeroed array on the device; raises DeviceFailed where memory ends."""
        array = self.empty(shape, dtype)
        self.zero(array)
        return array

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return an array on the device with anything in it; as `array`."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        with self._counting:
            if self.bytes_taken + size > self.bytes_max:
                raise DeviceFailed(
                    f"memory: {size} bytes more than the {self.bytes_taken} that are taken exceed"
                    f" the {self.bytes_max} that may be"
                )
            with refusals(f"memory of {size} bytes"):
                array = cuda.device_array(shape, dtype)
            self.bytes_taken += size
        weakref.finalize(array, self._forget, size).atexit = False
        return array

    def _forget(self, size: int) -> None:
        with self._counting:
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

    def copy_in(self, source: NDArray[Any], target: Any) -> None:
        """Copy a C-contiguous host array to an equal one on the device, before later launches.

        The source may change as soon as this returns, unless it is pinned by this device's pool:
        then it must stay as it is until the results of later launches are fetched.
        """
        self._copy(source, target, self._staging)

    def copy_ahead(self, source: NDArray[Any], target: Any) -> None:
        """Do `copy_in` beside all launches, which have to wait for `mark_ahead` where they read it.

        One thread at a time; others may launch and copy meanwhile.
        """
        self._copy(source, target, self._staging_ahead)

    def _copy(self, source: NDArray[Any], target: Any, staging: Staging) -> None:
        if not source.size:
            return
        data = source.reshape(-1).view(np.uint8)
        bytes_target = target.reshape(int(target.size)).view(np.uint8)
        stream = staging.stream
        with refusals("copy to the device"), self._metered("copy_in", data.nbytes, stream):
            if self.pinned.holds(data):
                bytes_target.copy_to_device(data, stream=stream)
            else:
                staging.copy(data, bytes_target)

    def mark(self) -> Any:
        """Return an event behind everything that was launched until now."""
        return self._mark(self.stream)

    def mark_ahead(self) -> Any:
        """Return an event behind everything that was copied ahead until now."""
        return self._mark(self.uploads)

    def _mark(self, stream: Any) -> Any:
        with refusals("an event"):
            event = new_event()
            event.record(stream)
        return event

    def follow(self, event: Any) -> None:
        """Let later launches wait for an event."""
        with refusals("an event"):
            event.wait(self.stream)

    def wait_for(self, event: Any) -> None:
        """Wait for an event."""
        with refusals("an event"):
            event.synchronize()

    def fetch(self, array: Any) -> NDArray[Any]:
        """Return a device array on the host, in pinned memory; waits for all launches before it."""
        out = self.begin_fetch(array)
        self.wait()
        return out

    def begin_fetch(self, array: Any) -> NDArray[Any]:
        """Begin what `fetch` does: the array is complete after the next `wait`."""
        return self._begin_fetch(array, self.stream)

    def begin_fetch_beside(self, array: Any) -> NDArray[Any]:
        """Do `begin_fetch` beside later launches, none of which may write to the array."""
        with refusals("an event"):
            self.mark().wait(self.downloads)
        self._is_downloading = True
        return self._begin_fetch(array, self.downloads)

    def _begin_fetch(self, array: Any, stream: Any) -> NDArray[Any]:
        shape = tuple(int(extent) for extent in array.shape)
        out = self.pinned.take(shape, array.dtype)
        if out.size:
            with (
                refusals("copy from the device"),
                self._metered("copy_back", out.nbytes, stream),
            ):
                array.copy_to_host(out, stream=stream)
        return out

    def wait(self) -> None:
        """Wait for everything that was launched, and for what is fetched."""
        with refusals("a launch"):
            self.stream.synchronize()
            if self._is_downloading:
                self.downloads.synchronize()
                self._is_downloading = False

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
            self.wait_for(self.mark_ahead())
        for staging in (self._staging, self._staging_ahead):
            staging.close()
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
