"""Notices an own executor that lives and does not answer any more, so that it is started again.

A process that ends is noticed by its parent; one that is stopped or locked up is not. GetStatus
never waits for the executor's work (spec/engine_api.md), so an executor that has answered in its
life and then says nothing for SILENT_MAX_MS, asked again and again on a connection of its own,
does nothing else either; nor does one that says itself that it is locked up. How it is ended and
started: `supervisor.py`.
"""

import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from consensus.waiting import Clock, SystemClock, seconds
from engine_api.protocol import Deadline
from engine_api.types import EngineApiError, ErrorCode, StatusAnswer
from runtime.logs import Logger

SILENT_MAX_MS = 60_000
"""from the last answer to the end of an executor. Executing, reorganising, writing a snapshot and
recovering do not hold an answer back; what does is a machine that swaps or a disk that stalls, and
neither is mended by a restart that comes sooner."""
ASK_MS = 2_000
"""that a question waits for its answer"""
LOOK_MS = 2_000
"""from one question to the next"""
GAP_MAX_MS = 4 * (ASK_MS + LOOK_MS)
"""between two looks; after a longer one this process or its machine slept, so the executor may have
slept too, and silence is counted from new"""
assert SILENT_MAX_MS >= 2 * GAP_MAX_MS, "several questions go unanswered before an executor ends"
_NOBODY = (ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED)


class Sign(Enum):
    """What a look at the executor came to."""

    ANSWERED = auto()
    SILENT = auto()


class Asked(Protocol):
    """What is asked."""

    def get_status(self, deadline: Deadline) -> StatusAnswer:
        """Return a status; raises EngineApiError."""


class Silence:
    """How long an executor has been silent, life by life; without a thread or a clock."""

    def __init__(self, silent_max_ms: int = SILENT_MAX_MS, gap_max_ms: int = GAP_MAX_MS) -> None:
        """Begin before the first life."""
        self._silent_max_ms, self._gap_max_ms = silent_max_ms, gap_max_ms
        self._life = 0
        self._looked_ms: int | None = None
        self._heard_ms: int | None = None
        """when it answered last; None while it has not in this life"""

    def look(self, life: int, sign: Sign, now_ms: int) -> int | None:
        """Take one look into account; return for how long a life has said nothing that must end.

        `life`: number of the executor's life, the same before and after the question. `now_ms`: of
        a monotonic clock.
        """
        slept = self._looked_ms is not None and now_ms - self._looked_ms > self._gap_max_ms
        self._looked_ms = now_ms
        if life != self._life:
            self._life, self._heard_ms = life, None
        if sign is Sign.ANSWERED or (slept and self._heard_ms is not None):
            self._heard_ms = now_ms
        if self._heard_ms is None or now_ms - self._heard_ms < self._silent_max_ms:
            return None
        silent_ms = now_ms - self._heard_ms
        self._heard_ms = None  # once for a life
        return silent_ms


class ExecutorWatch:
    """The thread that asks, from `start` to `stop`."""

    def __init__(
        self,
        engine: Asked,
        *,
        life: Callable[[], int | None],
        end_life: Callable[[int], bool],
        log: Logger,
        silence: Silence | None = None,
        look_ms: int = LOOK_MS,
        clock: Clock | None = None,
    ) -> None:
        """Prepare. `engine`: a connection that nobody else uses, closed by its owner.

        `life`: number of the executor's life that runs, None between two; `end_life`: ends that one
        if it still runs, and says whether.
        """
        self.hangs = 0
        """executors that were ended here"""
        self._engine, self._life, self._end_life = engine, life, end_life
        self._log = log
        self._silence = silence or Silence()
        self._look_ms = look_ms
        self._clock = clock or SystemClock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="executor-watch")

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; waits for the answer to the last question, at most ASK_MS."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(seconds(self._look_ms)):
            self._look()

    def _look(self) -> None:
        life = self._life()
        sign = self._ask()
        if life is None or life != self._life():
            return  # nobody knows which life answered, or did not
        silent_ms = self._silence.look(life, sign, self._clock.now_ms())
        if silent_ms is None or self._is_over.is_set() or not self._end_life(life):
            return
        self.hangs += 1
        self._log.error("the executor hangs and is ended", silent_ms=silent_ms, life=life)

    def _ask(self) -> Sign:
        try:
            self._engine.get_status(Deadline.after_ms(ASK_MS))
        except EngineApiError as error:
            # Any other error was said by somebody.
            return Sign.SILENT if error.code in _NOBODY else Sign.ANSWERED
        return Sign.ANSWERED
