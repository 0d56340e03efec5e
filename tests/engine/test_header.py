"""Headers are 400 bytes, in both directions, and every byte is in the hash."""

import struct
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.constants import HEADER_BYTES
from engine.errors import InvalidPayload, Reason
from engine.header import Header
from engine.types import Epoch, Hash32, Height, PublicKey, TimestampMs
from spec import oracle


def example() -> Header:
    """Return a header whose fields all differ."""

    def filled(byte: int) -> Hash32:
        return Hash32(bytes([byte]) * 32)

    return Header(
        chain_id=7,
        epoch=Epoch(8),
        height=Height(9),
        parent_hash=filled(1),
        timestamp_ms=TimestampMs(10),
        proposer=PublicKey(filled(2)),
        fee_recipient=PublicKey(filled(3)),
        validator_set_id=filled(4),
        payload_commitment=filled(5),
        payload_bytes=11,
        transaction_count=12,
        transactions_root=filled(6),
        state_hash=filled(7),
        receipts_hash=filled(8),
        next_validator_set_hash=filled(9),
    )


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_decode_and_encode_are_inverses(data: bytes) -> None:
    """Any 400 bytes are one header, that header is those bytes, and the oracle agrees."""
    header = Header.decode(data)
    assert header.encode() == data
    assert Header.decode(memoryview(data)) == header
    assert header.block_hash() == oracle.block_hash(data)
    names = [field.name for field in fields(Header)]
    assert names == [name for name, _ in oracle.HEADER_FIELDS]
    assert oracle.encode_header({name: getattr(header, name) for name in names}) == data


def test_fields_stand_at_their_offsets() -> None:
    """The bytes of an example are those that the specification's offsets say."""
    data = example().encode()
    assert struct.unpack_from("<IIQQ", data, 0) == (1, 7, 8, 9)
    assert struct.unpack_from("<Q", data, 56) == (10,)
    assert struct.unpack_from("<QQ", data, 192) == (11, 12)
    offsets = {24: 1, 64: 2, 96: 3, 128: 4, 160: 5, 208: 6, 240: 7, 272: 8, 304: 0, 336: 9, 368: 0}
    for offset, byte in offsets.items():
        assert data[offset : offset + 32] == bytes([byte]) * 32, offset


@pytest.mark.parametrize("length", [0, 399, 401])
def test_other_lengths_are_refused(length: int) -> None:
    """Bytes that are not 400 are no header."""
    with pytest.raises(InvalidPayload) as caught:
        Header.decode(bytes(length))
    assert caught.value.reason is Reason.HEADER_LENGTH


def test_every_bit_is_in_the_hash(rng: np.random.Generator) -> None:
    """A flipped bit anywhere gives another block hash."""
    data = example().encode()
    hashes = {example().block_hash()}
    for index in range(HEADER_BYTES):
        flipped = bytearray(data)
        flipped[index] ^= 1 << int(rng.integers(8))
        hashes.add(Header.decode(bytes(flipped)).block_hash())
    assert len(hashes) == HEADER_BYTES + 1


def test_values_that_do_not_fit_are_bugs() -> None:
    """No field is cut to its width."""
    header = example()
    for field in fields(Header):
        value = getattr(header, field.name)
        wrong: list[Any] = [2**64, -1] if isinstance(value, int) else [bytes(31), bytes(33)]
        for bad in wrong:
            with pytest.raises(AssertionError):
                replace(header, **{field.name: bad}).encode()
