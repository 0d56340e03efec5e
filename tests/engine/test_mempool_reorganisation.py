"""A reorganisation that empties as many chains as it fills: memory stays in its bound."""

import numpy as np

from engine.mempool import Mempool
from engine.pool_rules import BATCH_MAX, AccountsRead, Checked, Move, PoolLimits, PoolReason
from engine.transition import LedgerRules
from kernels import pending_rows
from kernels.host_accounts import read_only
from kernels.layout import U8, U64

ROWS = BATCH_MAX + 7_000
BEYOND = 8
"""Senders more than there is memory for, if those without rows kept their places."""
HEIGHT = 5


def transfers(first: int, count: int) -> U64:
    """Return records of so many senders, (count, 24), which nobody signed."""
    words = np.zeros((count, pending_rows.RECORD_WORDS), np.uint64)
    words[:, pending_rows.UNTIL] = 100
    words[:, pending_rows.AMOUNT] = words[:, pending_rows.FEE] = 1
    words[:, 8] = np.arange(first, first + count)
    words[:, 12] = 1
    return read_only(words)


def names(first: int, count: int) -> U8:
    """Return a hash for each, (count, 32)."""
    words = np.zeros((count, 4), np.uint64)
    words[:, 0] = np.arange(first, first + count)
    return read_only(words.view(np.uint8))


def rich(count: int) -> AccountsRead:
    """Return accounts that can pay."""
    return AccountsRead(
        exists=np.ones(count, np.bool_),
        balances=np.full(count, 10**6, np.uint64),
        nonces=np.zeros(count, np.uint64),
    )


def add(pool: Mempool, first: int, count: int) -> None:
    """Fill the pool with a transaction of each of so many senders."""
    for start in range(first, first + count, BATCH_MAX):
        words = transfers(start, min(BATCH_MAX, first + count - start))
        batch = Checked(
            words=words,
            hashes=names(start, len(words)),
            senders=np.ascontiguousarray(words[:, 8:12]).view(np.uint8),
            recipients=np.ascontiguousarray(words[:, 12:16]).view(np.uint8),
            codes=np.zeros(len(words), np.uint8),
        )
        codes = pool.add(batch, rich(2 * len(words)), now_ms=1)
        assert set(codes.tolist()) == {PoolReason.ACCEPTED}


def test_senders_that_leave_make_room_for_those_who_come() -> None:
    """New blocks include all that waits, abandoned ones bring back other senders' as many."""
    pool = Mempool(
        rules=LedgerRules(1, 5, 10**6),
        height=HEIGHT,
        secret=bytes(range(64)),
        limits=PoolLimits(transactions=ROWS),
    )
    add(pool, 1, ROWS)
    back = BATCH_MAX + BEYOND
    move = Move(
        height=HEIGHT + 1,
        included=names(1, ROWS),
        returned=transfers(10**6, back).view(np.uint8),
        returned_hashes=names(10**6, back),
        keys=np.empty((0, 32), np.uint8),
        accounts=rich(0),
        returned_accounts=rich(back),
    )
    pool.follow(move, now_ms=2)
    assert int(pool.rows.counts[pending_rows.SENDERS]) <= len(pool.rows.senders)
    assert len(pool) == pool.counts().senders == back
    add(pool, 10**7, ROWS - back)
    assert len(pool) == ROWS
