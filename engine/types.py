"""The small values that the executor passes around: names for integers and for bytes.

A NewType costs nothing at run time; it keeps a height from being passed where a slot is meant.
Arrays have their names in `kernels/layout.py`.
"""

from typing import Literal, NewType

Height = NewType("Height", int)
"""Number of a block; genesis is 0."""
Epoch = NewType("Epoch", int)
"""Number of a span of heights with a fixed validator set; the first is 0."""
Slot = NewType("Slot", int)
"""Index of an account in the state; never a time."""
Amount = NewType("Amount", int)
"""Base units, 0 to 2^63 - 1."""
TimestampMs = NewType("TimestampMs", int)
"""Milliseconds since 1970-01-01 00:00 UTC."""
Hash32 = NewType("Hash32", bytes)
"""32 bytes of BLAKE3."""
PublicKey = NewType("PublicKey", bytes)
"""32 bytes: an Ed25519 public key, or any other 32 bytes where only an address is meant."""

ZERO_HASH = Hash32(bytes(32))
"""Stands where there is nothing to commit to yet."""

At = Literal["finalized", "safe", "head"]
"""A followed block: irreversible / certified / followed."""
AT: tuple[At, ...] = ("finalized", "safe", "head")
