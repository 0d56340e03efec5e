"""What a device spends its time on, for benchmarks: kernels and copies between events of its own.

A meter is put into `Device.meter` for a while. Events stand in the streams, so nothing waits for
the clock of the host; what is asked for between two `collect` is added up by name.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kernels.gpu.driver import Driver


@dataclass(slots=True)
class Span:
    """What one kind of work came to."""

    calls: int = 0
    items: int = 0
    """threads of launches, bytes of copies"""
    ns: int = 0
    """on the device"""


class Meter:
    """Events around everything that a device is given to do."""

    def __init__(self, driver: Driver) -> None:
        """Measure by events of this driver."""
        self._driver = driver
        self._marks: list[tuple[str, int, Any, Any]] = []

    @contextlib.contextmanager
    def span(self, name: str, items: int, stream: Any) -> Iterator[None]:
        """Measure what is put into a stream under `with`."""
        start, stop = (self._driver.new_event(is_timed=True) for _ in range(2))
        self._driver.record(start, stream)
        yield
        self._driver.record(stop, stream)
        self._marks.append((name, items, start, stop))

    def collect(self) -> dict[str, Span]:
        """Wait for all of it and return it by name, in the order of first calls."""
        spans: dict[str, Span] = {}
        for name, items, start, stop in self._marks:
            self._driver.wait_event(stop)
            span = spans.setdefault(name, Span())
            span.calls += 1
            span.items += items
            span.ns += self._driver.elapsed_ns(start, stop)
        self._marks.clear()
        return spans
