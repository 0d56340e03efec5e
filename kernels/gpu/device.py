"""A device: its memory, counted and bounded, its streams, and copies through pinned buffers.

Whatever the driver refuses (memory, a launch, a device that is gone) comes out as `DeviceFailed`;
whoever asked does the same work on the CPU. Nothing here is imported where no device is used.
Kernels run in one stream, in the order of their launches. A block's columns come in a stream of
their own while the block before them runs (see `uploads`), and what is fetched beside launches
leaves in a third one. Copies to and from the host go through buffers of locked pages, of which the
pool keeps some. Read `driver` for the calls below, `resident` next.
"""

import contextlib
import math
import threading
import weakref
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kernels.gpu.arrays import DeviceArray
from kernels.gpu.driver import open_driver
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.grid import THREADS, blocks_for
from kernels.gpu.meter import Meter
from kernels.gpu.pinned import PinnedPool
from kernels.gpu.staging import Staging
from kernels.layout import U8

RESERVE_SHIFT: Final = 4
"""1/16 of the device's memory is left to the driver, to compiled code and to others."""
SMALL_BYTES: Final = 1 << 20
"""Pageable arrays of at most so many bytes fly from pinned ones of their own."""
FLYING_MAX: Final = 256
"""Of those; beyond, whoever copies waits."""


