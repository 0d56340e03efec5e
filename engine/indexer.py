"""Enters finalized blocks into the store's indexes, on a thread beside the commit path.

What is not entered when the process ends, or does not fit into the queue, is found by
`Store.unindexed` and entered later from payloads and receipts. House-keeping of the store shares
the lock, so that one thread at a time touches an index. Spec: spec/storage.md#indexes.
"""

import threading
from collections import deque
from collections.abc import Callable

from engine.events import Notice, Report
from engine.store.errors import StoreFull
from engine.store.store import Store
from engine.verdicts import FinalizedBlock
from engine_api.types import EngineApiError

PENDING_MAX = 32
"""Finalized blocks that wait to be entered; later ones are left to `Store.unindexed`."""

RETRY_S = 1
"""Until the writer is asked again, or the disk."""

Lookup = Callable[[int], FinalizedBlock | None]
"""Makes again, from disk, what indexing needs of a finalized block; None if it is pruned."""


class Indexer:
    """The thread and its bounded queue."""

    def __init__(
        self,
        store: Store,
        *,
        make_again: Lookup,
        report: Report,
        fail: Callable[[BaseException], None],
    ) -> None:
        """Start; `fail` is told of an error after which nothing more is entered."""
        self.mutex = threading.Lock()
        self._store = store
        self._make_again = make_again
        self._report = report
        self._fail = fail
        self._condition = threading.Condition()
        self._pending: deque[FinalizedBlock] = deque()
        self._is_closed = False
        self._is_behind = True
        """whether blocks may be missing that are not in the queue"""
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)
        self._thread.start()

    def add(self, blocks: list[FinalizedBlock]) -> None:
        """Take newly finalized blocks; never waits."""
        with self._condition:
            for block in blocks:
                if len(self._pending) == PENDING_MAX:
                    self._is_behind = True
                    break
                self._pending.append(block)
            self._condition.notify_all()

    def wait_idle(self) -> None:
        """Return when everything that is final is entered: for tests and for a clean stop."""
        with self._condition:
            while (self._pending or self._is_behind) and self._thread.is_alive():
                self._condition.wait(1)

    def close(self) -> None:
        """End the thread after the block that it works on."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join()

    def _run(self) -> None:
        is_full = False
        try:
            while self._wait():
                try:
                    self._step()
                    is_full = False
                except EngineApiError:
                    # The writer was asked and is full or closing; nothing is lost, look again.
                    self._rest()
                except StoreFull as error:
                    # The block stays in the queue, or is found by `Store.unindexed`.
                    if not is_full:
                        self._report(Notice(text=f"indexing waits for room: {error}"))
                    is_full = True
                    self._rest()
        except Exception as error:
            self._fail(error)

    def _rest(self) -> None:
        with self._condition:
            if not self._is_closed:
                self._condition.wait(RETRY_S)

    def _wait(self) -> bool:
        """Wait for work; say whether there is any, or the end has come."""
        with self._condition:
            while not (self._pending or self._is_behind or self._is_closed):
                self._condition.wait()
            return not self._is_closed

    def _step(self) -> None:
        with self._condition:
            block = self._pending[0] if self._pending else None
        if block is not None:
            self._enter(block)
            with self._condition:
                self._pending.popleft()
                self._condition.notify_all()
            return
        with self.mutex:
            spans = self._store.unindexed()
        for first, last in spans:
            for height in range(first, last + 1):
                with self._condition:
                    if self._is_closed or self._pending:
                        return
                made = self._make_again(height)
                if made is not None:
                    self._enter(made)
        with self._condition:
            # Beside blocks that came meanwhile others may have found no place: look once more.
            self._is_behind = bool(self._pending)
            self._condition.notify_all()

    def _enter(self, block: FinalizedBlock) -> None:
        with self.mutex:
            self._store.index(block.height, block.hashes, *block.parties, block.statuses)
