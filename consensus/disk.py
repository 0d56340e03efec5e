"""The one queue of what must be durable before something leaves, and the thread that empties it.

All that waits is written together: one commit of the store, then one sync of the journal, then
every `then`, in order. The store comes first for the whole group, so that after a crash it may be
ahead of the journal and never behind it: of a group that was not finished nothing has left, and a
cut of the journal never takes what only the store has. A write that fails ends the thread, loudly.
What peers are answered from the store stands aside once all before it is durable (`answers.py`).
Spec: spec/consensus.md#files, spec/consensus.md#shell.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from consensus.answers import Answers
from consensus.core.events import AnswerFromStore, Loaded, LoadFinalized, Persist, SendEffect
from consensus.journal import Journal
from consensus.store import Store
from consensus.waiting import NS_PER_MS, seconds

Work = Persist | LoadFinalized
GROUP_MAX = 256
"""Persists that are written together"""


class Disk:
    """Owns journal and store while a node runs."""

    def __init__(
        self,
        *,
        journal: Journal,
        store: Store,
        perform: Callable[[SendEffect], None],
        on_durable: Callable[[Sequence[Persist], int], None],
        on_loaded: Callable[[Loaded], None],
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        """Prepare; all of the functions are called in the disk's thread.

        `on_durable`: what was written together, and in how many ms; called before any `then`.
        """
        self._journal, self._store = journal, store
        self._perform, self._on_durable = perform, on_durable
        self._on_loaded, self._on_failure = on_loaded, on_failure
        self._condition = threading.Condition()
        self._queue: deque[Work] = deque()
        self.answers = Answers()
        """changed by the disk's thread alone"""
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end; peers that wait for an answer get none."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, work: Work) -> None:
        """Queue behind everything that was queued before."""
        with self._condition:
            self._queue.append(work)
            self._condition.notify()

    def __len__(self) -> int:
        """Count what waits."""
        return len(self._queue)

    def _run(self) -> None:
        try:
            while (group := self._take()) is not None:
                if isinstance(group, AnswerFromStore):
                    self._answer(group)
                elif isinstance(group, LoadFinalized):
                    self._on_loaded(Loaded(blocks=self._store.load(group.first, group.count)))
                else:
                    self._write(group)
        except BaseException as error:
            self._on_failure("disk", error)

    def _take(self) -> list[Persist] | LoadFinalized | AnswerFromStore | None:
        """Return what is done next: all Persists that wait, or one question; None: stop.

        A peer's goes first where one may be answered, since a rest follows it.
        """
        with self._condition:
            while True:
                now_ns = time.monotonic_ns()
                if not self._is_stopping and (answer := self.answers.take(now_ns)) is not None:
                    return answer
                if self._queue:
                    break
                if self._is_stopping:
                    return None
                wait_ms = self.answers.wait_ms(now_ns)
                self._condition.wait(None if wait_ms is None else seconds(wait_ms))
            group: list[Persist] = []
            while self._queue and len(group) < GROUP_MAX:
                first = self._queue[0]
                if isinstance(first, LoadFinalized):
                    if not group:
                        self._queue.popleft()
                        return first
                    break
                self._queue.popleft()
                group.append(first)
            return group

    def _write(self, group: list[Persist]) -> None:
        start_ns = time.monotonic_ns()
        is_written = self._store.put(group)
        is_written = self._write_journal(group) or is_written
        if is_written:
            self._on_durable(group, (time.monotonic_ns() - start_ns) // NS_PER_MS)
        for persist in group:
            for effect in persist.then:
                if isinstance(effect, AnswerFromStore):
                    self.answers.put(effect)
                else:
                    self._perform(effect)

    def _answer(self, answer: AnswerFromStore) -> None:
        start_ns = time.monotonic_ns()
        self._perform(answer)
        self.answers.rest(start_ns, time.monotonic_ns())

    def _write_journal(self, group: list[Persist]) -> bool:
        """Append what the group appends, or replace the file from its last cut on."""
        cut: tuple[bytes, ...] | None = None
        records: list[bytes] = []
        for persist in group:
            if persist.cut is not None:
                cut, records = persist.cut, []
            records.extend(persist.append)
        if cut is not None:
            self._journal.replace((*cut, *records))
        elif records:
            self._journal.append(records)
        return cut is not None or bool(records)
