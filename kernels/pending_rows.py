"""The arrays in which transactions wait, and their memory; `pending` moves what is in them."""

from typing import Any, NamedTuple

import numpy as np

from kernels import accounts
from kernels.accounts import lookup_scalar, row_hash
from kernels.integers import ONE, ZERO, kernel
from kernels.layout import U8, U32, U64
from kernels.memory import zeros
from kernels.prefetch import prefetch

_GROUP = 64
_SLOT_MASK = np.uint64(0xFFFF_FFFF)

RECORD_WORDS = 24
"""64-bit words of a transaction record; a row keeps all of them."""
NONCE, UNTIL, AMOUNT, FEE = 1, 2, 3, 4
"""Words of a record."""

# Places in `counts`.
ROWS, FREE_ROWS, SENDERS, FREE_SENDERS, COUNT, PARKED, TOUCHED, LEFT, ARRIVAL, REPLACED = range(10)

# Words of a row's entry in `links`; the first four are its key in the table of pairs.
OWNER, LINK_NONCE, AFTER, BEFORE, ARRIVED, AGE = 0, 1, 4, 5, 6, 7
# Words of a sender's entry in `senders`, after the four of its key.
NEXT_NONCE, SPENDABLE, COST, END, FIRST, LAST, TAIL, LENGTH, WAITING, IS_TOUCHED = range(4, 14)
LINK_WORDS = 8
SENDER_WORDS = 16


class Pending(NamedTuple):
    """All arrays: r rows (and as many senders), capacity fixed. NO_SLOT stands for no row."""

    words: U64
    """(r, 24) uint64: the 192-byte records"""
    hashes: U64
    """(r, 4) uint64: transaction hashes"""
    links: U64
    """(r, 8) uint64: sender, nonce, 0, 0; next and previous row of the chain; arrival, a multiple
    of AGE_STEP; age, unequal for all rows"""
    rank: U64
    """(r,) uint64"""
    until: U64
    """(r,) uint64: last height, 2^64 - 1 for a free row"""
    senders: U64
    """(r, 16) uint64: public key; its account's next nonce and spendable units; what its chain
    costs; the first nonce that is missing; first and last row, last row before the first gap;
    rows of the chain, rows beyond a gap; whether it is in `touched`; 0, 0"""
    free: U32
    """(r,) uint32: free rows below ROWS, a stack of FREE_ROWS"""
    free_senders: U32
    """(r,) uint32: the same of senders"""
    touched: U32
    """(r,) uint32: senders whose chain must be put right, TOUCHED of them"""
    left_rows: U32
    """(r,) uint32: rows that were freed since LEFT was set to 0"""
    left_codes: U8
    """(r,) uint8: why"""
    by_hash: U64
    by_pair: U64
    by_key: U64
    """(2^k,) uint64 each: entries of `accounts`"""
    counts: Any
    """(10,) int64: see the places above"""
    secret: U64
    """(8,) uint64, read-only"""


PER_ROW_BYTES = 8 * (RECORD_WORDS + 4 + LINK_WORDS + 2 + SENDER_WORDS) + 4 * 4 + 1
"""Of the arrays without the tables."""


def open_pending(rows: int, secret: U64) -> Pending:
    """Return empty arrays for `rows` rows; pages are taken when they are first written.

    secret: (8,) uint64, read-only.
    """
    table = accounts.entries_for(rows)
    return Pending(
        words=zeros((rows, RECORD_WORDS), np.uint64),
        hashes=zeros((rows, 4), np.uint64),
        links=zeros((rows, LINK_WORDS), np.uint64),
        rank=zeros(rows, np.uint64),
        until=zeros(rows, np.uint64),
        senders=zeros((rows, SENDER_WORDS), np.uint64),
        free=zeros(rows, np.uint32),
        free_senders=zeros(rows, np.uint32),
        touched=zeros(rows, np.uint32),
        left_rows=zeros(rows, np.uint32),
        left_codes=zeros(rows, np.uint8),
        by_hash=zeros(table, np.uint64),
        by_pair=zeros(table, np.uint64),
        by_key=zeros(table, np.uint64),
        counts=np.zeros(10, np.int64),
        secret=secret,
    )


def resident_bytes(pending: Pending) -> int:
    """Return the memory of all arrays when every page of them has been written."""
    return sum(int(array.nbytes) for array in pending)


@kernel
def find_rows(p: Any, hashes: Any, rows: Any) -> None:
    """Write the row of each hash, (n, 4) uint64, to rows, (n,) uint32; NO_SLOT without one."""
    mask = np.uint64(p.by_hash.shape[0]) - ONE
    for base in range(0, rows.shape[0], _GROUP):
        stop = min(base + _GROUP, rows.shape[0])
        for i in range(base, stop):
            prefetch(p.by_hash, np.int64(row_hash(hashes, i, p.secret) & mask))
        for i in range(base, stop):
            entry = p.by_hash[np.int64(row_hash(hashes, i, p.secret) & mask)]
            if entry != ZERO:
                prefetch(p.hashes, np.int64((entry & _SLOT_MASK) - ONE))
        for i in range(base, stop):
            rows[i] = lookup_scalar(p.by_hash, p.hashes, p.secret, hashes, i)
