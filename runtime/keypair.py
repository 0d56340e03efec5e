"""A signing key in memory."""

from dataclasses import dataclass

import nacl.bindings

SEED_BYTES = 32


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
