"""What is known of transactions by hash: which peers have them, and whether to want them.

A ring of fixed size: who comes last pushes out who came first. What is forgotten costs a frame or a
question too many and hardly ever a second signature, because the pool and its marks of verified
signatures look first. Times are whole seconds. Spec: spec/gossip.md#conduct.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from kernels import accounts, outcomes
from kernels.host_accounts import key_words, read_only
from kernels.layout import NO_SLOT, U8, U32, U64
from kernels.memory import zeros

ENTRIES = 2**19
"""of the ring unless the opener says otherwise; 80 bytes each, taken as it fills"""
SECRET_BYTES = 64
MS_PER_S = 1_000
_ALL_ROWS = read_only(np.empty(0, np.int32))


class State(IntEnum):
    """What a node has done about a transaction."""

    HEARD = 0
    """somebody has it, or nothing is known"""
    WANTED = 1
    QUEUED = 2
    """here, and not yet judged"""
    TAKEN = 3
    REFUSED = 4


LASTS_S = np.array([0, 10, 60, 120, 10], np.uint32)
"""seconds after which each state is HEARD again"""
assert len(LASTS_S) == len(State)


class Known:
    """The ring of one node; one thread at a time."""

    def __init__(self, secret: bytes, entries: int = ENTRIES) -> None:
        """Know nothing. secret: 64 random bytes of this process."""
        assert entries >= 1, entries
        self._secret = read_only(np.frombuffer(secret, np.uint64).copy())
        self._kept: U64 = zeros((entries, 4), np.uint64)
        self._table: U64 = zeros(accounts.entries_for(entries), np.uint64)
        self._is_used: U8 = zeros(entries, np.uint8)
        self._unread: U8 = zeros(entries, np.uint8)
        self._unread_ms = zeros(entries, np.int64)
        self._peers: U32 = zeros(entries, np.uint32)
        self._since_s: U32 = zeros(entries, np.uint32)
        self._states: U8 = zeros(entries, np.uint8)
        self._position = 0

    def add_holder(self, hashes: U8, bit: int) -> None:
        """Note that the peer of a bit has (n, 32) transactions."""
        self._peers[self._enter(hashes)] |= np.uint32(1 << bit)

    def holders(self, hashes: U8) -> U32:
        """Return the bits of the peers that have each of (n, 32) transactions, (n,) uint32."""
        places, is_here = self._find(hashes)
        held: U32 = np.where(is_here, self._peers[places], np.uint32(0))
        return held

    def forget_holder(self, bit: int) -> None:
        """Take a bit back, for another peer."""
        self._peers &= np.uint32(2**32 - 1 - (1 << bit))

    def set_state(self, hashes: U8, state: State, now_ms: int) -> None:
        """Note what was done about (n, 32) transactions."""
        places = self._enter(hashes)
        self._states[places] = state
        self._since_s[places] = now_ms // MS_PER_S

    def states(self, hashes: U8, now_ms: int) -> U8:
        """Return the State of each of (n, 32) transactions, (n,) uint8."""
        places, is_here = self._find(hashes)
        states = self._states[places]
        ages_s = np.uint32(now_ms // MS_PER_S) - self._since_s[places]
        states[~is_here | (ages_s > LASTS_S[states])] = State.HEARD
        return states

    def _find(self, hashes: U8) -> tuple[U32, NDArray[np.bool_]]:
        """Return the place of each hash, 0 where it is not here, and whether it is."""
        places = np.empty(len(hashes), np.uint32)
        words = key_words(np.ascontiguousarray(hashes))
        accounts.lookup_range(
            self._table, self._kept, self._secret, words, _ALL_ROWS, places, 0, len(hashes)
        )
        is_here = places != NO_SLOT
        return np.where(is_here, places, np.uint32(0)), is_here

    def _enter(self, hashes: U8) -> U32:
        """Return the places of hashes; new ones push the oldest out, of the same hashes too."""
        places, is_here = self._find(hashes)
        fresh = np.ascontiguousarray(hashes[~is_here])
        if not len(fresh):
            return places
        size = len(self._kept)
        for start in range(0, len(fresh), size):
            part = fresh[start : start + size]
            taken = (self._position + np.arange(len(part))) % size
            self._peers[taken] = 0
            self._states[taken] = State.HEARD
            self._position = int(
                outcomes.put_outcomes(
                    *(self._table, self._kept, self._is_used, self._unread, self._unread_ms),
                    *(self._secret, self._position, key_words(part), np.uint8(1)),
                    *(np.zeros(len(part), np.uint8), np.int64(0)),
                )
            )
        places, is_here = self._find(hashes)
        return places[is_here]
