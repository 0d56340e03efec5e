"""What the conformance suite has to know of an engine under test, and what it often asks it."""

from collections.abc import Callable
from typing import Protocol

import pytest

from engine_api.protocol import ExecutionEngine
from engine_api.types import (
    Attributes,
    BlockId,
    EngineApiError,
    ForkchoiceStatus,
    Limits,
    NewPayloadAnswer,
    PayloadRequest,
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
