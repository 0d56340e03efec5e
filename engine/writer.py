"""The one thread that owns the chain, and the bounded queue of calls before it.

Whoever wants something of the chain hands a function over and waits. A call whose deadline passes
while it waits is taken out of the queue; one that runs stops where it asks its deadline itself.
What neither ends nor says that it goes on (`go_on`) for STEP_MS_MAX is locked up.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar

from engine_api.protocol import Deadline
from engine_api.types import EngineApiError, ErrorCode

WAITING_MAX = 64
"""Calls that wait; as many as a server lets in."""
STEP_MS_MAX = 600_000
"""For the longest piece of work between two signs of life, a block of four million transactions on
a host that verifies each signature by itself and on one thread: three times that. A disk on which
something takes longer is no place for a node."""
NS_PER_MS = 1_000_000
POLL_MS = 50
"""How often a waiting caller looks at its deadline."""

T = TypeVar("T")


def seconds(milliseconds: int) -> Any:
    """Return what waiting functions of the standard library take."""
    return timedelta(milliseconds=milliseconds).total_seconds()


class _Job(Generic[T]):
    """A function on its way through the queue."""

    __slots__ = ("deadline", "done", "error", "result", "what", "work")

    def __init__(self, what: str, work: Callable[[], T], deadline: Deadline) -> None:
        self.what = what
        self.work = work
        self.deadline = deadline
        self.done = threading.Event()
        self.result: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work unless nobody waits for it any more."""
        try:
            self.deadline.check(self.what)
            self.result = self.work()
        except BaseException as error:
            self.error = error
        self.done.set()


class Writer:
    """Runs functions one after the other on a thread of its own."""

    def __init__(
        self,
        waiting_max: int = WAITING_MAX,
        *,
        step_ms_max: int = STEP_MS_MAX,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Start the thread."""
        self._step_ms_max, self._clock_ns = step_ms_max, clock_ns
        self._sign_ns: int | None = None
        """of the last sign of life of what runs; None: nothing runs"""
        self._condition = threading.Condition()
        self._queue: deque[_Job[object]] = deque()
        self._waiting_max = waiting_max
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def call(self, what: str, work: Callable[[], T], deadline: Deadline) -> T:
        """Run `work` in its turn and return what it does, or raise what it raises.

        what: what is not begun when the deadline passes, for the error. Raises RESOURCE_EXHAUSTED,
        DEADLINE_EXCEEDED, UNAVAILABLE. Not to be called from the writer's own thread.
        """
        assert threading.current_thread() is not self._thread, "the writer would wait for itself"
        job = _Job[T](what, work, deadline)
        with self._condition:
            if self._is_closed:
                raise EngineApiError(ErrorCode.UNAVAILABLE, "the executor is stopping")
            if len(self._queue) >= self._waiting_max:
                raise EngineApiError(
                    ErrorCode.RESOURCE_EXHAUSTED,
                    f"{len(self._queue)} calls wait already: call again later",
                )
            self._queue.append(job)  # type: ignore[arg-type]  # the queue only runs it
            self._condition.notify()
        while not job.done.wait(seconds(POLL_MS)):
            if deadline.cancelled():
                self._withdraw(job)
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]  # it is set when there is no error

    def go_on(self) -> None:
        """Say, from work that has many long pieces, that another one begins."""
        self._sign_ns = self._clock_ns()

    def locked_up(self) -> str:
        """Say that the thread is locked up, and since when, or nothing; for any thread."""
        sign_ns = self._sign_ns
        silent_ms = 0 if sign_ns is None else (self._clock_ns() - sign_ns) // NS_PER_MS
        if silent_ms <= self._step_ms_max:
            return ""
        return f"the executor is locked up: its work has not moved for {silent_ms} ms"

    def check_moving(self) -> None:
        """Raise UNAVAILABLE where the thread is locked up."""
        if why := self.locked_up():
            raise EngineApiError(ErrorCode.UNAVAILABLE, why)

    def close(self) -> None:
        """Finish what runs and refuse what waits; no call comes in afterwards."""
        with self._condition:
            self._is_closed = True
            while self._queue:
                job = self._queue.popleft()
                job.error = EngineApiError(ErrorCode.UNAVAILABLE, "the executor is stopping")
                job.done.set()
            self._condition.notify()
        self._thread.join()

    def _withdraw(self, job: _Job[T]) -> None:
        """Take a job out of the queue if it has not begun, and raise for its deadline."""
        with self._condition:
            if job in self._queue:
                self._queue.remove(job)  # type: ignore[arg-type]  # the same object
                job.deadline.check(job.what)
                raise AssertionError("a deadline that is over stays over")

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._queue:
                    if self._is_closed:
                        return
                    self._condition.wait()
                job = self._queue.popleft()
            self.go_on()
            job.run()
            self._sign_ns = None
