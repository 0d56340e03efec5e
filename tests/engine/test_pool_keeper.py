"""The pool behind the service: forks bring back, restarts keep, the chain says what is included."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import pool_keeper, pool_selection
from engine.events import Notice
from engine.executor import Executor
from engine.pool_file import POOL_FILE_NAME, write_pool
from engine.pool_keeper import PoolKeeper
from engine.pool_rules import BATCH_MAX, PoolLimits, PoolReason, PoolStatus
from engine.store.errors import full
from engine.store.store import Store
from engine_api.types import (
    Attributes,
    EngineApiError,
    ErrorCode,
    Limits,
    PayloadRequest,
    SubmitResult,
    Verdict,
)
from spec import oracle
from tests.engine.homes import FEE_RECIPIENT, SENDERS, Home, Maker, key_pair, small_genesis
from tests.engine_api.toy import Block

ALL_QUEUED = {SubmitResult.QUEUED}
THREADS = 8
WAIT_S = 30


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Open a fresh home with a service."""
    made = Home(tmp_path / "home")
    yield made
    assert made.service.failure == ""
    made.close()


def records(transactions: Sequence[Any]) -> bytes:
    """Return transactions as records."""
    return b"".join(oracle.encode_transaction(item) for item in transactions)


def transfers(home: Home, count: int, first: int = 0) -> list[Any]:
    """Return transfers of all senders, nonces in order."""
    return [
        home.maker.transaction(n % SENDERS, n // SENDERS, bytes([1 + n % 250]) * 32)
        for n in range(first, first + count)
    ]


def follow(home: Home, block: Block, final: Block | None = None) -> None:
    """Send a block and make it the head."""
    assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID
    bottom = final.hash if final else home.service.get_status().finalized.hash
    home.service.forkchoice_updated(block.hash, bottom, bottom)


def built_on(home: Home, parent: Block | None, most: int = 1_000) -> list[Any]:
    """Return the transactions of a payload that is built on a block, at most so many."""
    request = PayloadRequest(
        parent_hash=parent.hash if parent else home.maker.hash,
        height=parent.height + 1 if parent else 1,
        limits=Limits(bytes=2**20, transactions=most, objects=1_000),
        attributes=Attributes(timestamp_ms=2**40, fee_recipient=FEE_RECIPIENT),
        wait_ms=0,
    )
    built = home.service.get_payload(request).built
    assert built is not None
    lanes = oracle.decode_payload(bytes(built.payload), home.maker.ledger.limits)
    return [item for lane in lanes for item in lane]


def statuses(home: Home, transactions: Sequence[Any]) -> set[PoolStatus]:
    """Return the statuses of transactions."""
    return {home.service.status_of(oracle.transaction_hash(item)).status for item in transactions}


def test_what_an_abandoned_branch_had_comes_back(home: Home) -> None:
    """Pending, included, pending again when another branch is followed, final in the end."""
    first, second = transfers(home, 16), transfers(home, 8, 16)
    assert set(home.service.submit(records(first)).results) == ALL_QUEUED
    assert statuses(home, first) == {PoolStatus.PENDING}
    lower = home.maker.block_of(None, first, 2_000)
    upper = home.maker.block_of(lower, second, 3_000)
    follow(home, lower)
    follow(home, upper)
    assert home.service.queued_count == 0
    assert statuses(home, [*first, *second]) == {PoolStatus.INCLUDED}
    beside = home.maker.block_of(None, first[:3], 2_001)
    follow(home, beside)
    assert home.service.queued_count == 21
    assert statuses(home, first[:3]) == {PoolStatus.INCLUDED}
    assert statuses(home, [*first[3:], *second]) == {PoolStatus.PENDING}
    rest = built_on(home, beside)
    assert sorted(map(oracle.transaction_hash, rest)) == sorted(
        map(oracle.transaction_hash, [*first[3:], *second])
    )
    last = home.maker.block_of(beside, rest, 4_000)
    follow(home, last, final=last)
    assert home.service.queued_count == 0
    assert statuses(home, [*first, *second]) == {PoolStatus.FINALIZED}
    home.service.wait_indexed()
    home.restart()
    assert statuses(home, [*first, *second]) == {PoolStatus.FINALIZED}


def test_a_head_that_goes_back_to_an_ancestor(home: Home) -> None:
    """Forkchoice may name an ancestor: what stood above it waits again."""
    first = transfers(home, 8)
    lower = home.maker.block_of(None, [], 2_000)
    upper = home.maker.block_of(lower, first, 3_000)
    follow(home, lower)
    follow(home, upper)
    home.service.forkchoice_updated(lower.hash, home.maker.hash, home.maker.hash)
    assert statuses(home, first) == {PoolStatus.PENDING}
    assert sorted(map(oracle.transaction_hash, built_on(home, lower))) == sorted(
        map(oracle.transaction_hash, first)
    )


def test_an_account_that_an_abandoned_block_made(home: Home) -> None:
    """What it would send goes with it, where fewer accounts change than senders wait."""
    payment = home.maker.transaction(0, 0, key_pair(99)[0], amount=1_000)
    lower = home.maker.block_of(None, [], 2_000)
    upper = home.maker.block_of(lower, [payment], 3_000)
    follow(home, lower)
    follow(home, upper)
    spent = home.maker.transaction(99, 0, b"\x02" * 32)
    others = transfers(home, SENDERS - 1, 1)
    assert set(home.service.submit(records([spent, *others])).results) == ALL_QUEUED
    home.service.forkchoice_updated(lower.hash, home.maker.hash, home.maker.hash)
    assert set(built_on(home, lower)) == {payment, *others}
    assert statuses(home, [payment, *others]) == {PoolStatus.PENDING}
    assert statuses(home, [spent]) == {PoolStatus.DROPPED}


def test_another_transaction_with_the_nonce(home: Home) -> None:
    """A block that nobody submitted takes the nonce: what waited with it was replaced."""
    mine = home.maker.transaction(0, 0, b"\x01" * 32)
    late = home.maker.transaction(0, 1, b"\x02" * 32)
    home.service.submit(records([mine, late]))
    theirs = home.maker.transaction(0, 0, b"\x03" * 32)
    follow(home, home.maker.block_of(None, [theirs], 2_000))
    answer = home.service.status_of(oracle.transaction_hash(mine))
    assert (answer.status, answer.reason) == (PoolStatus.REPLACED, PoolReason.NONCE_USED)
    assert answer.at_ms > 0
    assert statuses(home, [late]) == {PoolStatus.PENDING}
    assert statuses(home, [theirs]) == {PoolStatus.INCLUDED}


def test_a_parent_ahead_of_the_head(home: Home) -> None:
    """Nothing is offered twice on a block that is VALID but not followed yet."""
    first = transfers(home, 24)
    home.service.submit(records(first))
    block = home.maker.block_of(None, first[:10], 2_000)
    assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID
    built = built_on(home, block)
    assert sorted(map(oracle.transaction_hash, built)) == sorted(
        map(oracle.transaction_hash, first[10:])
    )
    # Admission looks at the head, wherever the state stands.
    more = transfers(home, 8, 24)
    assert set(home.service.submit(records(more)).results) == ALL_QUEUED
    assert home.service.queued_count == 32


def test_a_head_whose_child_is_executed_already(home: Home) -> None:
    """The state stays where it is, and the pool sees the accounts of the head."""
    first, second = transfers(home, 16), transfers(home, 12, 16)
    lower = home.maker.block_of(None, first, 2_000)
    upper = home.maker.block_of(lower, second, 3_000)
    home.service.submit(records([*first, *second]))
    for block in (lower, upper):
        assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID
    before = home.service.ask("a look", lambda executor: executor.chain.state.generation)
    home.service.forkchoice_updated(lower.hash, lower.hash, lower.hash)
    after = home.service.ask("a look", lambda executor: executor.chain.state.generation)
    assert after == before
    assert home.service.get_status().head.hash == lower.hash
    assert statuses(home, second) == {PoolStatus.PENDING}
    assert home.service.queued_count == len(second)
    again = home.maker.transaction(0, 2, b"\x03" * 32, fee=second[0].fee + 1)
    assert set(home.service.submit(records([again])).results) == ALL_QUEUED
    assert set(built_on(home, lower)) == {again, *second[1:]}
    follow(home, upper, final=upper)
    assert home.service.queued_count == 0


@pytest.mark.parametrize("is_final", [False, True])
def test_a_head_that_the_disk_has_no_room_for(
    home: Home, monkeypatch: pytest.MonkeyPatch, is_final: bool
) -> None:
    """The pool goes back to the head that stays, whatever is executed beside it."""
    first, second = transfers(home, 16), transfers(home, 8, 16)
    assert set(home.service.submit(records([*first, *second])).results) == ALL_QUEUED
    kept = home.maker.block_of(None, first, 2_000)
    follow(home, kept)
    other = home.maker.block_of(None, first[:3], 2_001)
    assert home.service.new_payload(other.header, other.payload).verdict is Verdict.VALID

    def no_room(*_: object) -> None:
        raise full(home.folder, "no room")

    bottom = other.hash if is_final else home.maker.hash
    with monkeypatch.context() as patched:
        patched.setattr(Store, "finalize", no_room)
        with pytest.raises(EngineApiError) as caught:
            home.service.forkchoice_updated(other.hash, bottom, bottom)
    assert caught.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert home.service.get_status().head.hash == kept.hash
    assert statuses(home, first) == {PoolStatus.INCLUDED}
    assert statuses(home, second) == {PoolStatus.PENDING}
    for salt in (3, 4, 5):  # more blocks than results are kept of
        parent: Block | None = None
        for _ in range(6):
            parent = home.maker.block(parent, salt)
            assert home.service.new_payload(parent.header, parent.payload).verdict is Verdict.VALID
    more = transfers(home, 4, 24)
    assert set(home.service.submit(records(more)).results) == ALL_QUEUED
    assert home.service.queued_count == len(second) + len(more)
    home.service.forkchoice_updated(other.hash, bottom, bottom)
    assert statuses(home, first[:3]) == {PoolStatus.FINALIZED if is_final else PoolStatus.INCLUDED}
    assert home.service.queued_count == 13 + len(second) + len(more)


def test_batches_that_cannot_be_judged_do_not_wait(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the writer's turn fails before the first batch, each of those that wait is told."""

    def fails(*_: object) -> int:
        raise EngineApiError(ErrorCode.RESOURCE_EXHAUSTED, "not now")

    with monkeypatch.context() as patched, ThreadPoolExecutor(THREADS) as threads:
        patched.setattr(pool_keeper, "count_at", fails)
        one = records(transfers(home, 1))
        asked = [threads.submit(home.service.submit, one) for _ in range(THREADS)]
        for item in asked:
            assert isinstance(item.exception(WAIT_S), EngineApiError)
    assert set(home.service.submit(records(transfers(home, 1))).results) == ALL_QUEUED


def test_room_is_that_of_the_head(tmp_path: Path) -> None:
    """Accounts of a block above the head take no room yet; what the head lacks is not dropped."""
    home = Home(tmp_path / "home", Maker(small_genesis(SENDERS, accounts_max=SENDERS + 3)))
    make, new = home.maker.transaction, bytes(32)
    waiting = make(0, 0, b"\x01" * 32)
    home.service.submit(records([waiting]))
    lower = home.maker.block_of(None, [make(1, 0, key_pair(2)[0])], 2_000)
    full = home.maker.block_of(lower, [make(2, 0, new)], 3_000)
    for block in (lower, full):
        assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID
    home.service.forkchoice_updated(lower.hash, home.maker.hash, home.maker.hash)
    assert statuses(home, [waiting]) == {PoolStatus.PENDING}
    home.service.forkchoice_updated(full.hash, home.maker.hash, home.maker.hash)
    assert statuses(home, [waiting]) == {PoolStatus.DROPPED}
    home.close()


def test_a_chain_without_room_for_accounts(tmp_path: Path) -> None:
    """What would create an account is refused, and what waited goes: it would stop its sender."""
    home = Home(tmp_path / "home", Maker(small_genesis(SENDERS, accounts_max=SENDERS + 3)))
    make, known, new = home.maker.transaction, key_pair(1)[0], [bytes([n]) * 32 for n in range(4)]
    queue = [make(0, 0, new[0]), make(0, 1, known), make(3, 0, new[1])]
    assert set(home.service.admit(records(queue))) == {PoolReason.ACCEPTED}
    assert built_on(home, None) == queue
    full = home.maker.block_of(None, [make(2, 0, new[2]), make(2, 1, new[3])], 1_500)
    home.service.new_payload(full.header, full.payload)
    queue.append(make(5, 0, new[1]))
    assert set(home.service.admit(records(queue[3:]))) == {PoolReason.ACCEPTED}
    follow(home, full)
    built_on(home, None)
    for item in (queue[0], queue[2], queue[3]):
        answer = home.service.status_of(oracle.transaction_hash(item))
        assert (answer.status, answer.reason) == (PoolStatus.DROPPED, PoolReason.ACCOUNTS_FULL)
    again = [make(0, 0, new[0], fee=2), make(0, 0, known), make(3, 0, new[2])]
    assert home.service.admit(records(again)).tolist() == [
        PoolReason.ACCOUNTS_FULL,
        PoolReason.ACCEPTED,
        PoolReason.ACCEPTED,
    ]
    assert set(built_on(home, full)) == {again[1], queue[1], again[2]}
    other = home.maker.block_of(None, [make(2, 0, known)], 1_600)
    follow(home, other)
    assert statuses(home, [again[2]]) == {PoolStatus.PENDING}
    assert home.service.admit(records([make(4, 0, new[0])])).tolist() == [PoolReason.ACCEPTED]
    follow(home, home.maker.block_of(full, [make(2, 2, known)], 2_500))
    assert statuses(home, [make(4, 0, new[0])]) == {PoolStatus.DROPPED}
    assert home.service.failure == ""
    home.close()


def test_reasons_are_told(home: Home) -> None:
    """`admit` says for each record why, `submit` what to do."""
    good = home.maker.transaction(0, 0, b"\x01" * 32)
    batch = records(
        [
            good,
            home.maker.transaction(0, 0, b"\x02" * 32),
            home.maker.transaction(1, 0, b"\x02" * 32, amount=1),
            home.maker.transaction(2, 0, b"\x02" * 32, fee=0),
            home.maker.transaction(3, 0, b"\x02" * 32, amount=10**12),
            home.maker.transaction(SENDERS, 0, b"\x02" * 32),
            good,
        ]
    )
    codes = [PoolReason(int(code)) for code in home.service.admit(batch)]
    assert codes == [
        PoolReason.ACCEPTED,
        PoolReason.FEE_BUMP_TOO_LOW,
        PoolReason.RECIPIENT_BELOW_MINIMUM,
        PoolReason.FEE_BELOW_MINIMUM,
        PoolReason.INSUFFICIENT_BALANCE,
        PoolReason.UNKNOWN_SENDER,
        PoolReason.DUPLICATE,
    ]
    queued, refused = SubmitResult.QUEUED, SubmitResult.REFUSED
    assert list(home.service.submit(batch).results) == [queued, *[refused] * 5, queued]


def test_a_choice_that_was_cut_is_told_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the best that wait are used on the parent, the others are not all looked at."""
    monkeypatch.setattr(pool_selection, "BATCH_MIN", 1)
    monkeypatch.setattr(pool_selection, "JUDGED_SHARE", 2)
    made = transfers(home, 8)
    home.service.submit(records(made))
    parent = home.maker.block_of(None, made[:5], 2_000)
    home.service.new_payload(parent.header, parent.payload)

    def told() -> int:
        """Count the times that it was said."""
        notices = [event.text for event in home.events if isinstance(event, Notice)]
        return sum("were not looked at" in text for text in notices)

    assert [len(built_on(home, parent, 2)) for _ in range(2)] == [0, 0]
    assert told() == 1
    assert (len(built_on(home, None, 2)), told()) == (2, 1)
    assert (len(built_on(home, parent, 2)), told()) == (0, 2)
    assert (len(built_on(home, parent, 4)), told()) == (3, 2)


def test_a_clean_restart_keeps_what_waits(home: Home) -> None:
    """The next process has the same pool, verified every signature anew, and removed the file."""
    first = transfers(home, 24)
    home.service.submit(records(first))
    parked = home.maker.transaction(0, 50, b"\x09" * 32)
    home.service.submit(records([parked]))
    home.restart()
    assert not (home.folder / POOL_FILE_NAME).exists()
    assert home.service.queued_count == 25
    assert home.service.pool.counts().parked == 1
    assert len(built_on(home, None)) == 24


def test_a_restart_does_not_claim_to_know_what_was_before(home: Home) -> None:
    """Outcomes end with the process: the answer says that they are known since it started."""

    def opened(executor: Executor) -> PoolKeeper:
        """Return a pool that starts at 77 ms."""
        return PoolKeeper(executor, report=home.events.append, clock_ms=lambda: 77)

    answer = home.service.ask("a pool was opened", opened).status_of(bytes(32))
    assert (answer.status, answer.covered_from_ms) == (PoolStatus.UNKNOWN, 77)
    assert home.service.status_of(bytes(32)).covered_from_ms > 77


def test_a_smaller_pool_keeps_the_best_of_the_file(tmp_path: Path) -> None:
    """What the last process had beyond the new limit goes by its fee, and is known as dropped."""
    senders, rows = 9, 64
    home = Home(
        tmp_path / "home", Maker(senders=senders), pool_limits=PoolLimits(transactions=rows)
    )
    home.close()
    made = [
        home.maker.transaction(n % senders, n // senders, key_pair(0)[0], fee=1 + n % senders)
        for n in range(BATCH_MAX + 2 * rows)
    ]
    data = np.frombuffer(records(made), np.uint8).reshape(-1, 192)
    write_pool(home.folder / POOL_FILE_NAME, home.maker.hash, data)
    home.open()
    best = [item for item in made if item.fee == senders][: rows - 1]
    assert home.service.pool.records().tobytes() == records(best)
    assert statuses(home, made[:senders]) == {PoolStatus.PENDING, PoolStatus.DROPPED}
    notices = [event.text for event in home.events if isinstance(event, Notice)]
    assert f"{rows - 1} of {len(made)} transactions wait again" in notices
    home.close()


def test_a_file_is_not_believed(home: Home) -> None:
    """A signature that is not valid does not come in by the file; a damaged file is left alone."""
    good, bad = transfers(home, 2)
    data = bytearray(records([good, bad]))
    data[-1] ^= 1
    home.close()
    path = home.folder / POOL_FILE_NAME
    write_pool(path, home.maker.hash, np.frombuffer(bytes(data), np.uint8).reshape(-1, 192))
    home.open()
    assert statuses(home, [good]) == {PoolStatus.PENDING}
    assert statuses(home, [bad]) == {PoolStatus.UNKNOWN}
    home.close()
    path.write_bytes(path.read_bytes()[:-1])
    home.open()
    assert home.service.queued_count == 0
    notices = [event.text for event in home.events if isinstance(event, Notice)]
    assert any("the pool starts empty" in text for text in notices)


def test_many_at_once(home: Home) -> None:
    """Batches from many threads while blocks are followed: each has its answer, nothing is lost."""
    made = transfers(home, 400)
    lanes = [[item for item in made if item.sender == one.sender] for one in made[:SENDERS]]
    begin = threading.Barrier(THREADS + 1)

    def send(lane: list[Any]) -> set[int]:
        begin.wait()
        return {
            answer
            for start in range(0, len(lane), 5)
            for answer in home.service.submit(records(lane[start : start + 5])).results
        }

    with ThreadPoolExecutor(THREADS) as threads:
        answers = [threads.submit(send, lane) for lane in lanes]
        begin.wait()
        parent: Block | None = None
        for height in range(1, 6):
            parent = home.maker.block_of(parent, [], 1_000 * height)
            follow(home, parent)
        assert set().union(*(answer.result() for answer in answers)) == ALL_QUEUED
    assert home.service.queued_count == 400
    assert len(built_on(home, parent)) == 400
