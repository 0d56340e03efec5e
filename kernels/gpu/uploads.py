"""Blocks on the device: the one that is executed, and those that were announced, beside it.

A block that is announced is copied in a stream of its own, by any thread, while the present one is
executed; launches on it wait for the event behind its copy. There are three places: one block runs,
the next one is there, and one more is on its way. A place is written again when everything that
read it, or was on its way into it, has come to an end.
"""

import threading
from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from kernels.gpu.arrays import DeviceArray
from kernels.gpu.columns import DeviceColumns, copy_columns
from kernels.gpu.device import Arena, Device
from kernels.gpu.failures import DeviceFailed
from kernels.layout import Columns

PLACES: Final = 3


@dataclass(slots=True, eq=False)
class Place:
    """Where one block's columns lie on the device."""

    arena: Arena
    source: Columns | None = None
    """what was copied, or is being copied"""
    columns: DeviceColumns | None = None
    events: list[Any] = field(default_factory=list)
    """behind the copy into it, and behind the launches that read it"""
    filled: threading.Event = field(default_factory=threading.Event)
    """unset while a thread copies into it"""
    failure: DeviceFailed | None = None

    def __post_init__(self) -> None:
        """Begin with nobody copying."""
        self.filled.set()

    def is_of(self, columns: Columns) -> bool:
        """Say whether these very columns are here, or on their way; asked by any thread."""
        source = self.source
        if source is None:
            return False
        pairs: Any = zip(source, columns, strict=True)
        return all(_is_same(one, other) for one, other in pairs)


class Uploads:
    """The places. `get`, `find` and `twin` are called under the device's lock, by one at a time."""

    def __init__(self, device: Device) -> None:
        """Begin with none."""
        self._device = device
        self._present = Place(Arena(device))
        self._free = [Place(Arena(device)) for _ in range(PLACES - 1)]
        self._waiting: list[Place] = []
        """announced and not yet executed, in the order of announcement"""
        self._copying = threading.Lock()
        """one block is on its way at a time"""
        self._lock = threading.Lock()
        """over the lists"""

    def prefetch(self, columns: Columns) -> None:
        """Begin to copy a block that will be executed; raises DeviceFailed.

        Nothing happens where it is there or no place is free: then it is copied when its turn
        comes. Pinned sources fly when this returns, others have left; none of them may change.
        """
        with self._copying:
            with self._lock:
                is_known = any(place.is_of(columns) for place in (self._present, *self._waiting))
                if is_known or not self._free:
                    return
                place = self._free.pop()
                place.filled.clear()
                place.source, place.columns, place.failure = columns, None, None
                self._waiting.append(place)
            try:
                self._empty(place)
                place.columns = copy_columns(
                    self._device, place.arena, columns, self._device.copy_ahead
                )
                place.events.append(self._device.mark_ahead())
            except DeviceFailed as failure:
                place.failure = failure
                raise
            finally:
                place.filled.set()

    def get(self, columns: Columns) -> DeviceColumns:
        """Return a block's columns for the launches that come next; copies what is not there."""
        if not self._present.is_of(columns):
            place = self._announced(columns)
            if place is None:
                place = self._copied(columns)
            before, self._present = self._present, place
            before.source = None
            before.events = [self._device.mark()]
            with self._lock:
                self._free.append(before)
        assert self._present.columns is not None, "it was announced or copied"
        return self._present.columns

    def find(self, columns: Columns) -> DeviceColumns | None:
        """Return the present block's columns if these are they."""
        return self._present.columns if self._present.is_of(columns) else None

    def twin(self, array: NDArray[Any]) -> DeviceArray | None:
        """Return the device's copy of a column of the present block, or None if it is none."""
        source, there = self._present.source, self._present.columns
        if source is None or there is None or array.flags.writeable:
            return None
        for host, column in zip(source, there, strict=True):
            if host is array:
                return column
        return None

    # Parts

    def _announced(self, columns: Columns) -> Place | None:
        """Take a block out of those that wait, with all that were announced before it."""
        with self._lock:
            index = next((i for i, place in enumerate(self._waiting) if place.is_of(columns)), None)
            if index is None:
                return None
            *passed, place = self._waiting[: index + 1]
            del self._waiting[: index + 1]
            for other in passed:
                other.source = None
            self._free += passed
        place.filled.wait()
        if place.failure is not None:
            raise place.failure
        self._device.follow(place.events[-1])
        return place

    def _copied(self, columns: Columns) -> Place:
        """Copy a block that was not announced, if need be in the place of one that was."""
        with self._lock:
            place = self._free.pop() if self._free else self._waiting.pop(0)
        place.filled.wait()
        self._empty(place)
        place.source = columns
        place.columns = copy_columns(self._device, place.arena, columns, self._device.copy_in)
        return place

    def _empty(self, place: Place) -> None:
        """Wait until nothing reads a place and nothing is on its way into it."""
        for event in place.events:
            self._device.wait_for(event)
        place.events.clear()


def _is_same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Say whether two arrays are the same read-only memory, seen alike."""
    if one.flags.writeable or other.flags.writeable:
        return False
    if one is other:
        return True
    is_alike = one.shape == other.shape and one.dtype == other.dtype
    is_flat = one.flags.c_contiguous and other.flags.c_contiguous
    return is_alike and is_flat and one.ctypes.data == other.ctypes.data
