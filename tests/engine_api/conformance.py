"""What every ExecutionEngine does, whoever implements it: subclass `Conformance`, give it a driver.

    class TestService(Conformance):
        @pytest.fixture
        def driver(self) -> Iterator[Driver]: ...

Written against the protocol alone: the driver makes blocks that its engine finds valid, this suite
spoils them, sends them in wrong orders and compares what comes back. Spec: spec/engine_api.md.
"""

from functools import partial

import pytest

from engine.errors import Reason
from engine_api.protocol import Deadline
from engine_api.types import (
    BlockId,
    ErrorCode,
    ForkchoiceStatus,
    Retry,
    Verdict,
)
from tests.engine_api.conformance_calls import CallsConformance
from tests.engine_api.driver import (
    ENCODING_REASONS,
    UNKNOWN,
    Driver,
    chain,
    follow,
    refused,
    request_on,
    send,
)
from tests.engine_api.toy import Block


class Conformance(CallsConformance):
    """The whole suite; a subclass has a fixture `driver`."""

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
        for more in (driver.limits.bytes + 1, 2**64 - 1):
            block = driver.block(None, 1).changed(payload_bytes=more)
            error = refused(partial(send, driver, block))
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
