"""The calls of CUDA's driver that a block makes, each as direct as Python can make it.

Numba compiles kernels and keeps them, NVIDIA's runtime compiler those in CUDA C; launches, copies
and events go straight to the driver, since Numba's own way costs ten times as much and a block has
a hundred of them. Every refusal comes out as `DeviceFailed`. Streams are handles; none of them
waits for the default stream.
"""

import contextlib
import struct
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, Protocol

import numpy as np
from numba import cuda, types
from numba.np.numpy_support import from_dtype

from kernels.gpu import nvrtc
from kernels.gpu.arrays import DeviceArray
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.grid import SIMULATED, THREADS
from kernels.gpu.memory import DriverMemory
from kernels.gpu.refusals import refusals
from kernels.layout import U8

_WORD: Final = (1 << 64) - 1
_NUMBERS: Final = {
    int: types.int64, np.int64: types.int64, np.uint64: types.uint64, np.uint32: types.uint32,
}  # fmt: skip
"""Types of numbers that are handed to kernels, and what Numba calls them."""
_TO_THE_END: Final = contextlib.ExitStack()
"""Keeps Numba from unloading kernels, which a device that was lost refuses: with a traceback for
each, around the one message that says what happened. They go with the process."""


class Driver(Protocol):
    """What a device offers. Addresses and sizes are bytes; streams and events are its own."""

    name: str
    compile_ns: dict[str, int]
    """of each kernel that was launched: on the host, for compiling it or loading what was kept"""

    def enter(self) -> None:
        """Make the device that of this thread; before anything else, at each piece of work."""

    def free_bytes(self) -> int:
        """Return how much memory nobody has taken."""

    def allocate(self, size: int) -> tuple[Any, int]:
        """Return what gives `size` bytes back when it dies, and their address."""

    def pinned(self, size: int) -> U8:
        """Return `size` bytes of locked pages of the host."""

    def give_back(self) -> None:
        """Give memory back that died; nothing that is under way may name it."""

    def new_stream(self) -> Any:
        """Return a stream."""

    def new_event(self, *, is_timed: bool = False) -> Any:
        """Return an event."""

    def record(self, event: Any, stream: Any) -> None:
        """Put an event into a stream."""

    def follow(self, stream: Any, event: Any) -> None:
        """Let a stream wait for an event as it was recorded last."""

    def wait_event(self, event: Any) -> None:
        """Wait for an event."""

    def elapsed_ns(self, start: Any, stop: Any) -> int:
        """Return the time between two timed events that have passed."""

    def wait(self, stream: Any) -> None:
        """Wait for everything in a stream."""

    def copy_in(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy from pinned memory of the host."""

    def copy_out(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy to pinned memory of the host."""

    def copy_within(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy on the device."""

    def fill(self, target: int, byte: int, size: int, stream: Any) -> None:
        """Set bytes."""

    def launch(self, kernel: Any, blocks: int, arguments: tuple[Any, ...], stream: Any) -> None:
        """Run a kernel on so many blocks of THREADS threads; one signature per kernel."""

    def load_source(self, name: str, source: str, options: tuple[str, ...]) -> Any:
        """Return the kernel `name` of a text in CUDA C."""

    def launch_source(self, kernel: Any, blocks: int, threads: int, words: tuple[int, ...],
                      stream: Any) -> None:  # fmt: skip
        """Run a kernel of CUDA C; words: its arguments, addresses and unsigned numbers."""


def open_driver() -> Driver:
    """Open the first device, or Numba's simulator where it was chosen; raises DeviceFailed."""
    if SIMULATED:
        from kernels.gpu.simulated_driver import SimulatedDriver  # knows the simulator's inner part

        return SimulatedDriver()
    return CudaDriver()


class Event:
    """A handle that is used again when nobody names it any more."""

    __slots__ = ("_pool", "handle")

    def __init__(self, handle: Any, pool: list[Any]) -> None:
        """Go back to `pool`, whose append needs no lock, in the end."""
        self.handle = handle
        self._pool = pool

    def __del__(self) -> None:
        """Go back."""
        self._pool.append(self.handle)


class CudaDriver:
    """Implements `Driver` by NVIDIA's bindings, in the context that Numba has made."""

    def __init__(self) -> None:
        """Open the first device."""
        self._thread = threading.local()
        self._cu = import_module("cuda.bindings.driver")
        self.enter()
        self.free_bytes()  # which a lost one refuses to say
        self._memory = DriverMemory(self._cu)
        _TO_THE_END.enter_context(cuda.current_context().defer_cleanup())
        name = cuda.current_context().device.name
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.compile_ns: dict[str, int] = {}
        self._events: dict[bool, list[Any]] = {False: [], True: []}
        self._entries: dict[Any, _Entry] = {}
        """by kernel"""

    def enter(self) -> None:
        """See Driver.enter."""
        if not getattr(self._thread, "is_in", False):
            with refusals("the device"):
                cuda.current_context()
            self._thread.is_in = True

    def free_bytes(self) -> int:
        """See Driver.free_bytes."""
        with refusals("memory"):
            return int(cuda.current_context().get_memory_info().free)

    def allocate(self, size: int) -> tuple[Any, int]:
        """See Driver.allocate."""
        return self._memory.allocate(size)

    def pinned(self, size: int) -> U8:
        """See Driver.pinned."""
        return self._memory.pinned(size)

    def give_back(self) -> None:
        """See Driver.give_back."""
        self._memory.give_back()

    def new_stream(self) -> Any:
        """See Driver.new_stream."""
        flags = self._cu.CUstream_flags.CU_STREAM_NON_BLOCKING
        return self._checked("a stream", self._cu.cuStreamCreate(flags))

    def new_event(self, *, is_timed: bool = False) -> Event:
        """See Driver.new_event."""
        pool = self._events[is_timed]
        with contextlib.suppress(IndexError):
            return Event(pool.pop(), pool)
        flags = self._cu.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if is_timed else flags.CU_EVENT_DISABLE_TIMING
        return Event(self._checked("an event", self._cu.cuEventCreate(flag)), pool)

    def record(self, event: Event, stream: Any) -> None:
        """See Driver.record."""
        self._check("an event", self._cu.cuEventRecord(event.handle, stream))

    def follow(self, stream: Any, event: Event) -> None:
        """See Driver.follow."""
        self._check("an event", self._cu.cuStreamWaitEvent(stream, event.handle, 0))

    def wait_event(self, event: Event) -> None:
        """See Driver.wait_event."""
        self._check("an event", self._cu.cuEventSynchronize(event.handle))

    def elapsed_ns(self, start: Event, stop: Event) -> int:
        """See Driver.elapsed_ns."""
        result = self._cu.cuEventElapsedTime(start.handle, stop.handle)
        return int(1_000_000 * self._checked("an event", result))

    def wait(self, stream: Any) -> None:
        """See Driver.wait; what a launch did wrong is said here."""
        self._check("a launch", self._cu.cuStreamSynchronize(stream))

    def copy_in(self, target: int, source: int, size: int, stream: Any) -> None:
        """See Driver.copy_in."""
        result = self._cu.cuMemcpyHtoDAsync(target, source, size, stream)
        self._check("a copy to the device", result)

    def copy_out(self, target: int, source: int, size: int, stream: Any) -> None:
        """See Driver.copy_out."""
        result = self._cu.cuMemcpyDtoHAsync(target, source, size, stream)
        self._check("a copy from the device", result)

    def copy_within(self, target: int, source: int, size: int, stream: Any) -> None:
        """See Driver.copy_within."""
        result = self._cu.cuMemcpyDtoDAsync(target, source, size, stream)
        self._check("a copy on the device", result)

    def fill(self, target: int, byte: int, size: int, stream: Any) -> None:
        """See Driver.fill."""
        self._check("filling", self._cu.cuMemsetD8Async(target, byte, size, stream))

    def launch(self, kernel: Any, blocks: int, arguments: tuple[Any, ...], stream: Any) -> None:
        """See Driver.launch."""
        words: list[bytes] = []
        kinds: list[Any] = []
        for argument in arguments:
            if type(argument) is DeviceArray:
                words.append(argument.words)
                kinds.append(argument.kind)
            else:
                words.append((int(argument) & _WORD).to_bytes(8, "little"))
                kinds.append(_NUMBERS[type(argument)])
        entry = self._entries.get(kernel)
        if entry is None or entry.kinds != kinds:
            start_ns = time.perf_counter_ns()
            entry = self._entries[kernel] = _Entry(kernel, kinds, words)
            self.compile_ns[kernel.__name__] = time.perf_counter_ns() - start_ns
        pointers = entry.room.hold_bytes(b"".join(words))
        result = self._cu.cuLaunchKernel(
            entry.handle, blocks, 1, 1, THREADS, 1, 1, 0, stream, pointers, 0
        )
        self._check(f"a launch of {kernel.__name__}", result)

    def load_source(self, name: str, source: str, options: tuple[str, ...]) -> "SourceKernel":
        """See Driver.load_source."""
        start_ns = time.perf_counter_ns()
        with refusals(f"compiling {name}"):
            major, minor = cuda.current_context().device.compute_capability
            image = nvrtc.compiled(name, source, options, 10 * major + minor)
            module = self._checked(f"loading {name}", self._cu.cuModuleLoadData(image))
            found = self._cu.cuModuleGetFunction(module, name.encode())
        kernel = SourceKernel(name, self._checked(f"loading {name}", found))
        self.compile_ns[name] = time.perf_counter_ns() - start_ns
        return kernel

    def launch_source(self, kernel: "SourceKernel", blocks: int, threads: int,
                      words: tuple[int, ...], stream: Any) -> None:  # fmt: skip
        """See Driver.launch_source; one launch of a kernel at a time."""
        if kernel.room is None:
            kernel.room = _Room(len(words))
        result = self._cu.cuLaunchKernel(
            kernel.function, blocks, 1, 1, threads, 1, 1, 0, stream, kernel.room.hold(words), 0
        )
        self._check(f"a launch of {kernel.name}", result)

    def _check(self, what: str, result: tuple[Any, ...]) -> None:
        if result[0] != 0:
            raise DeviceFailed(f"{what}: {result[0].name}")

    def _checked(self, what: str, result: tuple[Any, ...]) -> Any:
        self._check(what, result)
        return result[1]


class _Room:
    """Room for what one launch of a kernel is given; the driver copies it."""

    def __init__(self, words: int) -> None:
        """Hold so many words of 64 bits; an argument of fewer bits is the low ones of its word."""
        self._pack = struct.Struct(f"{words}Q").pack_into
        self._values = np.zeros(words, np.uint64)
        self._pointers = self._values.ctypes.data + 8 * np.arange(words, dtype=np.uint64)
        self._address = self._pointers.ctypes.data
        self._bytes = self._values.data.cast("B")

    def hold_bytes(self, words: bytes) -> int:
        """Do `hold` with words that stand in memory as they are; as many as there is room for."""
        self._bytes[:] = words
        return self._address

    def hold(self, words: Sequence[int]) -> int:
        """Take the words of the next launch; returns the address of their addresses."""
        self._pack(self._values.data, 0, *words)
        return self._address


class SourceKernel:
    """A kernel of CUDA C that is on the device."""

    __slots__ = ("function", "name", "room")

    def __init__(self, name: str, function: Any) -> None:
        """Know the driver's handle of it."""
        self.name = name
        self.function = function
        self.room: _Room | None = None


class _Entry:
    """A compiled kernel with room for its arguments."""

    def __init__(self, kernel: Any, kinds: list[Any], words: list[bytes]) -> None:
        """Compile for arguments of these kinds, or load what was compiled before."""
        self.kinds = kinds
        with refusals(f"compiling {kernel.__name__}"):
            compiled = kernel.compile(tuple(map(_type_of, kinds)))
            # Numba has no public name for the driver's handle of a kernel.
            function = compiled._codelibrary.get_cufunc()
        self.handle = int(getattr(function, "kernel", function).handle)
        self.keeps = (compiled, function)
        self.room = _Room(sum(map(len, words)) // 8)


def _type_of(kind: Any) -> Any:
    """Return Numba's type for what `DeviceArray.kind` says, or of a number, which it is."""
    if isinstance(kind, str):
        return types.Array(from_dtype(np.dtype(kind[0])), len(kind), "C")
    return kind
