"""What the contract's suite does not ask: deadlines, own builds, full disks, ends."""

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from engine import confirm, executor, indexer
from engine.events import BlockExecuted, Notice, Stopped
from engine.state import State
from engine.store import runs
from engine.store.config import StoreConfig
from engine.types import Amount
from engine_api.protocol import NEVER, Deadline
from engine_api.types import (
    Attributes,
    EngineApiError,
    ErrorCode,
    ForkchoiceStatus,
    Limits,
    NewPayloadAnswer,
    PayloadRequest,
    SubmitResult,
    Verdict,
)
from runtime import durable
from spec import oracle
from tests.engine.homes import FEE_RECIPIENT, SENDERS, Home, Maker, key_pair, small_genesis
from tests.engine_api.toy import Block

WAIT_S = 30
MAX_DISK_BYTES = 600_000
LIMITS = oracle.Limits()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a fresh home."""
    made = Home(tmp_path / "home")
    yield made
    made.close()


def request(home: Home, wait_ms: int = 0) -> PayloadRequest:
    """Return a request on genesis."""
    return PayloadRequest(
        parent_hash=home.maker.hash,
        height=1,
        limits=Limits(bytes=2**20, transactions=100, objects=100),
        attributes=Attributes(timestamp_ms=1_500, fee_recipient=FEE_RECIPIENT),
        wait_ms=wait_ms,
    )


def answer_or_error(
    home: Home, block: Block, deadline: Deadline = NEVER
) -> NewPayloadAnswer | EngineApiError:
    """Send a block and return whatever comes back."""
    try:
        return home.service.new_payload(block.header, block.payload, deadline)
    except EngineApiError as error:
        return error


class StopsAfter:
    """Is cancelled from the n-th time on that it is asked."""

    def __init__(self, count: int) -> None:
        """Let `count` questions pass."""
        self.count = count

    def __call__(self) -> bool:
        """Count a question."""
        self.count -= 1
        return self.count < 0


def test_a_running_call_stops_between_stages(home: Home) -> None:
    """Wherever the caller gives up, nothing has changed, and the same call again is VALID."""
    block = home.maker.block(None, 1)
    before = home.service.get_status()
    stopped_at: set[str] = set()
    for questions in range(100):
        deadline = Deadline(is_cancelled=StopsAfter(questions))
        found = answer_or_error(home, block, deadline)
        if isinstance(found, NewPayloadAnswer):
            assert found.verdict is Verdict.VALID
            break
        assert found.code is ErrorCode.DEADLINE_EXCEEDED
        assert home.service.get_status() == before
        assert home.store.block(block.hash) is None, "one after the other would fill the disk"
        stopped_at.add(found.sentence)
    else:
        raise AssertionError("the call never ended")
    for stage in ("decode", "lookup", "execute", "hash", "verify", "settle"):
        assert any(f"the stage {stage};" in sentence for sentence in stopped_at)
    assert home.service.new_payload(block.header, None).verdict is Verdict.VALID
    child = home.maker.block(block, 1)
    assert home.service.new_payload(child.header, child.payload).verdict is Verdict.VALID


def test_an_own_build_is_executed_once(home: Home) -> None:
    """NewPayload of an own build takes its results; its transactions leave the queue when final."""
    records = [home.maker.transaction(n, 0, bytes([n]) * 32) for n in range(4)]
    batch = b"".join(oracle.encode_transaction(item) for item in records)
    assert home.service.submit(batch).results == bytes([SubmitResult.QUEUED]) * 4
    built = home.service.get_payload(request(home)).built
    assert built is not None
    expected = home.maker.block_of(None, records, 1_500)
    assert bytes(built.payload) == expected.payload
    assert home.service.new_payload(expected.header, None).verdict is Verdict.VALID
    event = next(event for event in home.events if isinstance(event, BlockExecuted))
    assert event.is_own
    assert "execute" not in event.stage_ns
    assert home.service.queued_count == 4
    home.service.forkchoice_updated(expected.hash, expected.hash, expected.hash)
    assert home.service.queued_count == 0
    home.restart()
    assert home.service.get_status().finalized.hash == expected.hash
    child = home.maker.block(expected, 1)
    assert home.service.new_payload(child.header, child.payload).verdict is Verdict.VALID


def test_a_full_chain_without_an_account_for_fees_gets_an_empty_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fees cannot create the last account: an empty payload at once, and no copy of the state."""
    home = Home(tmp_path / "home", Maker(small_genesis(SENDERS, accounts_max=SENDERS)))
    copied: list[State] = []
    copy_of = confirm.StateCopy.of

    def copy(state: State) -> confirm.StateCopy:
        copied.append(state)
        return copy_of(state)

    monkeypatch.setattr(confirm.StateCopy, "of", copy)
    record = home.maker.transaction(0, 0, key_pair(1)[0])
    assert home.service.submit(oracle.encode_transaction(record)).results == b"\x01"
    built = home.service.get_payload(request(home)).built
    assert built is not None
    assert (built.transaction_count, copied) == (0, [])
    paid = replace(request(home), attributes=Attributes(
        timestamp_ms=1_500, fee_recipient=key_pair(2)[0]
    ))  # fmt: skip
    built = home.service.get_payload(paid).built
    assert built is not None
    assert (built.transaction_count, copied) == (1, [])
    home.close()


