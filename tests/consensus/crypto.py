"""The real cryptography of a node, as the core takes it: BLAKE3 and libsodium's Ed25519."""

from collections.abc import Sequence

from blake3 import blake3
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from consensus.core.types import Hash32, PublicKey, Signature
from runtime.keypair import is_public_key


class RealCrypto:
    """BLAKE3 in derive-key mode, Ed25519 of one signing key."""

    def __init__(self, signing_key: SigningKey) -> None:
        """Sign with this key."""
        self._signing_key = signing_key

    def hash(self, context: str, data: bytes) -> Hash32:
        """Hash under a context."""
        return Hash32(blake3(data, derive_key_context=context).digest())

    def is_public_key(self, key: PublicKey) -> bool:
        """Ask libsodium."""
        return is_public_key(key)

    def sign(self, message: bytes) -> Signature:
        """Sign a message."""
        return Signature(self._signing_key.sign(message).signature)

    def verify(self, public_key: PublicKey, message: bytes, signature: Signature) -> bool:
        """Ask libsodium."""
        try:
            VerifyKey(public_key).verify(message, signature)
        except BadSignatureError:
            return False
        return True

    def verify_many(
        self, public_keys: Sequence[PublicKey], message: bytes, signatures: Sequence[Signature]
    ) -> bool:
        """Ask libsodium about each."""
        pairs = zip(public_keys, signatures, strict=True)
        return all(self.verify(key, message, signature) for key, signature in pairs)
