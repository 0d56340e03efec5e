"""Make and sign transfers: what a wallet does, on the 192 bytes of spec/transaction.md."""

from dataclasses import dataclass

import nacl.bindings
from blake3 import blake3

from engine.constants import MEMO_BYTES, SIGNED_BYTES, TRANSACTION_VERSION, TRANSFER

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A transfer that is not signed yet; amounts in base units."""

    chain_id: int
    nonce: int
    valid_until: int
    """last height at which it may be included"""
    amount: int
    fee: int
    recipient: bytes
    memo: bytes = bytes(MEMO_BYTES)

    def signed_by(self, pair: KeyPair, domain: bytes) -> bytes:
        """Return the record of 192 bytes; domain: of the chain (`genesis.transaction_domain`)."""
        numbers = (self.nonce, self.valid_until, self.amount, self.fee, 0)
        assert all(0 <= number < 2**64 for number in numbers), numbers
        part = bytes([TRANSACTION_VERSION, TRANSFER, 0, 0]) + self.chain_id.to_bytes(4, "little")
        part += b"".join(number.to_bytes(8, "little") for number in numbers)
        part += self.memo + pair.public_key + self.recipient
        assert len(part) == SIGNED_BYTES, len(part)
        return part + pair.sign(domain + part)


def transaction_hash(record: bytes) -> bytes:
    """Return the hash that names a signed record."""
    return blake3(record).digest()
