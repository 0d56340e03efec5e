"""How a block and its history stand in a record's body, and single transactions read from there.

Both bodies begin with the header, so that either log alone says which blocks it is about. A payload
begins at a multiple of 64 bytes. Spec: spec/storage.md#block-records, #history.
"""

from engine.columns import COLUMN_TABLE
from engine.constants import (
    HEADER_BYTES,
    PAYLOAD_ALIGNMENT_BYTES,
    PAYLOAD_HEAD_BYTES,
    TRANSACTION_BYTES,
)
from engine.store.errors import damaged
from engine.store.segment import ALIGNMENT_BYTES, Location, Part, SegmentLog

PAYLOAD_START = -(-HEADER_BYTES // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
_GAP = bytes(PAYLOAD_START - HEADER_BYTES)


def body_parts(header: bytes, parts: list[Part]) -> list[Part]:
    """Return the parts of a body: header, zeros, and what follows."""
    assert len(header) == HEADER_BYTES, len(header)
    return [header, _GAP, *parts]


def header_of(log: SegmentLog, location: Location) -> bytes:
    """Return the header in a record's body; the caller compares its hash."""
    return log.read_parts(location, [(0, HEADER_BYTES)])[0]


def read_transaction(log: SegmentLog, location: Location, index: int) -> bytes:
    """Return the 192-byte record of one transaction of a stored payload.

    Only the bytes of this transaction are read: the caller compares its hash. index: one that an
    index names for this block, so a payload that ends before it raises StoreDamaged.
    """
    start = PAYLOAD_START
    head = log.read_parts(location, [(start, start + PAYLOAD_HEAD_BYTES)])[0]
    lane_count, count = (int.from_bytes(head[i : i + 4], "little") for i in (12, 16))
    if index >= count:
        why = f"the payload says that it has {count} transactions, and the index names one more"
        raise damaged(log.path(location.segment), location.offset, why)
    start += PAYLOAD_HEAD_BYTES + _aligned(4 * (lane_count + 1))
    spans = []
    for column in COLUMN_TABLE:
        place = start + column.width * index
        spans.append((place, place + column.width))
        start += _aligned(column.width * count)
    record = bytearray(TRANSACTION_BYTES)
    for column, value in zip(COLUMN_TABLE, log.read_parts(location, spans), strict=True):
        record[column.record_offset : column.record_offset + column.width] = value
    return bytes(record)


def _aligned(length: int) -> int:
    return -(-length // PAYLOAD_ALIGNMENT_BYTES) * PAYLOAD_ALIGNMENT_BYTES
