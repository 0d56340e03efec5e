"""Pageable memory on its way to a device: through two pinned buffers, one fills while one flies.

A driver copies pageable memory at a fraction of the speed, and waits for it. Buffers are made when
they are first needed: who keeps payloads in pinned memory needs none.
"""

from typing import Any, Final

from kernels.gpu.arrays import DeviceArray
from kernels.gpu.driver import Driver
from kernels.layout import U8

STAGING_BYTES: Final = 8 << 20
"""Of each of the two buffers."""


class Staging:
    """The buffers of one stream; one thread at a time."""

    def __init__(self, driver: Driver, stream: Any) -> None:
        """Copy in this stream."""
        self.stream = stream
        self._driver = driver
        self._buffers: list[tuple[U8, Any]] = []
        """each with the event behind the last copy out of it"""

    def copy(self, data: U8, target: DeviceArray) -> None:
        """Copy (n,) bytes to as many on the device; the source may change when this returns."""
        driver = self._driver
        if not self._buffers:
            for _ in range(2):
                self._buffers.append((driver.pinned(STAGING_BYTES), driver.new_event()))
                driver.record(self._buffers[-1][1], self.stream)
        for start in range(0, len(data), STAGING_BYTES):
            buffer, event = self._buffers[0]
            self._buffers.reverse()
            driver.wait_event(event)
            piece = data[start : start + STAGING_BYTES]
            buffer[: len(piece)] = piece
            address = target.address + start
            driver.copy_in(address, buffer.ctypes.data, len(piece), self.stream)
            driver.record(event, self.stream)

    def close(self) -> None:
        """Give the buffers back when nothing is on its way any more."""
        self._buffers.clear()
