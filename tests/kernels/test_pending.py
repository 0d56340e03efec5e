"""Chains and tables of the pool stay whole: every link, count and entry after any calls."""

import numpy as np
import pytest

from kernels import accounts, pending, pending_rows
from kernels.layout import NO_SLOT, U64
from kernels.pending_rows import (
    AFTER,
    ARRIVED,
    BEFORE,
    COST,
    COUNT,
    END,
    FIRST,
    LAST,
    LENGTH,
    LINK_NONCE,
    NEXT_NONCE,
    OWNER,
    PARKED,
    SENDERS,
    TAIL,
    WAITING,
    Pending,
)

ROWS = 400
KEYS = 12


def fixed(array: U64) -> U64:
    """Return an array as kernels take it."""
    made = np.ascontiguousarray(array)
    made.flags.writeable = False
    return made


def open_rows() -> Pending:
    """Return empty rows."""
    return pending_rows.open_pending(ROWS, fixed(np.arange(3, 11, dtype=np.uint64)))


def records(rng: np.random.Generator, count: int) -> tuple[U64, U64, U64]:
    """Return words, hashes and sender keys of random transfers with near nonces."""
    words = np.zeros((count, 24), np.uint64)
    words[:, 1] = rng.integers(0, 30, count)
    words[:, 2] = 100
    words[:, 3] = rng.integers(0, 50, count)
    words[:, 4] = rng.integers(1, 40, count)
    senders = np.zeros((count, 4), np.uint64)
    senders[:, 0] = rng.integers(0, KEYS, count)
    words[:, 8:12] = senders
    hashes = rng.integers(0, 2**63, (count, 4)).astype(np.uint64)
    return fixed(words), fixed(hashes), fixed(senders)


def found(entries: U64, rows: U64, keys: U64, secret: U64) -> list[int]:
    """Look keys up in a table."""
    out = np.empty(len(keys), np.uint32)
    nowhere = np.empty(0, np.int32)
    nowhere.flags.writeable = False
    accounts.lookup_each(entries, rows, secret, fixed(keys), nowhere, out, 0, len(keys))
    return [int(item) for item in out]


def check(p: Pending) -> None:
    """Assert that all arrays say the same."""
    used = np.flatnonzero(p.rank)
    assert len(used) == p.counts[COUNT]
    assert (p.rank == 1).sum() == p.counts[PARKED]
    assert np.count_nonzero(p.by_hash) == np.count_nonzero(p.by_pair) == len(used)
    assert found(p.by_hash, p.hashes, p.hashes[used], p.secret) == used.tolist()
    assert found(p.by_pair, p.links, p.links[used, :4], p.secret) == used.tolist()
    senders = np.flatnonzero(p.senders[: p.counts[SENDERS], LENGTH])
    assert np.count_nonzero(p.by_key) == len(senders)
    assert found(p.by_key, p.senders, p.senders[senders, :4], p.secret) == senders.tolist()
    seen: list[int] = []
    for sender in senders.tolist():
        state = p.senders[sender]
        before, row, chain = NO_SLOT, int(state[FIRST]), []
        while row != NO_SLOT:
            assert int(p.links[row, OWNER]) == sender
            assert int(p.links[row, BEFORE]) == before
            chain.append(row)
            before, row = row, int(p.links[row, AFTER])
        assert before == int(state[LAST])
        nonces = [int(p.links[item, LINK_NONCE]) for item in chain]
        assert nonces == sorted(set(nonces))
        assert nonces == [int(p.words[item, 1]) for item in chain]
        ready = int(state[END]) - int(state[NEXT_NONCE])
        assert nonces[:ready] == list(range(int(state[NEXT_NONCE]), int(state[END])))
        assert int(state[TAIL]) == (chain[ready - 1] if ready else NO_SLOT)
        assert int(state[END]) not in nonces
        assert (len(chain), len(chain) - ready) == (int(state[LENGTH]), int(state[WAITING]))
        assert int(state[COST]) == sum(int(p.words[i, 3] + p.words[i, 4]) for i in chain)
        assert [int(p.rank[item]) == 1 for item in chain] == [i >= ready for i in range(len(chain))]
        seen += chain
    assert sorted(seen) == used.tolist()
    assert len(set(p.links[used, ARRIVED].tolist())) == len(used)


@pytest.mark.parametrize("spendable", [300, 10**6])
def test_everything_stays_whole(rng: np.random.Generator, spendable: int) -> None:
    """Random batches, departures and accounts that change, checked after each call."""
    p = open_rows()
    pair: U64 = np.zeros((1, 4), np.uint64)
    base = np.zeros(KEYS, np.uint64)
    for _ in range(120):
        words, hashes, senders = records(rng, 30)
        if p.counts[COUNT] + 30 <= ROWS:
            codes, replaced = np.zeros(30, np.uint8), np.zeros((30, 4), np.uint64)
            funds = fixed(np.full(30, spendable, np.uint64))
            nonces = fixed(base[senders[:, 0].astype(np.int64)])
            pending.admit(p, words, hashes, senders, funds, nonces, False, pair, codes, replaced)
            pending.settle_touched(p, True)
            check(p)
        p.counts[pending_rows.LEFT] = 0
        used = np.flatnonzero(p.rank).astype(np.uint32)
        gone = rng.permutation(used)[: rng.integers(0, 30)]
        pending.drop_rows(p, gone, np.uint8(9))
        pending.settle_touched(p, True)
        assert set(gone.tolist()) <= set(p.left_rows[: p.counts[pending_rows.LEFT]].tolist())
        check(p)
        if rng.random() < 0.3:
            p.counts[pending_rows.LEFT] = 0
            keys = np.zeros((KEYS, 4), np.uint64)
            keys[:, 0] = np.arange(KEYS)
            base = rng.integers(0, 12, KEYS).astype(np.uint64)
            exists = (rng.random(KEYS) < 0.9).astype(np.uint8)
            exists.flags.writeable = False
            funds = fixed(rng.integers(0, spendable, KEYS).astype(np.uint64))
            pending.update_accounts(p, fixed(keys), exists, funds, fixed(base))
            pending.settle_touched(p, True)
            check(p)
            funds = fixed(np.full(KEYS, spendable, np.uint64))
            exists = np.ones(KEYS, np.uint8)
            exists.flags.writeable = False
            pending.update_accounts(p, fixed(keys), exists, funds, fixed(base))
            pending.settle_touched(p, True)
            check(p)
