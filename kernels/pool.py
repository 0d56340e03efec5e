"""Threads for kernels: ranges of one array, each run by a `nogil` kernel on its own thread.

`concurrent.futures` starts a range in about 20 us and does not suffer when another process is busy
on the same cores, where OpenMP's barrier costs milliseconds per call.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

THREADS_MAX = 1024
"""Upper bound of a pool, far above any machine that is worth running on."""


class Pool:
    """A fixed number of threads, the caller's among them: it runs the first range itself."""

    def __init__(self, threads: int | None = None) -> None:
        """Have `threads` threads in [1, THREADS_MAX]; None means one per core."""
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        if not 1 <= self.threads <= THREADS_MAX:
            raise ValueError(f"threads must be in 1..{THREADS_MAX}, not {threads}")
        self._executor = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def ranges(self, count: int, *, grain: int) -> list[tuple[int, int]]:
        """Cut [0, count) into at most `threads` ranges of at least `grain` items each."""
        parts = max(1, min(self.threads, count // max(1, grain)))
        cuts = [count * part // parts for part in range(parts + 1)]
        return list(itertools.pairwise(cuts))

    def run(
        self, kernel: Callable[..., Any], ranges: list[tuple[int, int]], *arguments: Any
    ) -> list[Any]:
        """Call `kernel(*arguments, start, stop)` for each range; answers in the ranges' order."""
        if self._executor is None or len(ranges) == 1:
            return [kernel(*arguments, start, stop) for start, stop in ranges]
        futures = [self._executor.submit(kernel, *arguments, *item) for item in ranges[1:]]
        first = kernel(*arguments, *ranges[0])
        return [first, *[future.result() for future in futures]]

    def close(self) -> None:
        """End the threads; the pool is of no use afterwards."""
        if self._executor is not None:
            self._executor.shutdown()
