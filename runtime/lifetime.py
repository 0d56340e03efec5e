"""How a process ends: by a signal, by a thread that died, or cut off when it takes too long.

What a node does to end is its own; that it hears of the first reason alone, that a dead thread is
one, and that nothing waits for ever, is the same for both processes.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from runtime.logs import Logger

NUMBERS = (signal.SIGTERM, signal.SIGINT)
CUT_OFF = 1
"""exit code of a process that was cut off"""


class Lifetime:
    """Listens to signals and dead threads of this process, and bounds how long its end takes."""

    def __init__(
        self,
        log: Logger,
        *,
        stop_max_s: int,
        on_signal: Callable[[], None],
        on_failure: Callable[[], None],
    ) -> None:
        """Prepare; `watched` begins.

        `stop_max_s`: from the first reason to the end of the process. `on_signal` runs in the main
        thread and may raise, `on_failure` in the thread that died.
        """
        self.signal = ""
        """name of the signal that came first, or nothing"""
        self.failure = ""
        """which thread died of what, or nothing"""
        self._log = log
        self._stop_max_s = stop_max_s
        self._on_signal = on_signal
        self._on_failure = on_failure
        self._limit: threading.Timer | None = None

    @property
    def is_ending(self) -> bool:
        """Say whether there was a reason to end."""
        return bool(self.signal or self.failure)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Listen until the block is left, then give everything back as it was."""
        before = [signal.signal(number, self._take_signal) for number in NUMBERS]
        hook, threading.excepthook = threading.excepthook, self._take_dead_thread
        try:
            yield
        finally:
            if self._limit is not None:
                self._limit.cancel()
            threading.excepthook = hook
            for number, handler in zip(NUMBERS, before, strict=True):
                signal.signal(number, handler)

    def _take_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            return
        self.signal = signal.Signals(number).name
        self._bound_the_end()
        self._on_signal()

    def _take_dead_thread(self, arguments: threading.ExceptHookArgs) -> None:
        """End a process in which a thread died: nobody knows what it would have done."""
        name = arguments.thread.name if arguments.thread else "unknown"
        self.failure = f"the thread {name} ended by {arguments.exc_type.__name__}"
        self._log.error("a thread died", thread=name, exc_info=arguments.exc_value)
        self._bound_the_end()
        self._on_failure()

    def _bound_the_end(self) -> None:
        if self._limit is None:
            self._limit = threading.Timer(self._stop_max_s, self._cut_off)
            self._limit.daemon = True
            self._limit.start()

    def _cut_off(self) -> None:
        """End the process as a power cut would: nothing that was answered or sent is lost by it."""
        sentence = f"not stopped {self._stop_max_s} s after it should: cut off; nothing is lost"
        self._log.error(sentence)
        sys.stderr.flush()
        os._exit(CUT_OFF)
