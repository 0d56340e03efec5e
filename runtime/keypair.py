"""A signing key in memory, and which 32 bytes are the key of somebody.

Spec: spec/signatures.md#keys.
"""

from dataclasses import dataclass
from functools import lru_cache

import nacl.bindings

from runtime.errors import signatures_unusable

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32
KEYS_JUDGED_MAX = 4_096
"""latest verdicts that are kept: the sets of neighbouring epochs have the same keys"""
MIXED_KEY = bytes.fromhex("63771c228bf60e6a02ad24d2c345a28d3598f640e26bede40c8b77fe4bf090a3")
"""the key of 32 bytes of 1, plus the point of order two: earlier libsodiums let it through"""


@lru_cache(KEYS_JUDGED_MAX)
def is_public_key(data: bytes) -> bool:
    """Say whether 32 bytes encode, canonically, a point other than 0 of the prime-order subgroup.

    Raises ExplainedError where this libsodium cannot tell.
    """
    assert len(data) == PUBLIC_KEY_BYTES, len(data)
    if _is_valid_point(MIXED_KEY):
        why = "libsodium takes a key of mixed order for one of prime order; install PyNaCl 1.6.2"
        raise signatures_unusable(RuntimeError(why))
    return _is_valid_point(data)


def _is_valid_point(data: bytes) -> bool:
    return bool(nacl.bindings.crypto_core_ed25519_is_valid_point(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """An Ed25519 key; the secret is kept out of every printed form."""

    public_key: bytes
    seed: bytes
    """32 bytes, the secret"""

    def __repr__(self) -> str:
        """Name the public key alone."""
        return f"KeyPair(public_key={self.public_key.hex()})"

    @classmethod
    def of(cls, seed: bytes) -> "KeyPair":
        """Return the key of a seed of 32 bytes."""
        assert len(seed) == SEED_BYTES, len(seed)
        public, _ = nacl.bindings.crypto_sign_seed_keypair(seed)
        return cls(public_key=public, seed=seed)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of a signature."""
        signed: bytes = nacl.bindings.crypto_sign(message, self.seed + self.public_key)
        return signed[:64]
