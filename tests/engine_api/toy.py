"""A ledger that is small enough to be right: opaque records, and a state that is a hash chain.

Its payload is a magic and records of 192 bytes, each of which begins with 1. It stands in for
accounts and lanes where only the contract is looked at; the header is the real one.
"""

from dataclasses import dataclass, replace

from blake3 import blake3

from engine.errors import InvalidPayload, Reason
from engine.header import Header
from engine.types import Epoch, Hash32, Height, PublicKey, TimestampMs
from engine_api.types import RECORD_BYTES, Attributes, BuiltPayload, Limits

MAGIC = b"TOYPAYLD"
CHAIN_ID = 7
GENESIS_HASH = Hash32(bytes([1]) * 32)
PARAMS_HASH = Hash32(bytes([2]) * 32)
LIMITS = Limits(bytes=32 * 2**20, transactions=200_000, objects=200_000)
UNFINALIZED_MAX = 8
FEE_RECIPIENT = PublicKey(bytes([3]) * 32)


def digest(word: str, *parts: bytes | memoryview) -> Hash32:
    """Return a hash of parts for one use."""
    hasher = blake3(derive_key_context=f"toy {word}")
    for part in parts:
        hasher.update(part)
    return Hash32(hasher.digest())


GENESIS_STATE = digest("genesis")


def commitment(payload: bytes | memoryview) -> Hash32:
    """Return the payload_commitment of bytes."""
    return digest("payload", payload)


def records_of(payload: bytes | memoryview) -> memoryview:
    """Return the records of a payload; raises InvalidPayload."""
    view = memoryview(payload)
    if view[: len(MAGIC)] != MAGIC:
        raise InvalidPayload(Reason.PAYLOAD_MAGIC, None, "no toy")
    records = view[len(MAGIC) :]
    if len(records) % RECORD_BYTES:
        raise InvalidPayload(Reason.PAYLOAD_LENGTH, None, "no whole records")
    for position, version in enumerate(records[::RECORD_BYTES]):
        if version != 1:
            raise InvalidPayload(Reason.TRANSACTION_VERSION, position, "not 1")
    return records


def record(number: int) -> bytes:
    """Return a record that any payload can carry."""
    return bytes([1]) + number.to_bytes(8, "little") + bytes(RECORD_BYTES - 9)


def execute(parent_state: bytes, payload: bytes | memoryview) -> BuiltPayload:
    """Return everything that a header says of a payload on a state; raises InvalidPayload."""
    records = records_of(payload)
    return BuiltPayload(
        payload=payload,
        payload_commitment=commitment(payload),
        transaction_count=len(records) // RECORD_BYTES,
        transactions_root=digest("transactions", records),
        state_hash=digest("state", parent_state, records),
        receipts_hash=digest("receipts", records),
    )


def make_header(
    parent_hash: bytes, height: int, built: BuiltPayload, attributes: Attributes
) -> bytes:
    """Return the header that a proposer would sign."""
    return Header(
        chain_id=CHAIN_ID,
        epoch=Epoch(0),
        height=Height(height),
        parent_hash=Hash32(parent_hash),
        timestamp_ms=TimestampMs(attributes.timestamp_ms),
        proposer=PublicKey(bytes([4]) * 32),
        fee_recipient=PublicKey(attributes.fee_recipient),
        validator_set_id=Hash32(bytes([5]) * 32),
        payload_commitment=Hash32(built.payload_commitment),
        payload_bytes=built.payload_bytes,
        transaction_count=built.transaction_count,
        transactions_root=Hash32(built.transactions_root),
        state_hash=Hash32(built.state_hash),
        receipts_hash=Hash32(built.receipts_hash),
    ).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A header and its payload."""

    header: bytes
    payload: bytes | memoryview

    @property
    def fields(self) -> Header:
        """The header, decoded."""
        return Header.decode(self.header)

    @property
    def hash(self) -> Hash32:
        """The hash that names the block."""
        return self.fields.block_hash()

    @property
    def height(self) -> int:
        """The height of the block."""
        return self.fields.height

    def changed(self, **values: int | bytes) -> "Block":
        """Return the block with other header fields."""
        header = replace(self.fields, **values)  # type: ignore[arg-type]  # any field by its name
        return Block(header=header.encode(), payload=self.payload)


def make_block(parent: Block | None, salt: int, record_count: int = 2) -> Block:
    """Return a valid block on a block, None being genesis; another salt is another block."""
    payload = MAGIC + b"".join(record(1_000_000 * salt + index) for index in range(record_count))
    state = parent.fields.state_hash if parent else GENESIS_STATE
    height = parent.height + 1 if parent else 1
    attributes = Attributes(timestamp_ms=1_000 * height, fee_recipient=FEE_RECIPIENT)
    header = make_header(
        parent.hash if parent else GENESIS_HASH, height, execute(state, payload), attributes
    )
    return Block(header=header, payload=payload)
