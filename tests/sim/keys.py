"""Keys of the simulated network: signatures are keyed BLAKE2b, and a secret stays with its node.

Verification looks a signature up among those that were made, and computes it anew where it was
not: nobody can make a valid signature without the secret, which only `Signer` of that node holds.
"""

import hashlib
from collections.abc import Sequence

from blake3 import blake3
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from consensus.core.types import Hash32, PublicKey, Signature

SIGNATURE_BYTES = 64
MADE_MAX = 1 << 20
"""signatures that are remembered; more are computed anew at each verification"""


CONTEXTS_MAX = 64
_CONTEXT_KEYS: dict[str, bytes] = {}


def digest(context: str, data: bytes) -> bytes:
    """Return 32 bytes for `data` in a context of its own."""
    key = _CONTEXT_KEYS.get(context)
    if key is None:
        key = hashlib.blake2b(context.encode(), digest_size=32).digest()
        assert len(_CONTEXT_KEYS) < CONTEXTS_MAX, "contexts are few and fixed"
        _CONTEXT_KEYS[context] = key
    return hashlib.blake2b(data, key=key, digest_size=32).digest()


class Keyring:
    """All secrets of one simulated world."""

    def __init__(self, seed: int, count: int) -> None:
        """Make `count` keys that depend on `seed` alone."""
        self._secrets: dict[bytes, bytes] = {}
        self._made: dict[bytes, tuple[bytes, bytes]] = {}
        self.public_keys: list[PublicKey] = []
        for index in range(count):
            secret = digest("secret", b"%d %d" % (seed, index))
            public = digest("public", secret)
            self._secrets[public] = secret
            self.public_keys.append(PublicKey(public))

    def hash(self, context: str, data: bytes) -> bytes:
        """Return the hash of data in a context."""
        return digest(context, data)

    def sign(self, public_key: bytes, message: bytes) -> bytes:
        """Return the signature by `public_key`; only that node's own `Signer` may call this."""
        secret = self._secrets[public_key]
        signature = hashlib.blake2b(message, key=secret, digest_size=SIGNATURE_BYTES).digest()
        if len(self._made) < MADE_MAX:
            self._made[signature] = (public_key, message)
        return signature

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Say whether the holder of `public_key` signed `message`."""
        made = self._made.get(signature)
        if made is not None:
            return made == (public_key, message)
        secret = self._secrets.get(public_key)
        if secret is None:
            return False
        return (
            hashlib.blake2b(message, key=secret, digest_size=SIGNATURE_BYTES).digest() == signature
        )


class RealKeyring(Keyring):
    """The same with what a node uses: BLAKE3 and Ed25519."""

    def __init__(self, seed: int, count: int) -> None:
        """Make keys from the secrets of the simulated ones."""
        super().__init__(seed, count)
        self._signing = {}
        for secret in list(self._secrets.values()):
            key = SigningKey(secret)
            self._signing[bytes(key.verify_key)] = key
        self.public_keys = [PublicKey(key) for key in self._signing]

    def hash(self, context: str, data: bytes) -> bytes:
        """Return BLAKE3 in its derive-key mode."""
        return blake3(data, derive_key_context=context).digest()

    def sign(self, public_key: bytes, message: bytes) -> bytes:
        """Return the Ed25519 signature."""
        return self._signing[public_key].sign(message).signature

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Say whether libsodium accepts the signature."""
        try:
            VerifyKey(public_key).verify(message, signature)
        except BadSignatureError:
            return False
        return True


class Signer:
    """The cryptography of one node: all may verify, it alone signs with its key."""

    def __init__(self, keyring: Keyring, public_key: bytes) -> None:
        """Hold the key of one node."""
        self._keyring = keyring
        self.public_key = public_key

    def hash(self, context: str, data: bytes) -> Hash32:
        """Return the hash of data in a context."""
        return Hash32(self._keyring.hash(context, data))

    def is_public_key(self, key: PublicKey) -> bool:
        """Take every key: those of the fast signatures are no points."""
        return True

    def sign(self, message: bytes) -> Signature:
        """Sign with the own key."""
        return Signature(self._keyring.sign(self.public_key, message))

    def verify(self, public_key: PublicKey, message: bytes, signature: Signature) -> bool:
        """Say whether a signature is valid."""
        return self._keyring.verify(public_key, message, signature)

    def verify_many(
        self, public_keys: Sequence[PublicKey], message: bytes, signatures: Sequence[Signature]
    ) -> bool:
        """Say whether every signature over the same message is valid."""
        verify = self._keyring.verify
        return all(
            verify(key, message, made) for key, made in zip(public_keys, signatures, strict=True)
        )
