"""Pageable memory on its way to a device: through two pinned buffers, one fills while one flies.

A driver copies pageable memory at a fraction of the speed, and waits for it. Buffers are made when
they are first needed: who keeps payloads in pinned memory needs none.
"""

from collections.abc import Callable
from typing import Any, Final

from kernels.gpu.grid import new_event
from kernels.layout import U8

STAGING_BYTES: Final = 8 << 20
"""Of each of the two buffers."""


class Staging:
    """The buffers of one stream; one thread at a time."""

    def __init__(self, stream: Any, make: Callable[[int], U8]) -> None:
        """make: returns a new pinned buffer of so many bytes."""
        self.stream = stream
        self._make = make
        self._buffers: list[tuple[U8, Any]] = []
        """each with the event behind the last copy out of it"""

    def copy(self, data: U8, target: Any) -> None:
        """Copy (n,) bytes to as many on the device; the source may change when this returns."""
        if not self._buffers:
            for _ in range(2):
                event = new_event()
                event.record(self.stream)
                self._buffers.append((self._make(STAGING_BYTES), event))
        for start in range(0, len(data), STAGING_BYTES):
            buffer, event = self._buffers[0]
            self._buffers.reverse()
            event.synchronize()
            piece = data[start : start + STAGING_BYTES]
            buffer[: len(piece)] = piece
            target[start : start + len(piece)].copy_to_device(
                buffer[: len(piece)], stream=self.stream
            )
            event.record(self.stream)

    def close(self) -> None:
        """Give the buffers back when nothing is on its way any more."""
        self._buffers.clear()