def test_a_full_chain_that_asks_no_fees_goes_on(tmp_path: Path) -> None:
    """What costs no fee needs no account for it."""
    genesis = replace(small_genesis(SENDERS, accounts_max=SENDERS), fee_minimum=Amount(0))
    home = Home(tmp_path / "home", Maker(genesis))
    record = home.maker.transaction(0, 0, key_pair(1)[0], fee=0)
    assert home.service.submit(oracle.encode_transaction(record)).results == b"\x01"
    built = home.service.get_payload(request(home)).built
    assert built is not None
    assert built.transaction_count == 1
    home.close()


def test_another_time_or_recipient_is_another_build(home: Home) -> None:
    """A header that differs in what a build is recognised by is executed like any other."""
    batch = oracle.encode_transaction(home.maker.transaction(0, 0, b"\x01" * 32))
    home.service.submit(batch)
    built = home.service.get_payload(request(home)).built
    assert built is not None
    other = home.maker.block_of(None, [home.maker.transaction(0, 0, b"\x01" * 32)], 1_600)
    assert home.service.new_payload(other.header, None).verdict is Verdict.VALID
    event = next(event for event in home.events if isinstance(event, BlockExecuted))
    assert not event.is_own


def test_get_payload_returns_as_soon_as_there_is_work(home: Home) -> None:
    """A request that may wait long ends when something is submitted."""
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(home.service.get_payload, request(home, wait_ms=60_000))
        batch = oracle.encode_transaction(home.maker.transaction(0, 0, b"\x01" * 32))
        home.service.submit(batch)
        built = call.result(WAIT_S).built
    assert built is not None
    assert built.transaction_count == 1


def test_signatures_are_verified_once(home: Home) -> None:
    """What was verified at admission is not verified again in a block."""
    block = home.maker.block(None, 1, 5)
    lanes = oracle.decode_payload(bytes(block.payload), home.maker.ledger.limits)
    records = b"".join(oracle.encode_transaction(item) for lane in lanes for item in lane)
    home.service.submit(records)
    backend = home.service._executor.chain.state.backend
    asked: list[int] = []
    real = backend.verify_signatures

    def counting(keys: object, *rest: object) -> object:
        asked.append(len(keys))  # type: ignore[arg-type]  # an array
        return real(keys, *rest)  # type: ignore[arg-type]  # handed through

    backend.verify_signatures = counting  # type: ignore[method-assign,assignment]  # to count
    assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID
    assert asked == []
    child = home.maker.block(block, 1, 5)
    assert home.service.new_payload(child.header, child.payload).verdict is Verdict.VALID
    assert asked == [5]


