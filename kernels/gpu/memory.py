"""Memory of a device and locked pages of the host, given back by whoever asks the driver next.

What names memory may die on any thread, also on one that has never seen the device, and in the
middle of anything; the driver takes memory back only from threads that have entered its context,
and lets them wait until the device has nothing to do. So addresses of what died are kept till then.
"""

import ctypes
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from kernels.gpu.failures import DeviceFailed
from kernels.layout import U8

_OUT_OF_MEMORY: Final = "CUDA_ERROR_OUT_OF_MEMORY"
PAGE_LOCKED: Final = 0
"""The flag of pages that one context has locked, for copies alone."""


class Held:
    """Names memory at an address; when it dies, the address goes to those that are given back."""

    __slots__ = ("_address", "_dead")

    def __init__(self, address: int, dead: "deque[int]") -> None:
        """dead: takes addresses on any thread."""
        self._address = address
        self._dead = dead

    def __del__(self) -> None:
        """Be given back later."""
        self._dead.append(self._address)


class DriverMemory:
    """Both kinds of memory of the process, which has one context; called by who has entered it."""

    _dead: Final[deque[int]] = deque()
    _dead_pages: Final[deque[int]] = deque()
    """Also what somebody left who has closed a device: whoever comes next gives it back."""

    def __init__(self, cu: Any) -> None:
        """cu: the bindings of the driver."""
        self._cu = cu

    def allocate(self, size: int) -> tuple[Held, int]:
        """Return what names `size` bytes of the device, and their address; raises DeviceFailed."""
        address = int(self._taken(f"memory of {size} bytes", lambda: self._cu.cuMemAlloc(size)))
        return Held(address, self._dead), address

    def pinned(self, size: int) -> U8:
        """Return `size` bytes of locked pages of the host; raises DeviceFailed."""
        what = f"pinned memory of {size} bytes"
        address = int(self._taken(what, lambda: self._cu.cuMemHostAlloc(size, PAGE_LOCKED)))
        memory: Any = (ctypes.c_uint8 * size).from_address(address)
        memory.held = Held(address, self._dead_pages)  # as long as any view of it
        return np.frombuffer(memory, np.uint8)

    def give_back(self) -> None:
        """Give back what died; nothing that is under way may name it.

        What a lost device refuses to take goes with the process, and its loss was said already.
        """
        for dead, free in (
            (self._dead, self._cu.cuMemFree), (self._dead_pages, self._cu.cuMemFreeHost),
        ):  # fmt: skip
            while dead:
                free(dead.popleft())

    def _taken(self, what: str, ask: Callable[[], tuple[Any, ...]]) -> Any:
        """Return what the driver gives, asked again when what died has been given back."""
        result = ask()
        if result[0] != 0 and result[0].name == _OUT_OF_MEMORY:
            self.give_back()
            result = ask()
        if result[0] != 0:
            raise DeviceFailed(f"{what}: {result[0].name}")
        return result[1]