class Device:
    """The first device that this process sees."""

    def __init__(self, bytes_max: int | None = None) -> None:
        """Open it; bytes_max: of memory that may be taken, None: most of what is free now."""
        self.driver = open_driver()
        """for those who have streams of their own"""
        self.name = self.driver.name
        self.stream = self.driver.new_stream()
        self.uploads = self.driver.new_stream()
        self.downloads = self.driver.new_stream()
        free = self.driver.free_bytes()
        self.bytes_max = free - (free >> RESERVE_SHIFT) if bytes_max is None else bytes_max
        self.bytes_taken = 0
        """of device memory, by arrays that are alive or died since the last `wait`"""
        self.lock = threading.RLock()
        """is held through every piece of work: pool and queries hash while a block is executed"""
        self.meter: Meter | None = None
        """measures what the device does, while there is one"""
        self._counting = threading.RLock()
        self.pinned = PinnedPool(self.driver.pinned)
        self._staging = Staging(self.driver, self.stream)
        self._staging_ahead = Staging(self.driver, self.uploads)
        self._flying: list[NDArray[Any]] = []
        """pinned arrays of copies that nobody waited for: their buffers may not be lent again"""
        self._is_downloading = False
        self._dying: list[tuple[int, Any]] = []
        """memory of arrays that are gone, which launches of before may still use"""

    # Memory

    def array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """Return a zeroed array on the device; raises DeviceFailed where memory ends."""
        array = self.empty(shape, dtype)
        self.zero(array)
        return array

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """Return an array on the device with anything in it; as `array`."""
        extents, kind = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
        size = math.prod(extents) * kind.itemsize
        if not size:
            return DeviceArray(None, 0, extents, kind)
        self.driver.enter()
        if self._dying and self.bytes_taken + size > self.bytes_max:
            self.wait()
        with self._counting:
            if self.bytes_taken + size > self.bytes_max:
                raise DeviceFailed(
                    f"memory: {size} bytes more than the {self.bytes_taken} that are taken exceed"
                    f" the {self.bytes_max} that may be"
                )
            memory, address = self.driver.allocate(size)
            self.bytes_taken += size
        owner = _Owner()
        # Freeing would wait for all launches, in the middle of a block: `wait` does it.
        weakref.finalize(owner, self._dying.append, (size, memory)).atexit = False
        return DeviceArray(owner, address, extents, kind)

    def zero(self, array: DeviceArray) -> None:
        """Set all bytes of an array to zero."""
        if array.nbytes:
            self.driver.enter()
            self.driver.fill(array.address, 0, array.nbytes, self.stream)

    # Copies

    def put(self, array: NDArray[Any]) -> DeviceArray:
        """Return a copy of a host array on the device."""
        target = self.empty(array.shape, array.dtype)
        self.copy_in(np.ascontiguousarray(array), target)
        return target

    def copy_in(self, source: NDArray[Any], target: DeviceArray) -> None:
        """Copy a C-contiguous host array to an equal one on the device, before later launches.

        The source may change as soon as this returns, unless it is pinned by this device's pool:
        then it must stay as it is until the results of later launches are fetched.
        """
        self._copy(source, target, self._staging)

    def copy_ahead(self, source: NDArray[Any], target: DeviceArray) -> None:
        """Do `copy_in` beside all launches, which have to wait for `mark_ahead` where they read it.

        One thread at a time; others may launch and copy meanwhile. A pinned source has to be kept
        until that event has passed.
        """
        self._copy(source, target, self._staging_ahead)

    def _copy(self, source: NDArray[Any], target: DeviceArray, staging: Staging) -> None:
        assert source.nbytes == target.nbytes, (source.shape, target.shape)
        assert source.flags.c_contiguous, "bytes are copied as they lie"
        if not source.nbytes:
            return
        self.driver.enter()
        is_ahead = staging is self._staging_ahead
        is_pinned = self.pinned.holds(source)
        with self.metered("copy_in", source.nbytes, staging.stream):
            if not is_pinned and (is_ahead or source.nbytes > SMALL_BYTES):
                staging.copy(source.reshape(-1).view(np.uint8), target)
                return
            flying = source if is_pinned else self._pinned_copy(source)
            if not is_ahead:
                self._keep(flying)
            self.driver.copy_in(target.address, flying.ctypes.data, source.nbytes, staging.stream)

    def _pinned_copy(self, source: NDArray[Any]) -> U8:
        copy: U8 = self.pinned.take((source.nbytes,), np.uint8)
        copy[:] = source.reshape(-1).view(np.uint8)
        return copy

    def _keep(self, array: NDArray[Any]) -> None:
        """Keep an array until the next `wait`."""
        if len(self._flying) == FLYING_MAX:
            self.wait()
        self._flying.append(array)

    def copy_within(self, source: DeviceArray, target: DeviceArray) -> None:
        """Copy an array to another one of as many bytes, between launches."""
        assert source.nbytes == target.nbytes, (source.shape, target.shape)
        if source.nbytes:
            self.driver.enter()
            self.driver.copy_within(target.address, source.address, source.nbytes, self.stream)

    def fetch(self, array: DeviceArray) -> NDArray[Any]:
        """Return a device array on the host, in pinned memory; waits for all launches before it."""
        out = self.begin_fetch(array)
        self.wait()
        return out

    def begin_fetch(self, array: DeviceArray) -> NDArray[Any]:
        """Begin what `fetch` does: the array is complete after the next `wait`."""
        return self._begin_fetch(array, self.stream)

    def begin_fetch_beside(self, *arrays: DeviceArray) -> list[NDArray[Any]]:
        """Do `begin_fetch` beside later launches, none of which may write to the arrays.

        They are complete after the next `wait` or `wait_for_fetched`.
        """
        self.driver.follow(self.downloads, self.mark())
        self._is_downloading = True
        return [self._begin_fetch(array, self.downloads) for array in arrays]

    def _begin_fetch(self, array: DeviceArray, stream: Any) -> NDArray[Any]:
        out, address = self.pinned.take_at(array.shape, array.dtype)
        if array.nbytes:
            self.driver.enter()
            self._keep(out)
            with self.metered("copy_back", array.nbytes, stream):
                self.driver.copy_out(address, array.address, array.nbytes, stream)
        return out

    # Order

    def mark(self) -> Any:
        """Return an event behind everything that was launched until now."""
        return self._mark(self.stream)

    def mark_ahead(self) -> Any:
        """Return an event behind everything that was copied ahead until now."""
        return self._mark(self.uploads)

    def _mark(self, stream: Any) -> Any:
        self.driver.enter()
        event = self.driver.new_event()
        self.driver.record(event, stream)
        return event

    def follow(self, event: Any) -> None:
        """Let later launches wait for an event."""
        self.driver.enter()
        self.driver.follow(self.stream, event)

    def wait_for(self, event: Any) -> None:
        """Wait for an event."""
        self.driver.enter()
        self.driver.wait_event(event)

    def wait(self) -> None:
        """Wait for everything that was launched, and for what is fetched."""
        self.driver.enter()
        dying = len(self._dying)
        self.driver.wait(self.stream)
        if self._is_downloading:
            self.driver.wait(self.downloads)
            self._is_downloading = False
        self._flying.clear()
        with self._counting:
            self.bytes_taken -= sum(size for size, _ in self._dying[:dying])
            del self._dying[:dying]
        self.driver.give_back()

    def wait_for_fetched(self) -> None:
        """Wait for what is fetched beside launches, while these go on."""
        self.driver.enter()
        self.driver.wait(self.downloads)
        self._is_downloading = False

    # Launches

    def launch(self, kernel: Any, count: int, *arguments: Any) -> None:
        """Run a kernel on `count` items, one thread each."""
        if count:
            self.launch_blocks(kernel, blocks_for(count), *arguments)

    def launch_blocks(self, kernel: Any, blocks: int, *arguments: Any) -> None:
        """Run a kernel on so many blocks of threads."""
        self.driver.enter()
        if self.meter is None:
            self.driver.launch(kernel, blocks, arguments, self.stream)
            return
        with self.meter.span(kernel.__name__, blocks * THREADS, self.stream):
            self.driver.launch(kernel, blocks, arguments, self.stream)

    @property
    def compile_ns(self) -> dict[str, int]:
        """Return what kernels took to compile, or to load; see Driver."""
        return self.driver.compile_ns

    def new_meter(self) -> Meter:
        """Return a meter that measures this device where it is put into `meter`."""
        return Meter(self.driver)

    def metered(
        self, name: str, items: int, stream: Any
    ) -> contextlib.AbstractContextManager[None]:
        """Measure what is put into a stream under `with`, while there is a meter."""
        return _UNMETERED if self.meter is None else self.meter.span(name, items, stream)

    def close(self) -> None:
        """Give the buffers back, when nothing copies from them any more; arrays go with owners."""
        with contextlib.suppress(DeviceFailed):  # a device that is lost copies nothing
            self.wait_for(self.mark_ahead())
            self.wait()
        for staging in (self._staging, self._staging_ahead):
            staging.close()
        self.pinned.close()


