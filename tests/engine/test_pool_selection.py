"""What a payload takes from the pool: limits of every kind, and room for accounts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine import pool_selection
from engine.codec import PayloadLimits, payload_bytes
from engine.mempool import Mempool
from engine.pool_rules import BATCH_MAX, ROW_BYTES, PoolLimits
from engine.pool_selection import BATCH_MIN, JUDGED_SHARE, Selection, select
from engine.state import State
from engine.transition import LedgerRules
from kernels.backend import Backend, open_backend
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, accounts, key, open_state
from tests.engine.test_mempool_model import checked, read_of

AMPLE = 2**30


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """Open the vectorised arm."""
    opened = open_backend("cpu", 2)
    yield opened
    opened.close()


def transfer(sender: int, nonce: int, recipient: int, fee: int = 1) -> Any:
    """Return an unsigned transfer between account numbers."""
    return oracle.Transaction(CHAIN_ID, nonce, 99, 10, fee, key(sender), key(recipient))


def filled(
    made: list[Any], transactions: list[Any], accounts_max: int = 1_000, rows: int = 1_000
) -> Mempool:
    """Return a pool with transactions in it."""
    rules = LedgerRules(fee_minimum=1, account_minimum=5, accounts_max=accounts_max)
    pool = Mempool(rules=rules, height=0, secret=bytes(64), limits=PoolLimits(transactions=rows))
    by_key = {account.key: account for account in made}
    keys = [item.sender for item in transactions] + [item.recipient for item in transactions]
    codes = pool.add(checked(transactions), read_of(by_key, keys), now_ms=1)
    assert not codes.any()
    return pool


def lanes(selection: Selection) -> list[list[Any]]:
    """Return a selection as the oracle reads its payload."""
    ample = oracle.Limits(AMPLE, AMPLE, AMPLE)
    found: list[list[Any]] = oracle.decode_payload(selection.payload(), ample)
    return found


def chosen(pool: Mempool, state: State, **limits: int) -> list[list[Any]]:
    """Return the lanes that are chosen, limits being ample unless they are named."""
    named = {"bytes": AMPLE, "transactions": AMPLE, "objects": AMPLE, **limits}
    return lanes(select(pool, state, height=1, limits=PayloadLimits(**named)))


@pytest.mark.parametrize("most", [0, 1, 2, 5, 6, 100])
def test_transactions_are_bounded(backend: Backend, most: int) -> None:
    """The best ones are taken, earlier ones first among equals; lanes by their first."""
    made = accounts([1_000] * 3)
    queue = [transfer(n % 3, n // 3, 2, fee=1 + n % 3) for n in range(6)]
    found = chosen(filled(made, queue), open_state(made, backend), transactions=most)
    best = [queue[n] for n in (2, 5, 1, 4, 0, 3)]
    assert [item for lane in found for item in lane] == best[:most]


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_lanes_are_bounded(backend: Backend, most: int) -> None:
    """No more senders than objects may be written, each with all that it has."""
    made = accounts([1_000] * 3)
    queue = [transfer(n % 3, n // 3, 2) for n in range(6)]
    found = chosen(filled(made, queue), open_state(made, backend), objects=most)
    assert [len(lane) for lane in found] == [2] * most


@pytest.mark.parametrize("count", [1, 7, 60, 200])
def test_what_is_not_judged_could_not_go_in(
    backend: Backend, count: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few are judged at first, the payload is that of judging all that wait at once."""
    made = accounts([10**6] * 40)
    for account in made[::3]:
        account.nonce = int(rng.integers(3))
    queue = [
        transfer(sender, nonce, int(rng.integers(50)), fee=int(rng.integers(1, 6)))
        for nonce in range(5)
        for sender in rng.permutation(40).tolist()
    ]
    pool = filled(made, [item for item in queue if item.nonce >= nonce_of(made, item)][:count])
    for account in made[::5]:
        account.nonce += 1  # the parent stands ahead of the pool's head
    state = open_state(made, backend)
    for objects in (0, 1, 2, 5, 39, 40, 100):
        for most in (1, 3, 20, 1_000):
            limits = PayloadLimits(bytes=AMPLE, transactions=most, objects=objects)
            with monkeypatch.context() as patched:
                patched.setattr(pool_selection, "BATCH_MIN", 1_000)
                whole = select(pool, state, height=1, limits=limits)
                patched.setattr(pool_selection, "BATCH_MIN", 1)
                patched.setattr(pool_selection, "JUDGED_SHARE", 1_000)
                found = select(pool, state, height=1, limits=limits)
            assert whole.judged_count == pool.ready_count
            assert found.payload() == whole.payload()
            assert not found.is_cut


