"""Who may come in, and who is next: NewPayload runs one at a time, in the order of arrival.

Bounded in calls and in bytes, so that neither waiting callers nor announced payloads can fill the
memory. Spec: spec/engine_api.md#limits.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from engine_api.protocol import Deadline
from engine_api.types import WAITING_MAX, EngineApiError, ErrorCode

MS_PER_S = 1_000
POLL_MS = 50
"""how often a waiting call looks whether its caller has gone"""


class Gate:
    """A queue of at most WAITING_MAX calls before the one that runs."""

    def __init__(self, bytes_max: int, waiting_max: int = WAITING_MAX) -> None:
        """Let payloads of `bytes_max` bytes be in memory, all calls taken together."""
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._places = 0
        self._bytes = 0
        self._bytes_max = bytes_max
        self._places_max = waiting_max + 1

    @contextmanager
    def place(self, bytes_count: int) -> Iterator[None]:
        """Hold a place and memory from the first byte of a call on; raises RESOURCE_EXHAUSTED."""
        with self._condition:
            if self._places == self._places_max:
                raise EngineApiError(
                    ErrorCode.RESOURCE_EXHAUSTED,
                    f"{self._places_max - 1} calls of NewPayload wait already: call again later",
                )
            if self._bytes + bytes_count > self._bytes_max:
                raise EngineApiError(
                    ErrorCode.RESOURCE_EXHAUSTED,
                    f"payloads of {self._bytes} bytes are in memory, at most {self._bytes_max} may "
                    f"be, and this one has {bytes_count}: call again later",
                )
            self._places += 1
            self._bytes += bytes_count
        try:
            yield
        finally:
            with self._condition:
                self._places -= 1
                self._bytes -= bytes_count

    @contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Wait for all who came before, then hold the turn; raises DEADLINE_EXCEEDED."""
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket:
                    deadline.check("execution; the call was still waiting for its turn")
                    self._condition.wait(timeout=POLL_MS / MS_PER_S)
                deadline.check("execution; the call was still waiting for its turn")
            except BaseException:
                self._leave(ticket)
                raise
        try:
            yield
        finally:
            with self._condition:
                self._leave(ticket)

    def _leave(self, ticket: object) -> None:
        self._queue.remove(ticket)
        self._condition.notify_all()