class _Owner:
    """What the views of an array hold on to: its memory may go when this is gone."""

    __slots__ = ("__weakref__",)


_UNMETERED: Final = contextlib.nullcontext()


class Arena:
    """Arrays that are used again in each block, by name: a device allocates slowly."""

    def __init__(self, device: Device) -> None:
        """Begin with none."""
        self._device = device
        self._buffers: dict[str, DeviceArray] = {}
        self._views: dict[str, DeviceArray] = {}
        """of each buffer the last one, which is often asked for again"""

    def take(self, name: str, shape: int | tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """Return an array with anything in it; the one that had this name before is gone."""
        extents, kind = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
        view = self._views.get(name)
        if view is not None and view.shape == extents and view.dtype == kind:
            return view
        size = max(1, math.prod(extents) * kind.itemsize)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < size:
            self._buffers.pop(name, None)
            self._views.pop(name, None)
            view = buffer = None  # the old one goes before there is a new one
            buffer = self._device.empty(1 << (size - 1).bit_length(), np.uint8)
            self._buffers[name] = buffer
        view = self._views[name] = buffer.seen_as(kind, extents)
        return view

    def put(self, name: str, array: NDArray[Any]) -> DeviceArray:
        """Return a copy of a host array under a name."""
        target = self.take(name, array.shape, array.dtype)
        self._device.copy_in(np.ascontiguousarray(array), target)
        return target
