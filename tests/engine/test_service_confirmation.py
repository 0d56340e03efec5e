"""INVALID is the serial arm's word: what the vectorised path gets wrong, loudly or never."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.bad_blocks import BAD_BLOCKS_MAX
from engine.confirm import STATE_DIFFERS
from engine.errors import Reason
from engine.events import BlockInvalid, PathDisabled, Recovered
from engine.store.segment import FILE_HEAD_BYTES
from engine.store.store import Store
from engine_api.types import (
    Attributes,
    ForkchoiceStatus,
    Limits,
    PayloadRequest,
    SubmitResult,
    Verdict,
)
from spec import oracle
from tests.engine.faulty import FaultyBackend
from tests.engine.homes import FEE_RECIPIENT, Home
from tests.engine_api.toy import Block


@pytest.fixture
def faulty() -> FaultyBackend:
    """Return a backend that is honest so far."""
    return FaultyBackend()


@pytest.fixture
def home(tmp_path: Path, faulty: FaultyBackend) -> Iterator[Home]:
    """Return a fresh home on the faulty backend."""
    made = Home(tmp_path / "home", backend=lambda: faulty)
    yield made
    made.close()


def request(home: Home, most: int = 100) -> PayloadRequest:
    """Return a request on genesis."""
    return PayloadRequest(
        parent_hash=home.maker.hash,
        height=1,
        limits=Limits(bytes=2**20, transactions=most, objects=most),
        attributes=Attributes(timestamp_ms=5_000, fee_recipient=FEE_RECIPIENT),
        wait_ms=0,
    )


def spoil_signature(block: Block, position: int, home: Home) -> Block:
    """Return the block with one signature that is wrong, under its right commitment."""
    lanes = oracle.decode_payload(bytes(block.payload), home.maker.ledger.limits)
    flat = [item for lane in lanes for item in lane]
    bad = replace(flat[position], signature=bytes(64))
    lanes = [[bad if item is flat[position] else item for item in lane] for lane in lanes]
    payload = bytes(oracle.encode_payload(lanes))
    return Block(header=block.header, payload=payload).changed(
        payload_commitment=oracle.payload_commitment(payload)
    )


@pytest.mark.parametrize("fault", ["receipts", "hashes", "refuse"])
def test_a_faulty_path_is_switched_off_and_the_block_is_valid(
    home: Home, faulty: FaultyBackend, fault: str
) -> None:
    """One flipped bit: the serial arm wins, says so, and goes on by itself."""
    first = home.maker.block(None, 1)
    assert home.service.new_payload(first.header, first.payload).verdict is Verdict.VALID
    faulty.faults.add(fault)
    second = home.maker.block(first, 1)
    assert home.service.new_payload(second.header, second.payload).verdict is Verdict.VALID
    assert "the vectorised path is off" in home.service.degraded
    assert sum(isinstance(event, PathDisabled) for event in home.events) == 1
    assert home.service.failure == ""
    third = home.maker.block(second, 1)
    beside = home.maker.block(first, 2)
    for block in (third, beside):
        assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID
    for head in (beside, third):
        followed = home.service.forkchoice_updated(head.hash, first.hash, first.hash)
        assert followed.status is ForkchoiceStatus.OK
    bad = home.maker.block(third, 1).changed(state_hash=bytes(32))
    answer = home.service.new_payload(bad.header, bad.payload)
    assert (answer.verdict, answer.reason) == (Verdict.INVALID, Reason.STATE_HASH)
    assert sum(isinstance(event, PathDisabled) for event in home.events) == 1


@pytest.mark.parametrize("followed_count", [1, 3])
def test_damaged_records_are_loaded_from_disk(home: Home, followed_count: int) -> None:
    """If memory itself is wrong, the copy is no witness either: the state comes from the store.

    What is followed is above the finalized block, by as many blocks as may be.
    """
    first = home.maker.block(None, 1)
    assert home.service.new_payload(first.header, first.payload).verdict is Verdict.VALID
    head = first
    for salt in range(2, 2 + followed_count):
        head = home.maker.block(head, salt)
        assert home.service.new_payload(head.header, head.payload).verdict is Verdict.VALID
    home.service.forkchoice_updated(head.hash, first.hash, first.hash)
    executor = home.service._executor
    executor.chain.state.accounts.records[:, 5] ^= 1 << 40  # every nonce
    last = home.maker.block(head, 9)
    assert home.service.new_payload(last.header, last.payload).verdict is Verdict.VALID
    assert "state_hash" in home.service.degraded
    assert home.service.get_status().head.hash == head.hash
    assert (
        home.service.forkchoice_updated(last.hash, head.hash, head.hash).status
        is ForkchoiceStatus.OK
    )


def test_damaged_records_are_loaded_beside_many_forks(home: Home) -> None:
    """More blocks than may keep results are made again: those of the head are there at the end."""
    heads: list[Block] = []
    for salt in (1, 2, 3):
        parent: Block | None = None
        for _ in range(7):
            parent = home.maker.block(parent, salt)
            assert home.service.new_payload(parent.header, parent.payload).verdict is Verdict.VALID
        assert parent is not None
        heads.append(parent)
    genesis = home.maker.hash
    for head in heads:
        home.service.forkchoice_updated(head.hash, genesis, genesis)
        home.service._executor.chain.state.accounts.records[:, 5] ^= 1 << 40
        home.service.ask("a doubt", lambda executor: executor.disable_path("damaged"))
        assert home.service.failure == ""
        assert home.service.get_status().head.hash == head.hash
        home.restart()


@pytest.mark.parametrize("position", [0, 2])
def test_a_bad_signature_is_confirmed_and_kept(home: Home, position: int) -> None:
    """Both arms refuse: INVALID, nothing degraded, header, payload and both results kept."""
    block = spoil_signature(home.maker.block(None, 1), position, home)
    for _ in range(2):
        answer = home.service.new_payload(block.header, block.payload)
        assert (answer.verdict, answer.reason) == (Verdict.INVALID, Reason.SIGNATURE)
        assert answer.latest_valid_hash == home.maker.hash
    assert home.service.degraded == ""
    event = next(event for event in reversed(home.events) if isinstance(event, BlockInvalid))
    kept = Path(event.kept_in)
    assert (kept / "header.bin").read_bytes() == block.header
    assert (kept / "payload.bin").read_bytes() == bytes(block.payload)
    said = json.loads((kept / "results.json").read_text())
    assert [item["arm"] for item in said] == ["cpu", "serial"]
    assert [(item["reason"], item["position"]) for item in said] == [("SIGNATURE", position)] * 2


def test_the_newest_bad_blocks_are_kept(home: Home) -> None:
    """At most 16 folders, the last ones."""
    good = home.maker.block(None, 1)
    names = []
    for number in range(BAD_BLOCKS_MAX + 4):
        block = good.changed(state_hash=bytes([number]) * 32)
        assert home.service.new_payload(block.header, block.payload).verdict is Verdict.INVALID
        names.append(block.hash.hex())
    kept = {path.name.rpartition("-")[2] for path in (home.folder / "bad_blocks").iterdir()}
    assert kept == set(names[-BAD_BLOCKS_MAX:])
    assert home.store.disk_use().bad_blocks >= BAD_BLOCKS_MAX * len(good.header + good.payload)
    assert home.service.new_payload(good.header, good.payload).verdict is Verdict.VALID


def test_what_the_serial_arm_refuses_is_not_built_again(
    tmp_path: Path, faulty: FaultyBackend
) -> None:
    """A bad signature that slipped into the queue is found when a build executes, and banned."""
    home = Home(
        tmp_path / "home",
        backend=lambda: faulty,
        verified_max=8,
    )
    maker = home.maker
    bad = replace(maker.transaction(0, 0, b"\x01" * 32), signature=b"\x07" * 64)
    record = oracle.encode_transaction(bad)
    faulty.faults.add("accept")
    assert home.service.submit(record).results == bytes([SubmitResult.QUEUED])
    faulty.faults.clear()
    good = [maker.transaction(1 + n % 7, n // 7, b"\x02" * 32) for n in range(21)]
    batch = b"".join(oracle.encode_transaction(item) for item in good)
    assert home.service.submit(batch).results == bytes([SubmitResult.QUEUED]) * 21
    built = home.service.get_payload(request(home)).built
    assert built is not None
    assert built.transaction_count == 21
    assert home.service.degraded == ""
    assert home.service.submit(record).results == bytes([SubmitResult.REFUSED])
    home.close()


def test_a_build_that_only_the_vectorised_path_refuses(home: Home, faulty: FaultyBackend) -> None:
    """The serial arm finds the own build VALID: it takes over, and the build is made."""
    batch = oracle.encode_transaction(home.maker.transaction(0, 0, b"\x01" * 32))
    assert home.service.submit(batch).results == bytes([SubmitResult.QUEUED])
    faulty.faults |= {"refuse", "hashes"}  # marks are not found under other hashes
    built = home.service.get_payload(request(home)).built
    assert built is not None
    assert built.transaction_count == 1
    assert home.service.degraded


def test_a_build_on_damaged_records_is_no_witness(home: Home, faulty: FaultyBackend) -> None:
    """Memory is wrong: nothing that waits is held to be bad, and the state comes from the store."""
    batch = oracle.encode_transaction(home.maker.transaction(0, 0, b"\x01" * 32))
    assert home.service.submit(batch).results == bytes([SubmitResult.QUEUED])
    faulty.faults |= {"refuse", "hashes"}
    home.service._executor.chain.state.accounts.records[:, 4] ^= 1 << 2  # every balance
    built = home.service.get_payload(request(home)).built
    assert built is not None
    assert built.transaction_count == 1
    assert STATE_DIFFERS in home.service.degraded


def test_refused_blocks_take_no_room(home: Home) -> None:
    """However many distinct ones come before a finalization, disk and restart know none of them."""
    first = home.maker.block(None, 1)
    assert home.service.new_payload(first.header, first.payload).verdict is Verdict.VALID
    good = home.maker.block(first, 2, 20)
    used = []
    for number in range(60):
        if number % 2:
            block = good.changed(state_hash=number.to_bytes(32, "big"))
        else:
            block = spoil_signature(home.maker.block(first, 3 + number), 0, home)
        assert home.service.new_payload(block.header, block.payload).verdict is Verdict.INVALID
        assert home.store.payload(block.hash) is None
        use = home.store.disk_use()
        used.append((use.blocks, use.rows))
    assert len(set(used[10:])) == 1  # by then the pages of the rows are used in turns
    assert [item.block_hash for item in home.store.unfinalized()] == [first.hash]
    for executed in (1, 2):
        home.restart()
        recovered = [event for event in home.events if isinstance(event, Recovered)]
        assert recovered[-1].executed_count == executed
        assert home.service.new_payload(good.header, good.payload).verdict is Verdict.VALID
        assert home.store.verify() == 2


def test_a_refused_block_that_a_crash_left_is_taken_back(home: Home) -> None:
    """It was written and never judged: it is left out at the start, and takes no room either."""
    good = home.maker.block(None, 1)
    before = home.store.disk_use().blocks
    bad = good.changed(state_hash=bytes(32))
    home.store.begin_append(bad.hash, bad.header, bad.payload).wait()
    home.restart()
    assert any(bad.hash.hex() in str(event) for event in home.events)
    assert home.store.disk_use().blocks <= before + FILE_HEAD_BYTES
    home.restart()
    assert home.service.new_payload(good.header, good.payload).verdict is Verdict.VALID


def test_a_stored_block_that_is_refused_wrongly_stays(
    home: Home, faulty: FaultyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered VALID is never given up, also while a broken path refuses it again."""
    given_up: list[bytes] = []
    real = Store.take_back

    def watched(store: Store, block_hash: bytes) -> bool:
        given_up.append(block_hash)
        return real(store, block_hash)

    monkeypatch.setattr(Store, "take_back", watched)
    block = home.maker.block(None, 1)
    assert home.service.new_payload(block.header, block.payload).verdict is Verdict.VALID
    faulty.faults.add("refuse")
    home.restart()
    assert "the vectorised path is off" in home.service.degraded
    assert given_up == []
    assert home.service.new_payload(block.header, None).verdict is Verdict.VALID
