"""Make and sign transfers: what a wallet does, on the 192 bytes of spec/transaction.md."""

from dataclasses import dataclass

from blake3 import blake3

from engine.constants import MEMO_BYTES, SIGNED_BYTES, TRANSACTION_VERSION, TRANSFER
from runtime.keypair import KeyPair


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
