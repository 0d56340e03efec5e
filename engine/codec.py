"""The payload: columns to canonical bytes and back without copying, and their commitment.

One content has one encoding: the length is a function of two counts, every padding byte is
checked, and whatever has no column is not encodable. So equal batches have equal bytes, and the
commitment to the bytes is a commitment to the batch. Spec: spec/payload.md. Next: `columns.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray

from engine.columns import COLUMN_TABLE, count_of, view_column
from engine.constants import (
    PAYLOAD_ALIGNMENT_BYTES,
    PAYLOAD_CHUNK_BYTES,
    PAYLOAD_CHUNK_KEY,
    PAYLOAD_CONTEXT,
    PAYLOAD_HEAD_BYTES,
    PAYLOAD_MAGIC,
    PAYLOAD_NODE_KEY,
    PAYLOAD_VERSION,
    derive_key,
)
from engine.errors import InvalidPayload, Reason
from engine.types import ZERO_HASH, Hash32
from kernels.layout import I32, U8, Columns

WORD_BYTES = 8
"""Columns must begin at multiples of this in memory, or they are another type to the kernels."""
OFFSET_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadLimits:
    """The largest payload that a chain accepts. Spec: spec/payload.md#checks."""

    bytes: int
    """bytes of the whole encoding"""
    transactions: int
    """transactions, below 2^31: lane offsets are signed 32-bit integers"""
    objects: int
    """objects that are written, which for transfers is the lane count; below 2^31"""

    def __post_init__(self) -> None:
        """Refuse limits that the encoding cannot express."""
        assert 0 <= self.bytes < 2**63, self.bytes
        assert 0 <= self.transactions < 2**31, self.transactions
        assert 0 <= self.objects < 2**31, self.objects


class Batch(NamedTuple):
    """The content of a payload."""

    columns: Columns
    """n transactions in canonical order"""
    lane_offsets: I32
    """(lane_count + 1,) int32: lane i holds transactions [offsets[i], offsets[i + 1])"""


