"""The block header: 400 bytes at fixed offsets, whose hash names the block.

Spec: spec/block.md#header. There is no view inside (a block can be proposed again) and no
certificate (it stands beside). Encoding and decoding are exact inverses for every 400 bytes:
whether version, reserved and system bytes are acceptable is for the checks of a block, so that a
header can be named by its hash before it is judged.
"""

import struct
from dataclasses import dataclass, fields

from engine.constants import (
    HASH_BYTES,
    HEADER_BYTES,
    HEADER_CONTEXT,
    HEADER_VERSION,
    derive_key,
)
from engine.errors import InvalidPayload, Reason
from engine.types import ZERO_HASH, Epoch, Hash32, Height, PublicKey, TimestampMs

_FORMAT = struct.Struct("<II QQ 32s Q 32s 32s 32s 32s QQ 32s 32s 32s 32s 32s 32s")
assert _FORMAT.size == HEADER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One block, as validators sign it. Fields stand in the order of the bytes."""

    version: int = HEADER_VERSION
    """uint32"""
    chain_id: int
    """uint32"""
    epoch: Epoch
    height: Height
    """1 or more; height 0 is genesis, which has a hash and no header"""
    parent_hash: Hash32
    """block hash of the parent; the genesis hash at height 1"""
    timestamp_ms: TimestampMs
    proposer: PublicKey
    fee_recipient: PublicKey
    """is credited with the fees of the block"""
    validator_set_id: Hash32
    """of the set that decides this block"""
    payload_commitment: Hash32
    payload_bytes: int
    """uint64, bytes of the whole payload"""
    transaction_count: int
    """uint64"""
    transactions_root: Hash32
    state_hash: Hash32
    """of the state after this block"""
    receipts_hash: Hash32
    system_hash: Hash32 = ZERO_HASH
    """room for system transactions; zero in this version"""
    next_validator_set_hash: Hash32 = ZERO_HASH
    reserved: bytes = ZERO_HASH
    """32 bytes; zero in this version"""

    def encode(self) -> bytes:
        """Return the 400 bytes; a field that does not fit is a bug of the caller (assert)."""
        values = [getattr(self, field.name) for field in fields(self)]
        for field, value in zip(fields(self), values, strict=True):
            wide = 32 if field.name in ("version", "chain_id") else 64
            if isinstance(value, int):
                assert 0 <= value < 2**wide, (field.name, value)
            else:
                assert len(value) == HASH_BYTES, (field.name, len(value))
        return _FORMAT.pack(*values)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> "Header":
        """Return the header in 400 bytes; raises InvalidPayload (HEADER_LENGTH) for another length.

        `version`, `reserved` and `system_hash` are handed out as they are, unchecked.
        """
        if len(data) != HEADER_BYTES:
            detail = f"{len(data)} bytes are no header; a header has {HEADER_BYTES}"
            raise InvalidPayload(Reason.HEADER_LENGTH, None, detail)
        names = [field.name for field in fields(cls)]
        return cls(**dict(zip(names, _FORMAT.unpack(data), strict=True)))

    def block_hash(self) -> Hash32:
        """Return the hash that names the block."""
        return derive_key(HEADER_CONTEXT, self.encode())
