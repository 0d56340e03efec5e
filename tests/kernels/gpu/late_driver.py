"""A driver on the host: as late as CUDA allows, with the real verifier of signatures.

Without a device and its packages the verifier's order of copies, launches and waits would run
nowhere. Here a stream keeps what it was given and does it when somebody waits for it, so that
verdicts that are read too early, or pinned memory that is written too early, give wrong answers.
Device memory begins as noise. The kernel is the source as g++ compiles it, with the arguments of
the device's.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.gpu.ed25519_source import BLOCK_THREADS, KEY_TABLE_BYTES
from kernels.layout import U8
from tests.kernels.gpu.ed25519_builds import HostBuild

Stream = list[Callable[[], object]]
"""Work that waits for somebody to wait for it."""


class LateDriver:
    """Implements of `kernels.gpu.driver.Driver` what the verifier needs."""

    name = "late host"

    def __init__(self) -> None:
        """Have no memory taken."""
        self.compile_ns: dict[str, int] = {}
        self.is_broken = False
        """Launches do nothing."""
        self.launches: list[int] = []
        """rows of each"""
        self._library = HostBuild().library
        self._sizes: dict[int, int] = {}
        """of memory by its address"""

    def enter(self) -> None:
        """Stay."""

    def free_bytes(self) -> int:
        """Return what a device has."""
        return 1 << 30

    def allocate(self, size: int) -> tuple[Any, int]:
        """Take memory full of noise."""
        owner = np.random.default_rng(size).integers(0, 256, size + 16, np.uint8)
        address = -(-owner.ctypes.data // 16) * 16
        self._sizes[address] = size
        return owner, address

    def pinned(self, size: int) -> U8:
        """Take memory full of noise."""
        return np.random.default_rng(size).integers(0, 256, size, np.uint8)

    def give_back(self) -> None:
        """Leave it to the host."""

    def new_stream(self) -> Stream:
        """Return an empty one."""
        return []

    def wait(self, stream: Stream) -> None:
        """Do all work now."""
        while stream:
            stream.pop(0)()

    def copy_in(self, target: int, source: int, size: int, stream: Stream) -> None:
        """Let the stream copy from the host."""
        assert size <= self._sizes[target]
        stream.append(lambda: ctypes.memmove(target, source, size))

    def copy_out(self, target: int, source: int, size: int, stream: Stream) -> None:
        """Let the stream copy to the host."""
        assert size <= self._sizes[source]
        stream.append(lambda: ctypes.memmove(target, source, size))

    def fill(self, target: int, byte: int, size: int, stream: Stream) -> None:
        """Let the stream fill memory."""
        assert size <= self._sizes[target]
        stream.append(lambda: ctypes.memset(target, byte, size))

    def load_source(self, name: str, source: str, options: tuple[str, ...]) -> Any:
        """Return the kernel that g++ made of that text."""
        return self._library[name]

    def launch_source(
        self, kernel: Any, blocks: int, threads: int, words: tuple[int, ...], stream: Stream
    ) -> None:
        """Let the stream run the kernel, with its launch checked."""
        keys, signatures, messages, length, wide, count, tables, verdicts = words
        assert (blocks - 1) * threads < count <= blocks * threads
        assert threads == BLOCK_THREADS
        assert self._sizes[tables] >= count * KEY_TABLE_BYTES
        assert self._sizes[verdicts] >= count
        self.launches.append(count)

        def work() -> None:
            if not self.is_broken:
                pointers = [ctypes.c_uint64(item) for item in (keys, signatures, messages)]
                numbers = [ctypes.c_uint32(item) for item in (length, wide, count)]
                kernel(*pointers, *numbers, ctypes.c_uint64(verdicts))

        stream.append(work)
