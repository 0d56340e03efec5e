"""A payload has one encoding, is read without copying, and says why it is refused."""

import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.codec import (
    ARROW_SCHEMA,
    Batch,
    PayloadLimits,
    decode_payload,
    encode_payload,
    payload_bytes,
    payload_commitment,
    to_arrow,
)
from engine.columns import COLUMN_TABLE, empty, to_records
from engine.constants import PAYLOAD_CHUNK_BYTES
from engine.errors import InvalidPayload, Reason
from spec import oracle
from tests.engine.batches import batches, random_batch

LIMITS = PayloadLimits(bytes=2**26, transactions=2**18, objects=2**18)


def encode(batch: Batch) -> bytes:
    """Return a batch's payload."""
    return encode_payload(batch.columns, batch.lane_offsets)


def lanes_of(batch: Batch) -> list[list[object]]:
    """Return a batch as the specification's lanes."""
    rows = [oracle.decode_transaction(row.tobytes()) for row in to_records(batch.columns)]
    ends = batch.lane_offsets.tolist()
    return [rows[start:end] for start, end in pairwise(ends)]


def refusal(data: bytes, limits: PayloadLimits = LIMITS) -> Reason | None:
    """Return why a payload is refused, or None."""
    try:
        decode_payload(data, limits)
    except InvalidPayload as error:
        return error.reason
    return None


@given(batches())
def test_round_trip(batch: Batch) -> None:
    """Decoding gives back exactly what was encoded, in as many bytes as the counts say."""
    data = encode(batch)
    assert len(data) == payload_bytes(batch.lane_offsets.size - 1, batch.columns.version.size)
    decoded = decode_payload(data, LIMITS)
    np.testing.assert_array_equal(decoded.lane_offsets, batch.lane_offsets)
    columns: tuple[Any, ...] = decoded.columns
    for before, after in zip(batch.columns, columns, strict=True):
        np.testing.assert_array_equal(before, after)
        assert after.dtype == np.asarray(before).dtype


@given(batches())
def test_encoding_agrees_with_the_specification(batch: Batch) -> None:
    """Bytes and commitment are those of the oracle, and the oracle reads the bytes."""
    data, lanes = encode(batch), lanes_of(batch)
    assert data == oracle.encode_payload(lanes)
    assert oracle.decode_payload(data, oracle.Limits()) == lanes
    assert payload_commitment(data) == oracle.payload_commitment(data)


@pytest.mark.parametrize(("lane_count", "count"), [(0, 0), (1, 1), (2, 3)])
def test_every_bit_counts(rng: np.random.Generator, lane_count: int, count: int) -> None:
    """A flipped bit is refused or decodes to other content: one encoding per content.

    Re-encoding what was decoded gives the flipped bytes back, so no two payloads mean the same.
    """
    data = encode(random_batch(rng, lane_count, count))
    accepted = 0
    for index in range(len(data)):
        flipped = bytearray(data)
        flipped[index] ^= 1 << int(rng.integers(8))
        try:
            batch = decode_payload(bytes(flipped), LIMITS)
        except InvalidPayload:
            continue
        accepted += 1
        assert encode(batch) == flipped
    assert accepted == count * sum(column.width for column in COLUMN_TABLE)


@given(batches(), st.data())
def test_refusals_agree_with_the_specification(batch: Batch, data: st.DataObject) -> None:
    """A damaged payload is refused by the oracle for the same reason, or by neither."""
    payload = bytearray(encode(batch))
    for _ in range(data.draw(st.integers(1, 3))):
        area = data.draw(st.sampled_from([24, 64 + 4 * batch.lane_offsets.size, len(payload)]))
        index = data.draw(st.integers(0, min(area, len(payload)) - 1))
        payload[index] = data.draw(st.sampled_from([0, 1, 2, 0x80, 0xFF]))
    cut = data.draw(st.sampled_from([len(payload)] * 4 + [len(payload) - 64, 40]))
    damaged = bytes(payload[:cut])
    try:
        oracle.decode_payload(damaged, oracle.Limits())
        expected = None
    except oracle.Invalid as error:
        expected = Reason[error.reason]
    assert refusal(damaged) == expected


def head(*, magic: bytes = b"TOSPAYLD", version: int = 1, lanes: int, count: int) -> bytes:
    """Return a head of 64 bytes."""
    return magic + struct.pack("<III", version, lanes, count) + bytes(44)


def offsets_payload(offsets: list[int], count: int) -> bytes:
    """Return a payload of zero transactions with these offsets."""
    data = head(lanes=len(offsets) - 1, count=count) + struct.pack(f"<{len(offsets)}i", *offsets)
    return data.ljust(payload_bytes(len(offsets) - 1, count), b"\0")


def with_bytes(data: bytes, *positions: int) -> bytes:
    """Return data with the bytes at these positions set to one."""
    damaged = bytearray(data)
    for position in positions:
        damaged[position] = 1
    return bytes(damaged)


PADDING = 64 + 63
"""Last byte of the offsets' buffer, which is padding in a payload of few lanes."""
REFUSED = {
    Reason.PAYLOAD_TOO_SHORT: bytes(63),
    Reason.PAYLOAD_MAGIC: with_bytes(head(magic=b"TOSPAYLE", version=2, lanes=9, count=9), 63),
    Reason.PAYLOAD_VERSION: with_bytes(head(version=2, lanes=9, count=9), 63),
    Reason.PAYLOAD_RESERVED: with_bytes(head(lanes=2**31, count=9), 63),
    Reason.PAYLOAD_LIMITS: head(lanes=0, count=2**32 - 1),
    Reason.PAYLOAD_LENGTH: with_bytes(offsets_payload([0, 0, 3], 2), PADDING) + b"\1",
    Reason.LANE_OFFSETS: with_bytes(offsets_payload([0, 2, 2, 1, 3], 3), PADDING),
    Reason.LANE_EMPTY: with_bytes(offsets_payload([0, 1, 1, 2], 2), PADDING),
    Reason.PAYLOAD_PADDING: with_bytes(offsets_payload([0, 2, 3], 3), PADDING),
}


