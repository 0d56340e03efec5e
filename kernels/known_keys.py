"""What is kept of public keys that come again: hints, which save a square root and are not trusted.

Whoever reads a hint proves it, so threads write and read the table without locks, and a wrong
hint is only a miss. It stands where a secret hash of the key says, in place of what stood there.
Spec: spec/signatures.md#known-keys
"""

import secrets
import threading
from typing import Final, NamedTuple

import numpy as np

from kernels import known_keys_lanes
from kernels.backend import KNOWN_KEYS_MAX
from kernels.known_keys_lanes import HINT_WORDS
from kernels.layout import I32, U8, U64
from kernels.memory import zeros

SECRET_WORDS: Final = 8


class Misses(NamedTuple):
    """Keys of a batch that had no hint that fits, and what belongs in the table."""

    rows: I32
    """(n,) int32: rows of the batch's arrays"""
    places: U64
    """(n,) uint64, in the table"""
    hints: U64
    """(n, HINT_WORDS) uint64"""


def open_misses(rows_max: int) -> Misses:
    """Return room for so many."""
    return Misses(
        rows=np.zeros(rows_max, np.int32),
        places=zeros(rows_max, np.uint64),
        hints=zeros((rows_max, HINT_WORDS), np.uint64),
    )


class KnownKeys:
    """A table of `entries` hints; any thread may use it at any moment."""

    def __init__(self, entries: int) -> None:
        """Know nothing yet; with 0 entries, never anything. Raises ValueError for nonsense."""
        if not 0 <= entries <= KNOWN_KEYS_MAX:
            raise ValueError(f"known keys must be 0..{KNOWN_KEYS_MAX}, not {entries}")
        self.entries = entries
        self.table: U64 = zeros((max(entries, 1), HINT_WORDS), np.uint64)
        self.secret: U64 = np.zeros(SECRET_WORDS, np.uint64)
        self._mutex = threading.Lock()
        self._hits = 0
        self._misses = 0
        self.forget()

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many keys were known and how many were decoded, since the table is there."""
        with self._mutex:
            return self._hits, self._misses

    def forget(self) -> None:
        """Know nothing any more, as at the beginning; nobody may use the table meanwhile."""
        self.secret[:] = np.frombuffer(secrets.token_bytes(8 * SECRET_WORDS), np.uint64)

    def keep(self, misses: Misses, count: int, looked_up: int, out: U8) -> None:
        """Keep the hints of the first `count` misses whose row in `out` is 1.

        looked_up: of how many keys these are the misses; out: (n,) uint8 verdicts.
        """
        with self._mutex:
            self._hits += looked_up - count
            self._misses += count
        if self.entries:
            known_keys_lanes.keep(self.table, *misses, count, out)