def _aligned(length: int) -> int:
    """Return length rounded up to the next buffer boundary."""
    return -(-length // PAYLOAD_ALIGNMENT_BYTES) * PAYLOAD_ALIGNMENT_BYTES


def _buffer_lengths(lane_count: int, transaction_count: int) -> list[int]:
    """Return the bytes of each buffer without padding: lane offsets, then the column table."""
    columns = [column.width * transaction_count for column in COLUMN_TABLE]
    return [OFFSET_BYTES * (lane_count + 1), *columns]


def payload_bytes(lane_count: int, transaction_count: int) -> int:
    """Return the length of a payload with these counts, in bytes."""
    lengths = _buffer_lengths(lane_count, transaction_count)
    return PAYLOAD_HEAD_BYTES + sum(_aligned(length) for length in lengths)


def encode_payload(columns: Columns, lane_offsets: I32) -> bytes:
    """Return the canonical bytes of a batch.

    `lane_offsets`: (lane_count + 1,) int32, from 0 to n, strictly increasing. Whether lanes are the
    right ones is not judged here. A malformed batch is a bug of the caller (assert).
    """
    count = count_of(columns)
    lane_count = lane_offsets.shape[0] - 1
    assert lane_offsets.dtype == np.int32, lane_offsets.dtype
    assert lane_count >= 0, "there is at least the offset 0"
    assert lane_offsets[0] == 0, lane_offsets[0]
    assert lane_offsets[-1] == count, (lane_offsets[-1], count)
    assert (lane_offsets[1:] > lane_offsets[:-1]).all(), "a lane is empty, or offsets decrease"
    head = PAYLOAD_MAGIC + b"".join(
        number.to_bytes(4, "little") for number in (PAYLOAD_VERSION, lane_count, count)
    )
    parts: list[bytes | memoryview] = [head.ljust(PAYLOAD_HEAD_BYTES, b"\0")]
    for array in (lane_offsets, *columns):
        parts.append(np.ascontiguousarray(array).data)
        parts.append(bytes(_aligned(array.nbytes) - array.nbytes))
    data = b"".join(parts)
    assert len(data) == payload_bytes(lane_count, count)
    return data


def decode_payload(data: bytes | memoryview, limits: PayloadLimits) -> Batch:
    """Return the batch in a payload as read-only views of its bytes.

    The views keep `data` alive, and nobody may write to it meanwhile. Bytes that do not begin at a
    multiple of 8 in memory are copied once. Raises InvalidPayload, in the order of the reasons
    PAYLOAD_TOO_SHORT to PAYLOAD_PADDING; transactions are not judged. Spec: spec/payload.md#checks.
    """
    raw = np.frombuffer(data, np.uint8)
    lane_count, count = _check_head(raw, limits)
    if raw.ctypes.data % WORD_BYTES:
        raw = raw.copy()
    buffers, paddings, start = [], [], PAYLOAD_HEAD_BYTES
    for length in _buffer_lengths(lane_count, count):
        end = start + _aligned(length)
        buffers.append(raw[start : start + length])
        paddings.append(raw[start + length : end])
        start = end
    assert start == raw.size
    lane_offsets = buffers[0].view(np.int32)
    lane_offsets.flags.writeable = False
    _check_lane_offsets(lane_offsets, count)
    _check_padding(paddings)
    arrays = [
        view_column(buffer, column)
        for buffer, column in zip(buffers[1:], COLUMN_TABLE, strict=True)
    ]
    return Batch(Columns(*arrays), lane_offsets)


def _check_head(raw: U8, limits: PayloadLimits) -> tuple[int, int]:
    """Return (lane_count, transaction_count), or raise InvalidPayload: head, limits, length."""
    if raw.size < PAYLOAD_HEAD_BYTES:
        raise InvalidPayload(
            Reason.PAYLOAD_TOO_SHORT, None, f"{raw.size} bytes cannot hold the head"
        )
    head = raw[:PAYLOAD_HEAD_BYTES].tobytes()
    version, lane_count, count = (
        int.from_bytes(head[start : start + 4], "little") for start in (8, 12, 16)
    )
    if head[:8] != PAYLOAD_MAGIC:
        raise InvalidPayload(Reason.PAYLOAD_MAGIC, None, f"begins with {head[:8].hex()}")
    if version != PAYLOAD_VERSION:
        raise InvalidPayload(Reason.PAYLOAD_VERSION, None, f"version {version} is unknown")
    if any(head[20:]):
        raise InvalidPayload(
            Reason.PAYLOAD_RESERVED, None, "a reserved byte of the head is not zero"
        )
    measured = (
        ("bytes", raw.size, limits.bytes),
        ("transactions", count, limits.transactions),
        ("lanes", lane_count, limits.objects),
    )
    for noun, value, limit in measured:
        if value > limit:
            raise InvalidPayload(
                Reason.PAYLOAD_LIMITS, None, f"{value} {noun} are more than {limit}"
            )
    wanted = payload_bytes(lane_count, count)
    if raw.size != wanted:
        detail = f"{raw.size} bytes where the counts ask for {wanted}"
        raise InvalidPayload(Reason.PAYLOAD_LENGTH, None, detail)
    return lane_count, count


def _check_lane_offsets(lane_offsets: I32, count: int) -> None:
    """Raise InvalidPayload unless offsets go from 0 to count and each lane has a transaction."""
    first, last = int(lane_offsets[0]), int(lane_offsets[-1])
    if first != 0 or last != count:
        detail = f"offsets go from {first} to {last}, not from 0 to {count}"
        raise InvalidPayload(Reason.LANE_OFFSETS, None, detail)
    decreasing = lane_offsets[1:] < lane_offsets[:-1]
    if decreasing.any():
        detail = f"lane {int(decreasing.argmax())} ends before it begins"
        raise InvalidPayload(Reason.LANE_OFFSETS, None, detail)
    is_empty = lane_offsets[1:] == lane_offsets[:-1]
    if is_empty.any():
        detail = f"lane {int(is_empty.argmax())} holds no transaction"
        raise InvalidPayload(Reason.LANE_EMPTY, None, detail)


def _check_padding(paddings: list[U8]) -> None:
    """Raise InvalidPayload if a byte between two buffers, or after the last, is not zero."""
    for index, padding in enumerate(paddings):
        if padding.any():
            name = COLUMN_TABLE[index - 1].name if index else "lane offsets"
            detail = f"the padding after buffer {index} ({name}) is not zero"
            raise InvalidPayload(Reason.PAYLOAD_PADDING, None, detail)


def _arrow_type(dtype: str, width: int) -> Any:
    """Return the Arrow type of a column: an unsigned integer or a fixed-size binary."""
    if np.dtype(dtype).itemsize == width:
        return pa.from_numpy_dtype(np.dtype(dtype))
    return pa.binary(width)


ARROW_STRUCT = pa.struct(
    [
        pa.field(column.name, _arrow_type(column.dtype, column.width), nullable=False)
        for column in COLUMN_TABLE
    ]
)
ARROW_SCHEMA = pa.schema(
    [pa.field("transactions", pa.list_(pa.field("item", ARROW_STRUCT, nullable=False)), False)]
)
"""`transactions: list<struct<version, kind, ...>>`; nothing is nullable."""


def to_arrow(batch: Batch) -> Any:
    """Return the batch as a pyarrow.RecordBatch of `ARROW_SCHEMA`, one row per lane, not copied.

    It keeps the batch's arrays, hence the payload's bytes, alive.
    """
    count, lane_count = count_of(batch.columns), batch.lane_offsets.shape[0] - 1

    def wrap(kind: Any, length: int, array: NDArray[Any] | None, children: list[Any]) -> Any:
        buffers = [None] if array is None else [None, pa.py_buffer(array)]
        return pa.Array.from_buffers(kind, length, buffers, null_count=0, children=children)

    arrays: tuple[NDArray[Any], ...] = batch.columns
    fields = [
        wrap(field.type, count, array, [])
        for field, array in zip(ARROW_STRUCT, arrays, strict=True)
    ]
    transactions = wrap(ARROW_STRUCT, count, None, fields)
    list_type = ARROW_SCHEMA.field("transactions").type
    lanes = wrap(list_type, lane_count, batch.lane_offsets, [transactions])
    return pa.RecordBatch.from_arrays([lanes], schema=ARROW_SCHEMA)


def payload_commitment(data: bytes | memoryview) -> Hash32:
    """Return the header's commitment to the exact bytes, over chunks of 256 KiB.

    Spec: spec/payload.md#commitment.
    """
    view = memoryview(data).cast("B")
    starts = range(0, len(view), PAYLOAD_CHUNK_BYTES)
    chunks = [view[start : start + PAYLOAD_CHUNK_BYTES] for start in starts]
    leaves = [blake3(chunk, key=PAYLOAD_CHUNK_KEY).digest() for chunk in chunks]
    root = _merkle_root(leaves, PAYLOAD_NODE_KEY, ZERO_HASH)
    counts = len(view).to_bytes(8, "little") + len(leaves).to_bytes(8, "little")
    return derive_key(PAYLOAD_CONTEXT, counts + root)


def _merkle_root(leaves: Sequence[bytes], node_key: bytes, absent: bytes) -> bytes:
    """Return the root over the few leaves of one payload. Spec: spec/README.md#merkle-trees."""
    level = list(leaves) or [absent]
    while len(level) > 1:
        if len(level) % 2:
            level.append(absent)
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [blake3(left + right, key=node_key).digest() for left, right in pairs]
        absent = blake3(absent + absent, key=node_key).digest()
    return level[0]
