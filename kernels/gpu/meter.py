"""What a device spends its time on, for benchmarks: kernels and copies between events of its own.

A meter is put into `Device.meter` for a while. Events stand in the streams, so nothing waits for
the clock of the host; what is asked for between two `collect` is added up by name.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numba import cuda

from kernels.gpu.grid import SIMULATED


@dataclass(slots=True)
class Span:
    """What one kind of work came to."""

    calls: int = 0
    items: int = 0
    """threads of launches, bytes of copies"""
    ns: int = 0
    """on the device"""
    first_ns: int = 0
    """on the host, of the first call since the process began: compiling or loading the kernel"""


class Meter:
    """Events around everything that a device is given to do."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        """clock_ns: the host's clock, for first calls."""
        self._clock_ns = clock_ns
        self._marks: list[tuple[str, int, Any, Any]] = []
        self._first_ns: dict[str, int] = {}

    @contextlib.contextmanager
    def span(self, name: str, items: int, stream: Any) -> Iterator[None]:
        """Measure what is put into a stream under `with`."""
        start, stop = cuda.event(), cuda.event()
        began_ns = self._clock_ns()
        start.record(stream)
        yield
        stop.record(stream)
        self._first_ns.setdefault(name, self._clock_ns() - began_ns)
        self._marks.append((name, items, start, stop))

    def collect(self) -> dict[str, Span]:
        """Wait for all of it and return it by name, in the order of first calls."""
        spans: dict[str, Span] = {}
        for name, items, start, stop in self._marks:
            stop.synchronize()
            span = spans.setdefault(name, Span(first_ns=self._first_ns[name]))
            span.calls += 1
            span.items += items
            # Events of the simulator have no time, and say so in a warning.
            span.ns += 0 if SIMULATED else int(1_000_000 * start.elapsed_time(stop))
        self._marks.clear()
        return spans
