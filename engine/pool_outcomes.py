"""What became of transactions that wait no more: a ring of the newest outcomes, found by hash."""

import numpy as np

from kernels import accounts, outcomes
from kernels.host_accounts import key_words
from kernels.layout import NO_SLOT, U8, U64
from kernels.memory import zeros


class OutcomeRing:
    """The last `size` outcomes; one thread at a time."""

    def __init__(self, size: int, secret: U64) -> None:
        """Start empty. secret: (8,) uint64, read-only, of this process."""
        assert size >= 1, size
        self._kept: U64 = zeros((size, 4), np.uint64)
        self._statuses: U8 = zeros(size, np.uint8)
        self._reasons: U8 = zeros(size, np.uint8)
        self._times_ms = zeros(size, np.int64)
        self._entries: U64 = zeros(accounts.entries_for(size), np.uint64)
        self._secret = secret
        self._position = 0
        self._written = 0

    def __len__(self) -> int:
        """Count the outcomes that were written and not pushed out."""
        return min(self._written, len(self._kept))

    @property
    def forgotten_ms(self) -> int:
        """The time of the oldest outcome when others were forgotten before it, else 0."""
        if self._written <= len(self._kept):
            return 0
        return int(self._times_ms[self._position])

    @property
    def resident_bytes(self) -> int:
        """Memory when every page has been written."""
        arrays = (self._kept, self._statuses, self._reasons, self._times_ms, self._entries)
        return sum(array.nbytes for array in arrays)

    def put(self, hashes: U8, status: int, reasons: U8, now_ms: int) -> None:
        """Write outcomes of (n, 32) hashes that share a status, reasons: (n,) uint8."""
        self._position = int(
            outcomes.put_outcomes(
                *(self._entries, self._kept, self._statuses, self._reasons, self._times_ms),
                *(self._secret, self._position, key_words(hashes), np.uint8(status)),
                *(np.ascontiguousarray(reasons), np.int64(now_ms)),
            )
        )
        self._written += len(hashes)

    def find(self, transaction_hash: bytes) -> tuple[int, int, int] | None:
        """Return (status, reason, time in ms) of a hash, or None."""
        words = key_words(np.frombuffer(transaction_hash, np.uint8).reshape(1, 32))
        found = np.empty(1, np.uint32)
        rows = np.empty(0, np.int32)
        rows.flags.writeable = False
        accounts.lookup_each(self._entries, self._kept, self._secret, words, rows, found, 0, 1)
        place = int(found[0])
        if place == NO_SLOT:
            return None
        return int(self._statuses[place]), int(self._reasons[place]), int(self._times_ms[place])
