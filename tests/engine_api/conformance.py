"""What every ExecutionEngine does, whoever implements it: subclass `Conformance`, give it a driver.

    class TestService(Conformance):
        @pytest.fixture
        def driver(self) -> Iterator[Driver]: ...

Written against the protocol alone: the driver makes blocks that its engine finds valid, this suite
spoils them, sends them in wrong orders and compares what comes back. Spec: spec/engine_api.md.
"""

from collections.abc import Callable
from dataclasses import replace as changed
from functools import partial
from typing import Protocol

import numpy as np
import pytest

from engine.errors import Reason
from engine_api.protocol import Deadline, ExecutionEngine
from engine_api.types import (
    BODIES_MAX,
    BOOT_ID_BYTES,
    RECORD_BYTES,
    SUBMIT_RECORDS_MAX,
    Attributes,
    BlockId,
    EngineApiError,
    ErrorCode,
    ForkchoiceStatus,
    Limits,
    NewPayloadAnswer,
    PayloadRequest,
    Retry,
    SubmitResult,
    Verdict,
)
from tests.engine_api.toy import Block

UNKNOWN = bytes([0xAB]) * 32
ENCODING_REASONS = range(32, 41)


class Driver(Protocol):
    """Knows one engine and how to make blocks for it. A fresh one stands at genesis."""

    @property
    def engine(self) -> ExecutionEngine:
        """The engine under test; after `restart` it may be another object."""

    @property
    def genesis(self) -> BlockId:
        """Height 0."""

    @property
    def limits(self) -> Limits:
        """The genesis parameters payload_bytes_max, transactions_max, objects_max."""

    @property
    def unfinalized_max(self) -> int:
        """The genesis parameter of this name, K; 4 or more."""

    @property
    def fee_recipient(self) -> bytes:
        """Of every block that the driver makes."""

    def block(self, parent: Block | None, salt: int) -> Block:
        """Return a valid block of one transaction or more on a block (None: genesis).

        The same arguments give the same block, another salt gives another payload. The engine under
        test has not seen it.
        """

    def commitment(self, payload: bytes) -> bytes:
        """Return the payload_commitment of any bytes."""

    def records(self, count: int) -> bytes:
        """Return `count` (at most 4) different records that are all includable on genesis."""

    def restart(self) -> None:
        """Kill the executor and start it on what it has made durable."""


def send(driver: Driver, block: Block) -> NewPayloadAnswer:
    """Send a block with its payload."""
    return driver.engine.new_payload(block.header, block.payload)


def chain(driver: Driver, length: int, salt: int = 1, parent: Block | None = None) -> list[Block]:
    """Send valid blocks, one on the other, and return them."""
    blocks: list[Block] = []
    for _ in range(length):
        parent = driver.block(parent, salt)
        assert send(driver, parent).verdict is Verdict.VALID
        blocks.append(parent)
    return blocks


def follow(driver: Driver, head: bytes, finalized: bytes) -> ForkchoiceStatus:
    """Make a block the head and another one final."""
    return driver.engine.forkchoice_updated(head, head, finalized).status


def refused(call: Callable[[], object]) -> EngineApiError:
    """Return the error that a call raises."""
    with pytest.raises(EngineApiError) as caught:
        call()
    return caught.value


def request_on(
    driver: Driver, parent: Block | None, *, wait_ms: int = 0, transactions: int | None = None
) -> PayloadRequest:
    """Return a request for a payload on a block."""
    limits = driver.limits
    return PayloadRequest(
        parent_hash=parent.hash if parent else driver.genesis.hash,
        height=parent.height + 1 if parent else 1,
        limits=Limits(
            bytes=limits.bytes,
            transactions=limits.transactions if transactions is None else transactions,
            objects=limits.objects,
        ),
        attributes=Attributes(
            timestamp_ms=driver.block(parent, 1).fields.timestamp_ms,
            fee_recipient=driver.fee_recipient,
        ),
        wait_ms=wait_ms,
    )


def build(driver: Driver, request: PayloadRequest, parent: Block | None = None) -> Block:
    """Ask for a payload and return the proposer's block."""
    built = driver.engine.get_payload(request).built
    assert built is not None
    template = Block(header=driver.block(parent, 1).header, payload=bytes(built.payload))
    return template.changed(
        payload_commitment=built.payload_commitment,
        payload_bytes=built.payload_bytes,
        transaction_count=built.transaction_count,
        transactions_root=built.transactions_root,
        state_hash=built.state_hash,
        receipts_hash=built.receipts_hash,
    )


