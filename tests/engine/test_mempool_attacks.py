"""What strangers may try on the pool: honest transactions go on, memory stays in its bound."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.codec import PayloadLimits
from engine.mempool import Mempool
from engine.pool_accounts import read_accounts
from engine.pool_admission import Admission
from engine.pool_rules import FREED_SHARE, PoolLimits, PoolReason, PoolStatus
from engine.pool_selection import select
from engine.state import State
from engine.transition import LedgerRules
from engine.verified import VerifiedMarks
from kernels.backend import Backend, open_backend
from kernels.insecure_signer import insecure_public_keys, insecure_sign
from kernels.layout import U8
from kernels.pending import CHAIN_MAX, PARKED_MAX

CHAIN_ID = 7
DOMAIN = bytes(range(32))
ROWS = 20_000
ACCOUNTS = 64
HONEST = range(1, ACCOUNTS)
BALANCE = 10**12


class Net:
    """A pool with accounts that can sign, and a count of the signatures that were verified."""

    def __init__(self, backend: Backend) -> None:
        """Start with an empty pool."""
        self.seeds = np.zeros((ACCOUNTS, 32), np.uint8)
        self.seeds[:, 0] = np.arange(ACCOUNTS)
        self.keys = insecure_public_keys(self.seeds)
        self.state = State(self.keys, np.full(ACCOUNTS, BALANCE, np.uint64), backend=backend)
        self.pool = Mempool(
            rules=LedgerRules(1, 5, 10**6),
            height=0,
            secret=bytes(64),
            limits=PoolLimits(transactions=ROWS, outcomes=4_096, refusals=1_024),
        )
        self.marks = VerifiedMarks(2**16)
        self.admission = Admission(
            self.pool,
            chain_id=CHAIN_ID,
            domain=DOMAIN,
            backend=lambda: backend,
            marks=self.marks,
        )

    def records(self, senders: Any, nonces: Any, fees: Any) -> U8:
        """Return signed transfers, (n, 192); arguments are broadcast."""
        parts = np.broadcast_arrays(np.atleast_1d(senders), nonces, fees)
        sender = parts[0].astype(np.int64)
        words = np.zeros((len(sender), 24), np.uint64)
        words[:, 0] = 1 | CHAIN_ID << 32
        words[:, 1], words[:, 2], words[:, 3] = parts[1], 100, 10
        words[:, 4] = parts[2]
        records = words.view(np.uint8)
        records[:, 64:96] = self.keys[sender]
        records[:, 96:128] = self.keys[0]
        messages = np.empty((len(sender), 160), np.uint8)
        messages[:, :32] = np.frombuffer(DOMAIN, np.uint8)
        messages[:, 32:] = records[:, :128]
        records[:, 128:] = insecure_sign(self.seeds[sender], self.keys[sender], messages)
        return records

    def send(self, records: U8) -> list[PoolReason]:
        """Send records in one batch."""
        checked = self.admission.check(records.tobytes())
        keys = np.concatenate([checked.senders, checked.recipients])
        read = read_accounts(self.state.accounts, keys)
        return [PoolReason(int(code)) for code in self.pool.add(checked, read, now_ms=1)]

    def chosen(self, count: int) -> U8:
        """Return the records of a payload."""
        limits = PayloadLimits(bytes=2**30, transactions=count, objects=count)
        return select(self.pool, self.state, height=1, limits=limits).records


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """Open the vectorised arm."""
    opened = open_backend("cpu", 2)
    yield opened
    opened.close()


@pytest.fixture
def net(backend: Backend) -> Iterator[Net]:
    """Return an empty pool; afterwards its memory is what it was, and its rows are in the bound."""
    made = Net(backend)
    before = made.pool.counts()
    yield made
    after = made.pool.counts()
    assert after.resident_bytes_max == before.resident_bytes_max
    assert after.pending <= after.pending_max == ROWS
    assert after.outcomes <= 4_096 + 1_024


def test_nonce_gaps(net: Net) -> None:
    """A sender parks 64 transactions at most; they take no place in a payload, and others do."""
    answers = net.send(net.records(0, np.arange(1, 1_001), 100))
    assert answers[:PARKED_MAX] == [PoolReason.ACCEPTED] * PARKED_MAX
    assert set(answers[PARKED_MAX:]) == {PoolReason.TOO_MANY_PARKED}
    honest = net.records(np.array(HONEST), 0, 1)
    assert set(net.send(honest)) == {PoolReason.ACCEPTED}
    assert sorted(net.chosen(1_000).tolist()) == sorted(honest.tolist())


def test_one_sender_fills_nothing(net: Net) -> None:
    """A sender has 4,096 transactions at most; a better fee comes first all the same."""
    answers = net.send(net.records(0, np.arange(CHAIN_MAX + 500), 50))
    assert answers.count(PoolReason.ACCEPTED) == CHAIN_MAX
    assert set(answers[CHAIN_MAX:]) == {PoolReason.NONCE_TOO_FAR}
    honest = net.records(np.array(HONEST), 0, 51)
    assert set(net.send(honest)) == {PoolReason.ACCEPTED}
    assert net.chosen(len(honest)).tolist() == honest.tolist()


def test_a_cheap_early_nonce_lowers_its_followers(net: Net) -> None:
    """A rich fee behind a cheap one buys nothing before the cheap one is worth its place."""
    net.send(net.records(0, np.arange(3), np.array([2, 10**6, 10**6])))
    net.send(net.records(np.array([1, 2]), 0, np.array([3, 1])))
    order = net.chosen(10)[:, 64:96]
    assert [net.keys.tolist().index(key.tolist()) for key in order] == [1, 0, 0, 0, 2]


def test_fee_bump_storms(net: Net) -> None:
    """Each replacement pays a tenth more, so a storm ends; nothing piles up meanwhile."""
    honest = net.records(np.array(HONEST), 0, 5)
    net.send(net.records(0, np.arange(CHAIN_MAX), 100))
    fees = np.arange(100, 400)
    answers = net.send(net.records(0, 0, fees))
    taken = [fee for fee, answer in zip(fees.tolist(), answers, strict=True) if answer == 0]
    assert all(new * 10 >= old * 11 for old, new in zip([100, *taken], taken, strict=False))
    assert len(taken) < 16
    assert set(answers) == {PoolReason.ACCEPTED, PoolReason.FEE_BUMP_TOO_LOW, PoolReason.DUPLICATE}
    assert len(net.pool) == CHAIN_MAX
    assert set(net.send(honest)) == {PoolReason.ACCEPTED}
    assert net.send(net.records(0, 0, BALANCE)) == [PoolReason.INSUFFICIENT_BALANCE]


def test_bad_signature_floods(net: Net, rng: np.random.Generator) -> None:
    """What is not signed leaves no trace: no row, no outcome, no mark; the honest beside it do."""
    honest = net.records(np.array(HONEST), 0, 5)
    for _ in range(3):
        flood = net.records(np.zeros(2_000, np.int64), np.arange(2_000), 1_000)
        flood[:, 128:] ^= rng.integers(1, 256, (2_000, 64), dtype=np.uint8)
        assert set(net.send(flood)) == {PoolReason.SIGNATURE}
        name = net.admission.check(flood[:1].tobytes()).hashes[0].tobytes()
        assert net.pool.status_of(name).status is PoolStatus.UNKNOWN
    assert net.pool.counts().pending == net.pool.counts().outcomes == 0
    mixed = np.concatenate([flood[:100], honest, flood[100:200]])
    answers = net.send(mixed)
    assert set(answers[100:-100]) == {PoolReason.ACCEPTED}
    assert len(net.pool) == len(honest)


def test_duplicates_from_many_peers(net: Net, backend: Backend, monkeypatch: Any) -> None:
    """The same records again and again are verified once, and stand in one row."""
    verified: list[int] = []
    real = backend.verify_signatures

    def counting(keys: U8, signatures: U8, messages: U8) -> U8:
        verified.append(len(keys))
        return real(keys, signatures, messages)

    monkeypatch.setattr(backend, "verify_signatures", counting)
    records = net.records(np.repeat(np.array(HONEST), 20), np.tile(np.arange(20), len(HONEST)), 5)
    assert set(net.send(records)) == {PoolReason.ACCEPTED}
    for peer in range(20):
        assert set(net.send(np.roll(records, peer, axis=0))) == {PoolReason.DUPLICATE}
    assert verified == [len(records)]
    assert len(net.pool) == len(records)


def test_a_full_pool_lets_the_cheapest_go(net: Net) -> None:
    """Cheap transactions fill the pool; whoever pays more finds room, and is told who does not."""
    for sender in range(6):
        net.send(net.records(sender, np.arange(CHAIN_MAX), 2 + sender))
    assert len(net.pool) <= ROWS
    honest = net.records(np.array(HONEST)[10:], 0, 100)
    for _ in range(2):
        assert set(net.send(honest)) <= {PoolReason.ACCEPTED, PoolReason.DUPLICATE}
    poor = net.records(7, np.arange(2_000), 1)
    room = ROWS - len(net.pool)
    answers = net.send(poor)
    assert answers.count(PoolReason.POOL_FULL) == min(2_000, 2_000 - room + ROWS // FREED_SHARE)
    assert answers.index(PoolReason.POOL_FULL) == answers.count(PoolReason.ACCEPTED)
    name = net.admission.check(poor[-1:].tobytes()).hashes[0].tobytes()
    answer = net.pool.status_of(name)
    assert (answer.status, answer.reason) == (PoolStatus.DROPPED, PoolReason.POOL_FULL)
    assert net.chosen(len(honest)).tolist() == honest.tolist()


def test_floods_of_refused_ones_hide_no_outcomes(net: Net) -> None:
    """Refusals have a ring of their own, and an answer says from when on outcomes are known."""
    record = net.records(1, 0, 5)
    name = net.admission.check(record.tobytes()).hashes[0].tobytes()
    net.send(record)
    net.send(net.records(1, 0, 6))
    for _ in range(3):
        net.send(net.records(0, np.arange(2 * CHAIN_MAX, 2 * CHAIN_MAX + 1_000), 5))
    answer = net.pool.status_of(name)
    assert (answer.status, answer.reason) == (PoolStatus.REPLACED, PoolReason.REPLACED_BY_FEE)
    assert answer.covered_from_ms == 1
