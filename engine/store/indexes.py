"""What the runs are used for: finding a transaction by its hash, and an account's transactions.

Both are derived from payloads and receipts, outside the commit path, and can be made again block by
block. A hash is kept by its first 8 bytes, so an answer is a few places to look at, nearly always
one. Spec: spec/storage.md#indexes.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from engine.store.errors import StoreDamaged, damaged
from engine.store.runs import SortedRuns, entry_values, place_of
from kernels import sorting
from kernels.layout import NO_SLOT, SUCCESS, U8, U32, U64

PREFIX_BYTES = 8
"""Of a hash, kept as the key of an entry."""
PAGE_MAX = 1_000
"""Transactions on one page of an account's history."""
NEWEST = 2**64
"""`before` of the first page."""


class Place(NamedTuple):
    """Where a transaction stands."""

    height: int
    position: int
    """in the payload's canonical order"""


Read = Callable[[Place], bytes | None]
"""Returns the 192-byte record at a place, None where it is pruned. Raises StoreDamaged."""


class HistoryPage(NamedTuple):
    """Transactions of an account, newest first."""

    places: list[Place]
    before: int | None
    """what to ask the next page with; None where there is none"""


class Indexes:
    """Both indexes of a home."""

    def __init__(self, home: Path, genesis_hash: bytes, *, is_kept: bool) -> None:
        """Open what stands there; is_kept: whether both are to be complete, or stay as they are."""
        self._hashes = SortedRuns(home / "transactions", genesis_hash)
        self._accounts = SortedRuns(home / "accounts", genesis_hash)
        self._is_kept = is_kept

    @property
    def runs(self) -> tuple[SortedRuns, SortedRuns]:
        """Those of hashes, those of accounts."""
        return self._hashes, self._accounts

    @property
    def disk_bytes(self) -> int:
        """What both take."""
        return sum(runs.disk_bytes for runs in self.runs)

    def add(self, height: int, hashes: U8, senders: U32, recipients: U32, statuses: U8) -> None:
        """Enter a block; twice does no harm. Arrays as of `Store.index`. Raises StoreFull."""
        if self._is_kept:
            index_hashes(self._hashes, height, hashes)
            index_parties(self._accounts, height, senders, recipients, statuses)

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the spans in [first, last], inclusive, sorted, that either lacks, if kept."""
        if not self._is_kept:
            return []
        return sorted({span for runs in self.runs for span in runs.missing(first, last)})

    def find(self, transaction_hash: bytes, read: Read) -> Place | None:
        """See `find_compared`."""
        return find_compared(self._hashes, transaction_hash, read)

    def compared(self, place: Place, read: Read) -> bytes | None:
        """See `read_compared`; an index that is not kept complete is nothing to compare with."""
        return read_compared(self._hashes, place, read) if self._is_kept else read(place)

    def account_page(self, slot: int, before: int | None, limit: int) -> HistoryPage:
        """See the function of this name."""
        return account_page(self._accounts, slot, before, limit)

    def close(self) -> None:
        """Wait for merges and close both, whatever one of them raises."""
        with ExitStack() as both:
            for runs in self.runs:
                both.callback(runs.close)


def index_hashes(runs: SortedRuns, height: int, hashes: U8) -> None:
    """Add the transaction hashes of a block, (n, 32) uint8, in canonical order."""
    prefixes: U64 = np.ascontiguousarray(hashes[:, :PREFIX_BYTES]).view(np.uint64).reshape(-1)
    order = sorting.argsort(prefixes)
    runs.add(height, prefixes[order], entry_values(height, order.astype(np.uint64)))


def find_hash(runs: SortedRuns, transaction_hash: bytes) -> list[Place]:
    """Return where a transaction with this hash may stand; compare the whole hash there."""
    prefix = int.from_bytes(transaction_hash[:PREFIX_BYTES], "little")
    return [Place(*place_of(value)) for value in runs.find(prefix)]


def find_compared(runs: SortedRuns, transaction_hash: bytes, read: Read) -> Place | None:
    """Return the newest place whose record has this hash, None if there is none.

    Raises StoreDamaged if what stands at a place does not even have the first bytes that the index
    has of it.
    """
    wrong: Place | None = None
    for place in reversed(find_hash(runs, transaction_hash)):
        record = read(place)
        if record is None:
            continue
        found = blake3(record).digest()
        if found == transaction_hash:
            return place
        # Others may share the first bytes, by chance or by intent: they are no damage.
        if found[:PREFIX_BYTES] != transaction_hash[:PREFIX_BYTES]:
            wrong = place
    if wrong is not None:
        raise _other(runs, wrong)
    return None


def read_compared(runs: SortedRuns, place: Place, read: Read) -> bytes | None:
    """Return the record at a place that was indexed, None where it is pruned.

    Raises StoreDamaged where the index has another hash at this place.
    """
    record = read(place)
    if record is None or place in find_hash(runs, blake3(record).digest()):
        return record
    if read(place) is None:
        return None  # pruned between both looks: the record goes first, then what is known of it
    raise _other(runs, place)


def _other(runs: SortedRuns, place: Place) -> StoreDamaged:
    why = f"transaction {place.position} of height {place.height} is not the one that was indexed"
    return damaged(runs.folder, 0, why)


def index_parties(
    runs: SortedRuns, height: int, senders: U32, recipients: U32, statuses: U8
) -> None:
    """Add a block's transactions to the histories of the accounts that they moved.

    senders, recipients: (n,) uint32 account slots. A transaction belongs to its sender, and to its
    recipient if it succeeded and that is another account.
    """
    rows: U64 = np.arange(len(senders), dtype=np.uint64)
    is_received = (statuses == SUCCESS) & (recipients != senders) & (recipients != NO_SLOT)
    slots = np.concatenate([senders, recipients[is_received]]).astype(np.uint64)
    indexes = np.concatenate([rows, rows[is_received]])
    # Unique, so any sort gives slots ascending and within a slot transactions ascending.
    combined = sorting.sort((slots << np.uint64(32)) | indexes)
    values = entry_values(height, combined & np.uint64(0xFFFF_FFFF))
    runs.add(height, combined >> np.uint64(32), values)


def account_page(runs: SortedRuns, slot: int, before: int | None, limit: int) -> HistoryPage:
    """Return up to `limit` transactions of an account before a place, newest first."""
    assert 1 <= limit <= PAGE_MAX, limit
    values = runs.newest(slot, NEWEST if before is None else before, limit)
    following = values[-1] if len(values) == limit else None
    return HistoryPage([Place(*place_of(value)) for value in values], following)
