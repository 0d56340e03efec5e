"""Time as the standard library takes it, from the milliseconds that everything else has."""

import time
from datetime import timedelta
from typing import Any, Protocol

NS_PER_MS = 1_000_000


def seconds(milliseconds: int) -> Any:
    """Return what waiting functions of the standard library take."""
    return timedelta(milliseconds=milliseconds).total_seconds()


class Clock(Protocol):
    """The two clocks of a node."""

    def now_ms(self) -> int:
        """Return the time of a clock that never goes back."""

    def wall_ms(self) -> int:
        """Return the time since 1970, which may jump."""


class SystemClock:
    """The clocks of this machine, the wall clock off by what a test asks for."""

    def __init__(self, offset_ms: int = 0) -> None:
        """Add so much to the wall clock."""
        self._offset_ms = offset_ms

    def now_ms(self) -> int:
        """Return the monotonic clock."""
        return time.monotonic_ns() // NS_PER_MS

    def wall_ms(self) -> int:
        """Return the wall clock."""
        return time.time_ns() // NS_PER_MS + self._offset_ms