def test_unfinalized_blocks_are_bounded(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distinct VALID blocks take no more room beyond the bound; finalizing one makes room again."""
    monkeypatch.setattr(executor, "STORED_MAX", 5)
    blocks = [home.maker.block(None, salt) for salt in range(9)]
    for block in blocks[:5]:
        assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID
    used = home.store.disk_use().blocks
    for block in blocks[5:]:
        with pytest.raises(EngineApiError) as caught:
            home.service.new_payload(block.header, block.payload)
        assert caught.value.code is ErrorCode.RESOURCE_EXHAUSTED
        assert home.store.disk_use().blocks == used
    final = blocks[0].hash
    home.service.forkchoice_updated(final, final, final)
    child = home.maker.block(blocks[0], 1)
    assert home.service.new_payload(child.header, child.payload).verdict is Verdict.VALID
    assert len(home.store.unfinalized()) == 1


def test_a_full_disk_is_an_error_and_room_heals_it(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED before anything is written; never INVALID; the service goes on."""
    home = Home(
        tmp_path / "home", config=StoreConfig(free_bytes_min=0, max_disk_bytes=MAX_DISK_BYTES)
    )
    parent: Block | None = None
    accepted: list[Block] = []
    for _ in range(8):
        block = home.maker.block(parent, 1, 500)
        found = answer_or_error(home, block)
        if isinstance(found, EngineApiError):
            assert found.code is ErrorCode.RESOURCE_EXHAUSTED
            break
        assert home.store.disk_use().total < MAX_DISK_BYTES
        assert found.verdict is Verdict.VALID
        accepted.append(block)
        parent = block
    else:
        raise AssertionError("the disk never filled")
    assert accepted
    assert home.service.failure == home.service.degraded == ""
    assert len(home.service.get_status().unfinalized) == len(accepted)
    status = home.service.forkchoice_updated(
        accepted[-1].hash, accepted[-1].hash, accepted[-1].hash
    ).status
    assert status is ForkchoiceStatus.OK
    home.close()


def test_a_disk_that_fails_stops_the_service(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync nobody knows what is kept: INTERNAL, health says so, for good."""
    block = home.maker.block(None, 1)

    def fail(_: int) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        for _ in range(2):
            with pytest.raises(EngineApiError) as caught:
                home.service.new_payload(block.header, block.payload)
            assert caught.value.code is ErrorCode.INTERNAL
    assert home.service.failed.is_set()
    assert home.service.health().not_serving == home.service.failure != ""
    assert sum(isinstance(event, Stopped) for event in home.events) == 1
    with pytest.raises(EngineApiError):
        home.service.submit(bytes(192))
    home.restart()
    assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID


def test_indexes_follow_finalization(home: Home) -> None:
    """Finalized transactions are found by hash and in their accounts' histories."""
    parent: Block | None = None
    blocks: list[Block] = []
    for _ in range(5):
        parent = home.maker.block(parent, 1, 4)
        home.service.new_payload(parent.header, parent.payload)
        blocks.append(parent)
        home.service.forkchoice_updated(parent.hash, parent.hash, parent.hash)
    home.service.wait_indexed()
    for block in blocks:
        lanes = oracle.decode_payload(bytes(block.payload), home.maker.ledger.limits)
        for index, item in enumerate(item for lane in lanes for item in lane):
            place = home.store.find_transaction(oracle.transaction_hash(item))
            assert place is not None
            assert tuple(place) == (block.height, index)
    assert home.store.unindexed() == []


def test_an_index_without_room_goes_on_when_there_is_some(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for a while delays the index, which is told once, and ends nothing."""
    has_tried, has_room = threading.Semaphore(0), threading.Event()
    real = durable.whole_file

    def whole_file(*arguments: Any, **options: Any) -> Any:
        """Write if there is room."""
        if not has_room.is_set():
            has_tried.release()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    monkeypatch.setattr(runs, "whole_file", whole_file)
    monkeypatch.setattr(runs, "HELD_ENTRIES_MAX", 1)
    monkeypatch.setattr(indexer, "RETRY_S", 0)
    parent: Block | None = None
    for _ in range(indexer.PENDING_MAX + 3):
        parent = home.maker.block(parent, 1, 1)
        home.service.new_payload(parent.header, parent.payload)
        home.service.forkchoice_updated(parent.hash, parent.hash, parent.hash)
    for _ in range(5):
        assert has_tried.acquire(timeout=WAIT_S)
    assert home.store.unindexed() == [(2, indexer.PENDING_MAX + 3)]
    has_room.set()
    home.service.wait_indexed()
    assert home.store.unindexed() == []
    texts = [event.text for event in home.events if isinstance(event, Notice)]
    assert sum("indexing waits for room" in text for text in texts) == 1


def test_an_index_without_room_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service whose index waits for room is closed at once, and goes on at the next start."""
    home = Home(tmp_path / "home")
    has_tried = threading.Event()

    def whole_file(*_: Any, **__: Any) -> None:
        """Find no room."""
        has_tried.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(runs, "whole_file", whole_file)
        patched.setattr(runs, "HELD_ENTRIES_MAX", 1)
        block: Block | None = None
        for _ in range(2):
            block = home.maker.block(block, 1, 1)
            home.service.new_payload(block.header, block.payload)
            home.service.forkchoice_updated(block.hash, block.hash, block.hash)
        assert has_tried.wait(WAIT_S)
        home.close()
    home.open()
    assert home.store.unindexed()[-1][1] == 2
    home.service.wait_indexed()
    assert home.store.unindexed() == []
    home.close()


def test_calls_from_many_threads(home: Home) -> None:
    """The same and other blocks from many threads at once: each is VALID, each stands once."""
    blocks = [home.maker.block(None, salt) for salt in range(1, 9)]
    barrier = threading.Barrier(16)

    def send(index: int) -> Verdict:
        barrier.wait(WAIT_S)
        block = blocks[index % 8]
        verdict = home.service.new_payload(block.header, block.payload).verdict
        home.service.get_status()
        home.service.health()
        return verdict

    with ThreadPoolExecutor(16) as threads:
        verdicts = list(threads.map(send, range(16)))
    assert verdicts == [Verdict.VALID] * 16
    assert len(home.service.get_status().unfinalized) == 8


def test_a_service_that_is_locked_up_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a status to see a sign of life gets none, until the work moves."""
    go, busy = threading.Event(), threading.Event()

    def work(_: executor.Executor) -> bool:
        busy.set()
        return go.wait(WAIT_S)

    before = home.service.get_status()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(home.service.ask, "work that does not end", work)
        assert busy.wait(WAIT_S)
        assert home.service.get_status() == before
        monkeypatch.setattr(home.service._writer, "_step_ms_max", -1)
        with pytest.raises(EngineApiError, match="locked up") as caught:
            home.service.get_status()
        assert caught.value.code is ErrorCode.UNAVAILABLE
        assert "locked up" in home.service.health().not_serving
        assert home.service.status == before
        monkeypatch.setattr(home.service._writer, "_step_ms_max", 10**6)
        assert home.service.get_status() == before
        go.set()
        assert call.result()
    assert home.service.health().not_serving == ""


def test_closing_refuses_what_comes_later(tmp_path: Path) -> None:
    """A call to a closed service is UNAVAILABLE."""
    home = Home(tmp_path / "home")
    block = home.maker.block(None, 1)
    home.close()
    with pytest.raises(EngineApiError) as caught:
        home.service.new_payload(block.header, block.payload)
    assert caught.value.code is ErrorCode.UNAVAILABLE


def test_indexes_that_were_lost_are_made_again(home: Home) -> None:
    """Without its runs a home finds every transaction again after a start; a stop is clean."""
    parent: Block | None = None
    for _ in range(4):
        parent = home.maker.block(parent, 1, 4)
        home.service.new_payload(parent.header, parent.payload)
        home.service.forkchoice_updated(parent.hash, parent.hash, parent.hash)
    home.service.wait_indexed()
    home.close()
    for name in ("transactions", "accounts"):
        for path in (home.folder / name).iterdir():
            path.unlink()
    home.open()
    home.close()
    assert not any(isinstance(event, Stopped) for event in home.events)
    home.open()
    home.service.wait_indexed()
    assert home.store.unindexed() == []
    assert parent is not None
    lanes = oracle.decode_payload(bytes(parent.payload), home.maker.ledger.limits)
    found = home.store.find_transaction(oracle.transaction_hash(lanes[0][0]))
    assert found is not None
    assert tuple(found) == (4, 0)


def test_an_old_block_that_is_damaged_is_left_out_of_the_index(home: Home) -> None:
    """An index that is made again stops at nothing: who looks for those transactions is told."""
    blocks: list[Block] = []
    for _ in range(3):
        blocks.append(home.maker.block(blocks[-1] if blocks else None, 1, 4))
        home.service.new_payload(blocks[-1].header, blocks[-1].payload)
        home.service.forkchoice_updated(blocks[-1].hash, blocks[-1].hash, blocks[-1].hash)
    home.service.wait_indexed()
    home.close()
    for name in ("transactions", "accounts"):
        for path in (home.folder / name).iterdir():
            path.unlink()
    [segment] = (home.folder / "blocks").iterdir()
    data = bytearray(segment.read_bytes())
    data[data.find(blocks[1].payload) + 200] ^= 1
    segment.write_bytes(data)
    home.open()
    home.service.wait_indexed()
    assert home.service.failure == ""
    assert home.store.unindexed() == []
    names = [
        oracle.transaction_hash(oracle.decode_payload(bytes(block.payload), LIMITS)[0][0])
        for block in blocks
    ]
    assert [home.store.find_transaction(name) is None for name in names] == [False, True, False]
    told = [event.text for event in home.events if isinstance(event, Notice)]
    assert any("height 2" in text and "is not indexed" in text for text in told)
    child = home.maker.block(blocks[-1], 1, 4)
    assert home.service.new_payload(child.header, child.payload).verdict is Verdict.VALID