def nonce_of(made: list[Any], item: Any) -> int:
    """Return the nonce of a transaction's sender."""
    return next(int(account.nonce) for account in made if account.key == item.sender)


def test_few_lanes_do_not_make_the_whole_pool_be_judged(backend: Backend) -> None:
    """With room for 3 lanes and many transactions, the rows of three senders are judged again."""
    made = accounts([10**6] * 3_000)
    queue = [transfer(n, 0, 2, fee=9 if n < 3 else 1) for n in range(3_000)]
    queue += [transfer(0, nonce, 2, fee=1) for nonce in range(1, 5)]
    pool = filled(made, queue, accounts_max=10_000, rows=4_000)
    limits = PayloadLimits(bytes=AMPLE, transactions=AMPLE, objects=3)
    found = select(pool, open_state(made, backend), height=1, limits=limits)
    assert [len(lane) for lane in lanes(found)] == [5, 1, 1]
    assert found.judged_count == 7
    assert not found.is_cut


def test_rows_of_no_use_are_judged_up_to_a_bound(backend: Backend) -> None:
    """Where the best that wait are used on the parent, a bounded number of them is looked at."""
    count = JUDGED_SHARE * BATCH_MIN
    made = accounts([10**6] * (count + 5))
    queue = [transfer(n, 0, 2, fee=9 if n < count else 1) for n in range(count + 5)]
    pool = filled(made, queue, accounts_max=10**6, rows=count + 5)
    limits = PayloadLimits(bytes=AMPLE, transactions=10, objects=10)
    for used, kept in ((count, 0), (count - 1, 1)):
        for number, account in enumerate(made):
            account.nonce = int(number < used)
        found = select(pool, open_state(made, backend), height=1, limits=limits)
        assert (len(found.records), found.judged_count) == (kept, count)
        assert found.is_cut


def test_bytes_are_bounded(backend: Backend) -> None:
    """As many as fit: one byte less, and there is one transaction less."""
    made = accounts([1_000] * 3)
    pool = filled(made, [transfer(n % 3, n // 3, 2) for n in range(6)])
    state = open_state(made, backend)
    for count, lane_count in ((1, 1), (2, 2), (3, 3), (5, 3), (6, 3)):
        length = payload_bytes(lane_count, count)
        assert sum(map(len, chosen(pool, state, bytes=length))) == count
        fewer = chosen(pool, state, bytes=length - 1)
        assert sum(map(len, fewer)) == count - 1
        assert payload_bytes(len(fewer), count - 1) < length


def test_room_for_new_accounts_is_kept(backend: Backend) -> None:
    """With room for two accounts one new recipient is paid, beside a new fee recipient."""
    made = accounts([1_000] * 4)
    queue = [transfer(0, 0, 50), transfer(1, 0, 2), transfer(2, 0, 51), transfer(3, 0, 0)]
    found = chosen(filled(made, queue, accounts_max=6), open_state(made, backend))
    assert [item.recipient for lane in found for item in lane] == [key(50), key(2), key(0)]


def test_an_empty_pool(backend: Backend) -> None:
    """Nothing gives the empty payload."""
    made = accounts([1])
    assert chosen(filled(made, []), open_state(made, backend)) == []


@pytest.mark.parametrize("rows", [1, 1_000, 33_333, 600_000])
def test_memory_of_what_waits_is_bounded(rows: int) -> None:
    """A limit in bytes is a limit in rows, beside room for one batch that is judged."""
    limits = PoolLimits(transactions=2_000_000, bytes=rows * ROW_BYTES, outcomes=1, refusals=1)
    rules = LedgerRules(fee_minimum=1, account_minimum=5, accounts_max=1_000)
    counts = Mempool(rules=rules, height=0, secret=bytes(64), limits=limits).counts()
    assert counts.pending_max == rows
    assert counts.resident_bytes_max <= (rows + BATCH_MAX) * ROW_BYTES + 4_096