@pytest.mark.parametrize("reason", REFUSED, ids=lambda reason: reason.name)
def test_each_reason_in_its_order(reason: Reason) -> None:
    """A payload with several defects is refused for the one that is looked for first."""
    with pytest.raises(InvalidPayload) as caught:
        decode_payload(REFUSED[reason], LIMITS)
    assert caught.value.reason is reason
    assert caught.value.position is None
    assert caught.value.detail


@pytest.mark.parametrize("offsets", [[1, 2], [0, 1], [0, 3], [-1, 2], [0, 3, 2], [0, -1, 2], [0]])
def test_bad_offsets(offsets: list[int]) -> None:
    """Offsets that do not lead from 0 up to the count of two are refused."""
    assert refusal(offsets_payload(offsets, 2)) == Reason.LANE_OFFSETS


def test_limits_are_inclusive(rng: np.random.Generator) -> None:
    """A payload at each limit is accepted and one above it refused."""
    data = encode(random_batch(rng, 2, 3))
    exact = PayloadLimits(bytes=len(data), transactions=3, objects=2)
    assert refusal(data, exact) is None
    for smaller in (
        PayloadLimits(bytes=len(data) - 1, transactions=3, objects=2),
        PayloadLimits(bytes=len(data), transactions=2, objects=2),
        PayloadLimits(bytes=len(data), transactions=3, objects=1),
    ):
        assert refusal(data, smaller) == Reason.PAYLOAD_LIMITS


def test_views_are_read_only_and_not_copied(rng: np.random.Generator) -> None:
    """Columns lie inside the payload's bytes, aligned and read-only, whatever holds them."""
    data = encode(random_batch(rng, 2, 3))
    for holder in (data, memoryview(bytearray(data))):
        raw = np.frombuffer(holder, np.uint8)
        batch = decode_payload(holder, LIMITS)
        for array in (*batch.columns, batch.lane_offsets):
            assert np.shares_memory(array, raw)
            assert not array.flags.writeable
            assert array.flags.aligned


def test_odd_addresses_are_copied(rng: np.random.Generator) -> None:
    """A payload at an odd address decodes to aligned columns all the same."""
    data = encode(random_batch(rng, 2, 3))
    for shift in range(1, 8):
        shifted = memoryview(bytes(shift) + data)[shift:]
        batch = decode_payload(shifted, LIMITS)
        assert all(array.flags.aligned and not array.flags.writeable for array in batch.columns)
        assert encode(batch) == data


@pytest.mark.parametrize(("lane_count", "count"), [(0, 0), (1, 1), (4, 9)])
def test_arrow_lies_inside_the_payload(
    rng: np.random.Generator, lane_count: int, count: int
) -> None:
    """Arrow reads the lanes from the payload's own bytes: valid, equal, no buffer elsewhere."""
    data = encode(random_batch(rng, lane_count, count))
    batch = decode_payload(data, LIMITS)
    table = to_arrow(batch)
    table.validate(full=True)
    assert table.schema == ARROW_SCHEMA
    assert table.num_rows == lane_count
    start = np.frombuffer(data, np.uint8).ctypes.data
    buffers = [buffer for buffer in table.column(0).buffers() if buffer is not None]
    assert len(buffers) == 1 + len(COLUMN_TABLE)
    for buffer in buffers:
        assert buffer.size == 0 or start <= buffer.address < start + len(data)
        assert buffer.size == 0 or buffer.address + buffer.size <= start + len(data)
    lanes = [
        [oracle.Transaction(**row) for row in lane]
        for lane in table.column("transactions").to_pylist()
    ]
    assert lanes == lanes_of(batch)


def test_arrow_type_is_the_published_one() -> None:
    """The Arrow type is list<struct<...>> with plain integers and fixed-size binaries."""
    struct_type = ARROW_SCHEMA.field("transactions").type.value_type
    kinds = {field.name: field.type for field in struct_type}
    assert kinds["version"] == kinds["kind"] == pa.uint8()
    assert kinds["chain_id"] == pa.uint32()
    assert kinds["nonce"] == kinds["fee"] == pa.uint64()
    assert kinds["memo"] == pa.binary(16)
    assert kinds["signature"] == pa.binary(64)


@pytest.mark.parametrize("size", [0, 1, PAYLOAD_CHUNK_BYTES, PAYLOAD_CHUNK_BYTES + 1, 900_000])
def test_commitment_agrees_with_the_specification(rng: np.random.Generator, size: int) -> None:
    """The commitment is the oracle's at and around the edges of chunks, and from any holder."""
    data = rng.bytes(size)
    assert payload_commitment(data) == oracle.payload_commitment(data)
    assert payload_commitment(memoryview(bytearray(data))) == oracle.payload_commitment(data)


def test_empty_payload() -> None:
    """A block without transactions has the 128 bytes of head and one offset."""
    data = encode_payload(empty(), np.zeros(1, np.int32))
    assert data == head(lanes=0, count=0) + bytes(64)
    assert refusal(data) is None


@pytest.mark.parametrize("offsets", [[0, 1], [1, 2], [0, 0, 2], [0, 2, 1, 2]])
def test_bad_batches_are_bugs(rng: np.random.Generator, offsets: list[int]) -> None:
    """Encoding never makes a payload that decoding would refuse."""
    columns = random_batch(rng, 1, 2).columns
    with pytest.raises(AssertionError):
        encode_payload(columns, np.array(offsets, np.int32))
