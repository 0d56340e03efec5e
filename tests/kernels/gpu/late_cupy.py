"""What the driver uses of CuPy, on the host: as late as CUDA allows, with the real kernel.

Without a device the driver's order of copies, launches and waits would run nowhere. Here a stream
keeps what it was given and does it when somebody waits for it, so that verdicts that are read too
early, or pinned memory that is written too early, give wrong answers. Device memory begins as
noise. The kernel is the source as g++ compiles it, with the arguments of the device's.
"""

import ctypes
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import numpy as np

from kernels.layout import U8
from tests.kernels.gpu.ed25519_builds import HostBuild


class Stream:
    """Work that waits for somebody to wait for it."""

    current: "Stream | None" = None

    def __init__(self, non_blocking: bool) -> None:
        """Begin empty."""
        assert non_blocking, "the null stream would wait for all others"
        self.work: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        """Become the current stream."""
        assert Stream.current is None
        Stream.current = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Leave no stream current."""
        Stream.current = None

    def synchronize(self) -> None:
        """Do all work now."""
        work, self.work = self.work, []
        for item in work:
            item()


class Memory:
    """Bytes of the device, with checks of room."""

    def __init__(self, size: int) -> None:
        """Take `size` bytes of noise."""
        self.bytes: U8 = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        self.ptr = self.bytes.ctypes.data
        self.data = self

    def copy_from_host_async(self, source: int, size: int, stream: Stream) -> None:
        """Let the stream copy from the host."""
        assert size <= len(self.bytes)
        stream.work.append(lambda: ctypes.memmove(self.ptr, source, size))

    def copy_to_host_async(self, target: int, size: int, stream: Stream) -> None:
        """Let the stream copy to the host."""
        assert size <= len(self.bytes)
        stream.work.append(lambda: ctypes.memmove(target, self.ptr, size))

    def memset_async(self, value: int, size: int, stream: Stream) -> None:
        """Let the stream fill memory."""
        assert size <= len(self.bytes)
        stream.work.append(lambda: ctypes.memset(self.ptr, value, size))


def pinned(size: int) -> Any:
    """Return an object with a buffer of `size` bytes and its address, like CuPy's."""
    address = property(ctypes.addressof)
    return type("Pinned", (ctypes.c_uint8 * size,), {"ptr": address})()


class Device:
    """A context that does nothing: there is one device."""

    def __init__(self, index: int) -> None:
        """Take the first."""
        assert index == 0

    def __enter__(self) -> None:
        """Become current."""

    def __exit__(self, *error: object) -> None:
        """Leave."""


def address(argument: Any) -> int:
    """Return where rows lie: memory of CuPy, or an address as it is."""
    return int(argument) if isinstance(argument, np.uint64) else argument.ptr


class Kernel:
    """The kernel `verify`, with its launch checked."""

    def __init__(self, library: Any) -> None:
        """Use what g++ compiled."""
        self.library = library
        self.is_broken = False
        self.launches: list[int] = []

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        """Let the current stream run it."""
        keys, signatures, messages, length, wide, count, tables, verdicts = arguments
        assert Stream.current is not None
        assert all(item.dtype == np.uint32 for item in (length, wide, count))
        assert (grid[0] - 1) * block[0] < count <= grid[0] * block[0]
        assert len(tables.bytes) >= int(count) * 1216
        self.launches.append(int(count))

        def work() -> None:
            if not self.is_broken:
                pointers = [ctypes.c_uint64(address(item)) for item in (keys, signatures, messages)]
                numbers = [ctypes.c_uint32(int(item)) for item in (length, wide, count)]
                self.library.verify(*pointers, *numbers, ctypes.c_uint64(verdicts.ptr))

        Stream.current.work.append(work)


def late_cupy() -> Any:
    """Return a module with what `kernels.gpu.ed25519` uses; `kernel` is what it launches."""
    kernel = Kernel(HostBuild().library)
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1, getDeviceProperties=lambda index: {"name": b"late host"}
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        Stream=Stream,
        Device=Device,
        alloc_pinned_memory=pinned,
    )
    pool = SimpleNamespace(free_all_blocks=lambda: None)
    return SimpleNamespace(
        cuda=cuda,
        get_default_memory_pool=lambda: pool,
        get_default_pinned_memory_pool=lambda: pool,
        kernel=kernel,
        RawModule=lambda **_: SimpleNamespace(get_function=lambda name: kernel),
        empty=lambda size, dtype: Memory(size),
    )
