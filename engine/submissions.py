"""Transactions that wait for a payload: a bounded queue, first in, first out.

Admission judges what does not depend on a state, and verifies signatures on the caller's thread,
so that neither builder nor validator has to. The queue keeps whole records as rows of one array, in
order of arrival. Until there is a pool, this is all that a builder chooses from.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.columns import (
    COLUMN_TABLE,
    RESERVED,
    column_shape,
    from_records,
    signed_messages,
    take,
)
from engine.constants import TRANSACTION_BYTES, TRANSACTION_VERSION, TRANSFER
from engine.verified import VerifiedMarks
from engine.writer import POLL_MS, seconds
from engine_api.protocol import NS_PER_MS
from engine_api.types import SubmitResult
from kernels.backend import Backend
from kernels.layout import U8, Columns

QUEUE_RECORDS_MAX = 262_144
"""Records that wait unless the opener says otherwise."""
PASSED_OVER_MAX = 16
"""Builds that may find a record of no use before it is dropped; it may be submitted again."""
QUARANTINE_MAX = 4_096
"""Hashes that the serial arm refused and that are not taken again; the oldest is forgotten."""


class Submissions:
    """The queue; any thread may submit, the writer takes."""

    def __init__(
        self,
        *,
        chain_id: int,
        domain: bytes,
        backend: Callable[[], Backend],
        marks: VerifiedMarks,
        records_max: int = QUEUE_RECORDS_MAX,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Start empty.

        domain: what every signature of the chain covers first, 32 bytes; backend: says on which
        one to hash and verify at present.
        """
        self._chain_id = chain_id
        self._domain = domain
        self._backend = backend
        self._marks = marks
        self._clock_ns = clock_ns
        self._condition = threading.Condition()
        self._records_max = records_max
        self._columns = _room(records_max)
        self._hashes: U8 = np.zeros((records_max, 32), np.uint8)
        self._passed_over: U8 = np.zeros(records_max, np.uint8)
        self._count = 0
        self._quarantine: dict[bytes, None] = {}

    def __len__(self) -> int:
        """Count the records that wait."""
        return self._count

    def submit(self, batch: bytes | memoryview) -> bytes:
        """Take records of 192 bytes, one after another; return a SubmitResult for each."""
        records = np.frombuffer(batch, np.uint8).reshape(-1, TRANSACTION_BYTES)
        results = np.full(len(records), SubmitResult.REFUSED, np.uint8)
        rows = np.flatnonzero(self._is_of_this_chain(records))
        with self._condition:
            room = self._records_max - self._count
        results[rows[room:]] = SubmitResult.QUEUE_FULL
        rows = rows[:room]
        if not len(rows):
            return results.tobytes()
        columns = from_records(records[rows])
        hashes = self._backend().hash_transactions(columns)
        is_good = self._verify(columns, hashes) & ~self._is_quarantined(hashes)
        columns = take(columns, np.flatnonzero(is_good))
        rows, hashes = rows[is_good], hashes[is_good]
        with self._condition:
            room = self._records_max - self._count
            results[rows[room:]] = SubmitResult.QUEUE_FULL
            rows, hashes = rows[:room], hashes[:room]
            columns = Columns._make(column[:room] for column in columns)
            start, end = self._count, self._count + len(rows)
            arrays: tuple[NDArray[Any], ...] = self._columns
            for array, column in zip(arrays, columns, strict=True):
                array[start:end] = column
            self._hashes[start:end] = hashes
            self._passed_over[start:end] = 0
            self._count = end
            self._condition.notify_all()
        results[rows] = SubmitResult.QUEUED
        return results.tobytes()

    def wait(self, timeout_ms: int, is_over: Callable[[], bool] = bool) -> None:
        """Return as soon as a record waits or nobody does, at the latest after `timeout_ms`."""
        end_ns = self._clock_ns() + timeout_ms * NS_PER_MS
        with self._condition:
            while not self._count:
                left_ns = end_ns - self._clock_ns()
                if left_ns <= 0 or is_over():
                    return
                self._condition.wait(seconds(min(POLL_MS, left_ns // NS_PER_MS + 1)))

    def peek(self, count: int) -> tuple[Columns, U8]:
        """Return up to `count` of the oldest records as columns, and their hashes (n, 32).

        These are views: what is queued later stands behind them, and what leaves the queue leaves
        them as they are.
        """
        with self._condition:
            end = min(count, self._count)
            views: list[Any] = [array[:end] for array in (*self._columns, self._hashes)]
        for view in views:
            view.flags.writeable = False
        return Columns._make(views[:-1]), views[-1]

    def pass_over(self, hashes: U8, is_useless: NDArray[np.bool_]) -> None:
        """Count a build that found records of no use; drop those that it happened to too often.

        hashes: (n, 32), as `peek` gave them; is_useless: (n,) bool.
        """
        with self._condition:
            end = min(len(hashes), self._count)
            same = (self._hashes[:end] == hashes[:end]).all(axis=1) & is_useless[:end]
            self._passed_over[:end][same] += np.uint8(1)
            self._keep(self._passed_over[: self._count] < PASSED_OVER_MAX)

    def remove(self, hashes: U8) -> None:
        """Drop the records with these hashes, (n, 32): they are final, or refused for good."""
        with self._condition:
            if self._count and len(hashes):
                self._keep(~_is_among(self._hashes[: self._count], hashes))

    def quarantine(self, transaction_hash: bytes) -> None:
        """Refuse a transaction from now on: the serial arm found that it may not be included."""
        with self._condition:
            self._quarantine[transaction_hash] = None
            if len(self._quarantine) > QUARANTINE_MAX:
                del self._quarantine[next(iter(self._quarantine))]
        self.remove(np.frombuffer(transaction_hash, np.uint8).reshape(1, 32))

    def _is_of_this_chain(self, records: U8) -> NDArray[np.bool_]:
        """Say for each record whether some payload of this chain could carry it."""
        chain_id = np.ascontiguousarray(records[:, 4:8]).view("<u4").reshape(-1)
        is_fit = records[:, 0] == TRANSACTION_VERSION
        is_fit &= (records[:, 1] == TRANSFER) & (chain_id == self._chain_id)
        for start, end in RESERVED:
            is_fit &= ~records[:, start:end].any(axis=1)
        return np.asarray(is_fit, np.bool_)

    def _verify(self, columns: Columns, hashes: U8) -> NDArray[np.bool_]:
        """Say which signatures are valid, and mark them."""
        is_good = self._marks.is_verified(hashes)
        unknown = np.flatnonzero(~is_good)
        if len(unknown):
            part = take(columns, unknown)
            verdicts = self._backend().verify_signatures(
                part.sender, part.signature, signed_messages(part, self._domain)
            )
            is_good[unknown] = verdicts != 0
            self._marks.mark(hashes[unknown[verdicts != 0]])
        return is_good

    def _is_quarantined(self, hashes: U8) -> NDArray[np.bool_]:
        with self._condition:
            if not self._quarantine:
                return np.zeros(len(hashes), np.bool_)
            return np.array([item.tobytes() in self._quarantine for item in hashes], np.bool_)

    def _keep(self, is_kept: NDArray[np.bool_]) -> None:
        """Close the gaps that dropped records leave, in new arrays. Called under the lock."""
        if not is_kept.all():
            rows = np.flatnonzero(is_kept)
            self._columns = Columns._make(self._moved(array, rows) for array in self._columns)
            self._hashes = self._moved(self._hashes, rows)
            self._passed_over = self._moved(self._passed_over, rows)
            self._count = len(rows)

    def _moved(self, array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return an array as large as the queue that begins with these rows of another."""
        new = np.zeros((self._records_max, *array.shape[1:]), array.dtype)
        np.take(array, rows, axis=0, out=new[: len(rows)])
        return new


def _room(count: int) -> Columns:
    """Return writable columns with room for `count` records."""
    return Columns._make(
        np.zeros(column_shape(column, count), np.dtype(column.dtype)) for column in COLUMN_TABLE
    )


def _is_among(here: U8, wanted: U8) -> NDArray[np.bool_]:
    """Say which of (n, 32) hashes are among (m >= 1, 32) others: (n,) bool."""
    words = np.ascontiguousarray(wanted).view(np.uint64)
    words = words[np.argsort(words[:, 0])]
    mine = np.ascontiguousarray(here).view(np.uint64)
    places = np.minimum(np.searchsorted(words[:, 0], mine[:, 0]), len(words) - 1)
    is_found = (words[places] == mine).all(axis=1)
    # Two hashes may begin alike by design; then the first place alone says nothing.
    is_open = ~is_found & (words[places, 0] == mine[:, 0])
    if is_open.any():
        every = {item.tobytes() for item in wanted}
        for row in np.flatnonzero(is_open):
            is_found[row] = here[row].tobytes() in every
    return np.asarray(is_found, np.bool_)