class Conformance:
    """The suite; a subclass has a fixture `driver`."""

    # Status and health

    def test_it_starts_at_genesis(self, driver: Driver) -> None:
        """A fresh engine stands at genesis and follows nothing."""
        status = driver.engine.get_status()
        assert status.finalized == status.head == driver.genesis
        assert status.genesis_hash == driver.genesis.hash
        assert status.unfinalized == ()
        assert status.versions.api == 1
        assert len(status.boot_id) == BOOT_ID_BYTES
        assert len(status.params_hash) == 32

    def test_every_answer_carries_the_same_boot_id(self, driver: Driver) -> None:
        """One process, one boot id, in every kind of answer."""
        engine, block = driver.engine, driver.block(None, 1)
        boot_id = engine.get_status().boot_id
        genesis = driver.genesis.hash
        answers = [
            engine.get_payload(request_on(driver, None)).boot_id,
            engine.new_payload(block.header, block.payload).boot_id,
            engine.forkchoice_updated(genesis, genesis, genesis).boot_id,
            next(iter(engine.bodies_by_hash([block.hash]))).boot_id,
            next(iter(engine.bodies_by_range(1, 1))).boot_id,
            engine.validator_set(0).boot_id,
            engine.health().boot_id,
            engine.submit(driver.records(1)).boot_id,
        ]
        assert answers == [boot_id] * len(answers)

    def test_health_follows_finalization(self, driver: Driver) -> None:
        """Health says that it serves, up to which height, and how much disk is left."""
        health = driver.engine.health()
        assert health.not_serving == ""
        assert health.finalized_height == 0
        assert health.free_disk_bytes > 0
        block = chain(driver, 1)[0]
        follow(driver, block.hash, block.hash)
        assert driver.engine.health().finalized_height == 1

    def test_a_validator_set_ascends_and_has_its_id(self, driver: Driver) -> None:
        """Epoch 0 and any later one have a set, in ascending order of keys."""
        for epoch in (0, 1, 10**6):
            answer = driver.engine.validator_set(epoch)
            assert answer.epoch == epoch
            keys = [one.key for one in answer.validators]
            assert keys == sorted(set(keys))
            assert keys
            assert all(one.power > 0 for one in answer.validators)
            assert len(answer.validator_set_id) == 32

    # NewPayload

    def test_a_valid_block_is_valid_every_time(self, driver: Driver) -> None:
        """VALID once is VALID again, with the payload, without it, and when it is final."""
        block = driver.block(None, 1)
        assert send(driver, block).verdict is Verdict.VALID
        assert send(driver, block).verdict is Verdict.VALID
        assert driver.engine.new_payload(block.header, None).verdict is Verdict.VALID
        status = driver.engine.get_status()
        assert status.unfinalized == (BlockId(height=1, hash=block.hash),)
        assert status.head == driver.genesis, "only ForkchoiceUpdated moves the head"
        follow(driver, block.hash, block.hash)
        assert send(driver, block).verdict is Verdict.VALID
        assert driver.engine.new_payload(block.header, None).verdict is Verdict.VALID

    def test_an_unknown_parent_is_syncing_and_leaves_nothing(self, driver: Driver) -> None:
        """A block without its parent is not kept; after the parent it is VALID."""
        parent = driver.block(None, 1)
        child = driver.block(parent, 1)
        before = driver.engine.get_status()
        assert send(driver, child).verdict is Verdict.SYNCING
        assert driver.engine.new_payload(child.header, None).verdict is Verdict.SYNCING
        assert driver.engine.get_status() == before
        assert send(driver, parent).verdict is Verdict.VALID
        assert send(driver, child).verdict is Verdict.VALID

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"version": 2}, Reason.HEADER_VERSION),
            ({"version": 0, "chain_id": 0}, Reason.HEADER_VERSION),
            ({"chain_id": 2**32 - 1}, Reason.HEADER_CHAIN_ID),
            ({"chain_id": 2**32 - 1, "parent_hash": UNKNOWN}, Reason.HEADER_CHAIN_ID),
            ({"height": 3, "timestamp_ms": 0}, Reason.HEADER_HEIGHT),
            ({"timestamp_ms": 0, "system_hash": UNKNOWN}, Reason.HEADER_TIMESTAMP),
            ({"system_hash": UNKNOWN, "reserved": UNKNOWN}, Reason.HEADER_SYSTEM),
            ({"reserved": bytes(31) + b"\x01"}, Reason.HEADER_RESERVED),
            ({"transaction_count": 0, "state_hash": UNKNOWN}, Reason.TRANSACTION_COUNT),
            ({"transactions_root": UNKNOWN, "receipts_hash": UNKNOWN}, Reason.TRANSACTIONS_ROOT),
            ({"receipts_hash": UNKNOWN, "state_hash": UNKNOWN}, Reason.RECEIPTS_HASH),
            ({"state_hash": UNKNOWN}, Reason.STATE_HASH),
        ],
    )
    def test_a_spoiled_header_is_invalid(
        self, driver: Driver, changes: dict[str, int | bytes], reason: Reason
    ) -> None:
        """Each field is checked, in the order of the specification, and nothing is kept."""
        good = driver.block(None, 1)
        before = driver.engine.get_status()
        answer = send(driver, good.changed(**changes))
        assert answer.verdict is Verdict.INVALID
        assert answer.reason == reason
        assert answer.latest_valid_hash == driver.genesis.hash
        assert driver.engine.get_status() == before
        assert send(driver, good).verdict is Verdict.VALID

    def test_latest_valid_is_the_parent(self, driver: Driver) -> None:
        """INVALID names the block up to which all is well, and the parent's time is compared."""
        first = chain(driver, 1)[0]
        child = driver.block(first, 1)
        for spoiled in (
            child.changed(timestamp_ms=first.fields.timestamp_ms),
            child.changed(state_hash=UNKNOWN),
        ):
            answer = send(driver, spoiled)
            assert answer.verdict is Verdict.INVALID
            assert answer.latest_valid_hash == first.hash

    @pytest.mark.parametrize("length", [0, 399, 401])
    def test_a_header_has_400_bytes(self, driver: Driver, length: int) -> None:
        """Any other length is INVALID and no error of the call."""
        block = driver.block(None, 1)
        header = (block.header + bytes(1))[:length]
        answer = driver.engine.new_payload(header, block.payload)
        assert answer.verdict is Verdict.INVALID
        assert answer.reason == Reason.HEADER_LENGTH
        assert answer.latest_valid_hash == driver.genesis.hash

    def test_other_bytes_are_malformed(self, driver: Driver) -> None:
        """Bytes that the header does not name say nothing about the block."""
        block = driver.block(None, 1)
        payload = bytes(block.payload)
        flipped = bytearray(payload)
        flipped[len(payload) // 2] ^= 1
        for other in (b"", payload[:-1], payload + b"\x00", bytes(flipped), payload * 2):
            answer = driver.engine.new_payload(block.header, other)
            assert answer.verdict is Verdict.MALFORMED
            assert answer.reason == 0
        assert driver.engine.get_status().unfinalized == ()
        assert send(driver, block).verdict is Verdict.VALID

    @pytest.mark.parametrize("payload", [b"", b"\x00", b"no payload at all" * 50])
    def test_garbage_under_its_commitment_is_invalid(self, driver: Driver, payload: bytes) -> None:
        """The header names these bytes, and they are no payload: an encoding reason."""
        good = driver.block(None, 1)
        block = Block(header=good.header, payload=payload).changed(
            payload_bytes=len(payload), payload_commitment=driver.commitment(payload)
        )
        answer = send(driver, block)
        assert answer.verdict is Verdict.INVALID
        assert answer.reason in ENCODING_REASONS
        assert send(driver, good).verdict is Verdict.VALID

    def test_an_invalid_block_is_no_parent(self, driver: Driver) -> None:
        """A block on an INVALID one is SYNCING, however often; judged again it is INVALID again."""
        bad = driver.block(None, 1).changed(state_hash=UNKNOWN)
        child = driver.block(driver.block(None, 1), 1).changed(parent_hash=bad.hash)
        for _ in range(2):
            assert send(driver, bad).verdict is Verdict.INVALID
            assert send(driver, child).verdict is Verdict.SYNCING

    def test_a_payload_that_is_not_held_is_asked_for(self, driver: Driver) -> None:
        """ALREADY_HELD of what is not: the error says to stream, and streaming works."""
        block = driver.block(None, 1)
        error = refused(lambda: driver.engine.new_payload(block.header, None))
        assert (error.code, error.retry) == (ErrorCode.PAYLOAD_NOT_HELD, Retry.WITH_STREAM)
        assert send(driver, block).verdict is Verdict.VALID

    def test_a_payload_above_the_limit_is_refused(self, driver: Driver) -> None:
        """No payload can be as long as this header says: nothing is received."""
        block = driver.block(None, 1).changed(payload_bytes=driver.limits.bytes + 1)
        error = refused(lambda: send(driver, block))
        assert error.code is ErrorCode.INVALID_ARGUMENT

    def test_depth_is_bounded(self, driver: Driver) -> None:
        """K blocks may stand above finalized; the next one waits for a finalization."""
        blocks = chain(driver, driver.unfinalized_max)
        above = driver.block(blocks[-1], 1)
        error = refused(lambda: send(driver, above))
        assert (error.code, error.retry) == (ErrorCode.DEPTH_EXCEEDED, Retry.AFTER_FINALIZATION)
        error = refused(lambda: driver.engine.get_payload(request_on(driver, blocks[-1])))
        assert error.code is ErrorCode.DEPTH_EXCEEDED
        assert follow(driver, blocks[-1].hash, blocks[0].hash) is ForkchoiceStatus.OK
        assert send(driver, above).verdict is Verdict.VALID

    def test_a_deadline_that_passed_changes_nothing(self, driver: Driver) -> None:
        """A call that nobody waits for is not begun; the same call again is."""
        block, over = driver.block(None, 1), Deadline(0)
        error = refused(lambda: driver.engine.new_payload(block.header, block.payload, over))
        assert error.code is ErrorCode.DEADLINE_EXCEEDED
        assert driver.engine.get_status().unfinalized == ()
        assert send(driver, block).verdict is Verdict.VALID
        error = refused(
            lambda: driver.engine.forkchoice_updated(block.hash, block.hash, block.hash, over)
        )
        assert error.code is ErrorCode.DEADLINE_EXCEEDED
        assert driver.engine.get_status().finalized == driver.genesis

    # ForkchoiceUpdated

    def test_the_head_moves_between_branches(self, driver: Driver) -> None:
        """Any block of the tree can be the head, as often as one likes."""
        left, right = chain(driver, 2, salt=1), chain(driver, 3, salt=2)
        for block in (left[1], right[2], right[0], left[0], left[1], left[1]):
            assert follow(driver, block.hash, driver.genesis.hash) is ForkchoiceStatus.OK
            head = driver.engine.get_status().head
            assert head == BlockId(height=block.height, hash=block.hash)
        assert len(driver.engine.get_status().unfinalized) == 5

    def test_an_unknown_hash_changes_nothing(self, driver: Driver) -> None:
        """SYNCING wherever one of the three is unknown."""
        block = chain(driver, 1)[0]
        before = driver.engine.get_status()
        for unknown in range(3):
            head, safe, finalized = (
                UNKNOWN if index == unknown else block.hash for index in range(3)
            )
            status = driver.engine.forkchoice_updated(head, safe, finalized).status
            assert status is ForkchoiceStatus.SYNCING
        assert driver.engine.get_status() == before

    def test_finalizing_abandons_what_does_not_descend(self, driver: Driver) -> None:
        """After a finalization only its descendants are left; it is irreversible and repeatable."""
        left, right = chain(driver, 3, salt=1), chain(driver, 2, salt=2)
        for _ in range(2):
            assert follow(driver, left[2].hash, left[1].hash) is ForkchoiceStatus.OK
        status = driver.engine.get_status()
        assert status.finalized == BlockId(height=2, hash=left[1].hash)
        assert status.head == BlockId(height=3, hash=left[2].hash)
        assert status.unfinalized == (status.head,)
        error = refused(lambda: follow(driver, left[2].hash, left[0].hash))
        assert (error.code, error.retry) == (ErrorCode.CONFLICT, Retry.NO)
        error = refused(lambda: send(driver, right[1]))
        assert error.code is ErrorCode.CONFLICT
        assert send(driver, driver.block(right[1], 2)).verdict is Verdict.SYNCING
        assert driver.engine.get_status() == status

    def test_a_sibling_of_finalized_never_wins(self, driver: Driver) -> None:
        """Naming an abandoned block is CONFLICT, or SYNCING where it is forgotten."""
        left, right = chain(driver, 1, salt=1), chain(driver, 1, salt=2)
        follow(driver, left[0].hash, left[0].hash)
        before = driver.engine.get_status()
        code = None
        try:
            status = follow(driver, right[0].hash, right[0].hash)
        except EngineApiError as error:
            code, status = error.code, None
        assert (code, status) in (
            (ErrorCode.CONFLICT, None),
            (None, ForkchoiceStatus.SYNCING),
        )
        assert driver.engine.get_status() == before

    def test_head_descends_from_safe_and_safe_from_finalized(self, driver: Driver) -> None:
        """Three blocks that are not on one branch are an error of the call."""
        left, right = chain(driver, 2, salt=1), chain(driver, 1, salt=2)
        engine, genesis = driver.engine, driver.genesis.hash
        for head, safe, finalized in (
            (left[0], left[1], genesis),
            (left[1], right[0], genesis),
            (left[1], left[0], left[1].hash),
            (right[0], right[0], left[0].hash),
        ):
            call = partial(engine.forkchoice_updated, head.hash, safe.hash, finalized)
            error = refused(call)
            assert error.code is ErrorCode.INVALID_ARGUMENT
        assert engine.get_status().finalized == driver.genesis

    def test_the_same_tree_in_any_order(self, driver: Driver, rng: np.random.Generator) -> None:
        """Blocks of a random tree, sent in random order until all are VALID, with repetitions."""
        blocks: list[Block] = []
        for salt in range(1, 9):
            shallow = [block for block in blocks if block.height < driver.unfinalized_max]
            index = int(rng.integers(len(shallow) + 1))
            blocks.append(driver.block(shallow[index] if index < len(shallow) else None, salt))
        valid: set[bytes] = set()
        for _ in range(len(blocks)):
            for index in rng.permutation(len(blocks)):
                block = blocks[index]
                answer = send(driver, block)
                parent = block.fields.parent_hash
                expected = parent in valid or parent == driver.genesis.hash
                assert answer.verdict is (Verdict.VALID if expected else Verdict.SYNCING)
                if expected:
                    valid.add(block.hash)
        assert len(valid) == len(blocks)
        for index in rng.permutation(len(blocks)):
            status = follow(driver, blocks[index].hash, driver.genesis.hash)
            assert status is ForkchoiceStatus.OK

    # GetPayload and Submit

    def test_an_own_build_is_valid_without_its_bytes(self, driver: Driver) -> None:
        """What was submitted is built, and the finished header alone makes it VALID and durable."""
        results = driver.engine.submit(driver.records(3)).results
        assert results == bytes([SubmitResult.QUEUED]) * 3
        block = build(driver, request_on(driver, None))
        assert block.fields.transaction_count == 3
        assert block.fields.payload_commitment == driver.commitment(bytes(block.payload))
        assert driver.engine.new_payload(block.header, None).verdict is Verdict.VALID
        follow(driver, block.hash, block.hash)
        body = next(iter(driver.engine.bodies_by_hash([block.hash])))
        assert bytes(body.payload) == bytes(block.payload)

    def test_an_own_build_is_compared_all_the_same(self, driver: Driver) -> None:
        """Being recognised is no excuse for a header that says something else."""
        driver.engine.submit(driver.records(2))
        block = build(driver, request_on(driver, None))
        for name in ("transactions_root", "receipts_hash", "state_hash"):
            answer = driver.engine.new_payload(block.changed(**{name: UNKNOWN}).header, None)
            assert answer.verdict is Verdict.INVALID
            assert answer.reason == Reason[name.upper()]
        assert send(driver, block).verdict is Verdict.VALID

    def test_limits_bound_what_is_built(self, driver: Driver) -> None:
        """No more transactions than asked for; zero is an empty payload, and it is VALID."""
        driver.engine.submit(driver.records(4))
        for most in (0, 1, 2):
            block = build(driver, request_on(driver, None, transactions=most))
            assert block.fields.transaction_count == most
        assert send(driver, block).verdict is Verdict.VALID

    def test_without_work_an_empty_payload_comes(self, driver: Driver) -> None:
        """After wait_ms there is an answer, with work or without."""
        block = build(driver, request_on(driver, None, wait_ms=20))
        assert block.fields.transaction_count == 0
        assert send(driver, block).verdict is Verdict.VALID

    def test_building_needs_a_known_parent_and_its_height(self, driver: Driver) -> None:
        """Unknown parent: SYNCING. Wrong height, too early, above the limits: an error."""
        engine, first = driver.engine, chain(driver, 1)[0]
        good = request_on(driver, first)
        assert engine.get_payload(good).built is not None
        assert engine.get_payload(changed(good, parent_hash=UNKNOWN)).built is None
        attributes, limits = good.attributes, driver.limits
        early = Attributes(
            timestamp_ms=first.fields.timestamp_ms, fee_recipient=attributes.fee_recipient
        )
        short = Attributes(timestamp_ms=attributes.timestamp_ms, fee_recipient=bytes(31))
        for bad in (
            changed(good, height=1),
            changed(good, height=3),
            changed(good, attributes=early),
            changed(good, attributes=short),
            changed(good, parent_hash=bytes(31)),
            changed(good, limits=changed(limits, bytes=limits.bytes + 1)),
            changed(good, limits=changed(limits, transactions=limits.transactions + 1)),
            changed(good, limits=changed(limits, objects=limits.objects + 1)),
        ):
            error = refused(partial(engine.get_payload, bad))
            assert error.code is ErrorCode.INVALID_ARGUMENT

    def test_a_batch_is_whole_records(self, driver: Driver) -> None:
        """Another length is refused as a whole; a record that no payload can carry is told."""
        engine, records = driver.engine, driver.records(2)
        for batch in (b"", records[:-1], bytes(RECORD_BYTES * (SUBMIT_RECORDS_MAX + 1))):
            error = refused(partial(engine.submit, batch))
            assert error.code is ErrorCode.INVALID_ARGUMENT
        results = engine.submit(records[:RECORD_BYTES] + bytes(RECORD_BYTES)).results
        assert results == bytes([SubmitResult.QUEUED, SubmitResult.REFUSED])

    # Bodies

    def test_bodies_come_back_as_they_were_sent(self, driver: Driver) -> None:
        """By hash in the order asked for, unfinalized ones too; unknown ones are not found."""
        blocks = chain(driver, 3)
        follow(driver, blocks[2].hash, blocks[0].hash)
        asked = [blocks[2].hash, UNKNOWN, blocks[0].hash, driver.genesis.hash, blocks[2].hash]
        bodies = list(driver.engine.bodies_by_hash(asked))
        expected = [blocks[2].header, b"", blocks[0].header, b"", blocks[2].header]
        assert [body.header for body in bodies] == expected
        assert [body.is_found for body in bodies] == [True, False, True, False, True]
        assert bytes(bodies[0].payload) == bytes(blocks[2].payload)
        assert len(bodies[1].payload) == 0

    def test_a_range_has_finalized_blocks_only(self, driver: Driver) -> None:
        """Every height has its body; above finalized it is not found."""
        blocks = chain(driver, 3)
        follow(driver, blocks[2].hash, blocks[1].hash)
        bodies = list(driver.engine.bodies_by_range(1, 4))
        assert [body.header for body in bodies] == [blocks[0].header, blocks[1].header, b"", b""]
        assert bytes(bodies[1].payload) == bytes(blocks[1].payload)

    def test_lengths_and_counts_are_checked(self, driver: Driver) -> None:
        """What has a wrong length or range is INVALID_ARGUMENT, with no exception to it."""
        engine, short = driver.engine, bytes(31)
        for call in (
            lambda: engine.forkchoice_updated(short, short, short),
            lambda: list(engine.bodies_by_hash([])),
            lambda: list(engine.bodies_by_hash([short])),
            lambda: list(engine.bodies_by_hash([UNKNOWN] * (BODIES_MAX + 1))),
            lambda: list(engine.bodies_by_range(0, 1)),
            lambda: list(engine.bodies_by_range(1, 0)),
            lambda: list(engine.bodies_by_range(1, BODIES_MAX + 1)),
        ):
            assert refused(call).code is ErrorCode.INVALID_ARGUMENT

    # Restart

    def test_after_a_restart_the_rest_is_sent_again(self, driver: Driver) -> None:
        """Another boot id, the same finalized block; missing blocks are taken again."""
        blocks = chain(driver, 4)
        follow(driver, blocks[3].hash, blocks[1].hash)
        before = driver.engine.get_status()
        driver.restart()
        after = driver.engine.get_status()
        assert after.boot_id != before.boot_id
        assert after.finalized == before.finalized
        assert set(after.unfinalized) <= set(before.unfinalized)
        for block in blocks:
            assert send(driver, block).verdict is Verdict.VALID
        assert follow(driver, blocks[3].hash, blocks[2].hash) is ForkchoiceStatus.OK
        bodies = list(driver.engine.bodies_by_range(1, 3))
        assert [body.header for body in bodies] == [block.header for block in blocks[:3]]
