"""What the core is given of cryptography: BLAKE3, and Ed25519 with one verdict on every path.

Votes come one by one and go to libsodium; the signatures of a certificate are over one message and
are judged side by side by the kernels, on the path that this CPU has. Before either is used it
judges the published vectors: a process that would judge otherwise than the others does not start.
Spec: spec/signatures.md#verdict.
"""

from collections.abc import Sequence

import nacl.bindings
import numpy as np
from blake3 import blake3
from nacl.exceptions import BadSignatureError

from consensus.core.types import Hash32, PublicKey, Signature
from kernels import signatures
from kernels.layout import U8
from kernels.pool import Pool
from kernels.signature_vectors_table import VECTORS
from runtime.keypair import KeyPair, is_public_key

BATCH_MIN = 2
"""signatures over one message from which on the kernels are faster"""


class NodeCrypto:
    """Cryptography of a node; `pair` None: it never signs."""

    def __init__(self, pair: KeyPair | None) -> None:
        """Check both paths. Raises signatures.PathUnavailable, signatures.VerdictDiffers."""
        self._pair = pair
        path = signatures.choose_path()
        signatures.start_path(path)
        check_single()
        self._verifier = signatures.Verifier(path, Pool(1))

    def hash(self, context: str, data: bytes) -> Hash32:
        """Return BLAKE3 in derive-key mode."""
        return Hash32(blake3(data, derive_key_context=context).digest())

    def is_public_key(self, key: PublicKey) -> bool:
        """Say whether somebody's key can be these bytes."""
        return is_public_key(key)

    def sign(self, message: bytes) -> Signature:
        """Sign with the own key."""
        assert self._pair is not None, "who has no key is never asked to sign"
        return Signature(self._pair.sign(message))

    def verify(self, public_key: PublicKey, message: bytes, signature: Signature) -> bool:
        """Say whether a signature is valid."""
        return is_valid(public_key, message, signature)

    def verify_many(
        self, public_keys: Sequence[PublicKey], message: bytes, signatures_: Sequence[Signature]
    ) -> bool:
        """Say whether every signature is valid, all over the same message."""
        count = len(public_keys)
        assert count == len(signatures_), "one signature per key"
        if count < BATCH_MIN:
            pairs = zip(public_keys, signatures_, strict=True)
            return all(is_valid(key, message, signature) for key, signature in pairs)
        verdicts = self._verifier.verify(
            _rows(b"".join(public_keys), count),
            _rows(b"".join(signatures_), count),
            _rows(message * count, count),
        )
        return bool(verdicts.all())


def is_valid(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ask libsodium about one signature of 64 bytes by a key of 32."""
    try:
        nacl.bindings.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def check_single() -> None:
    """Let the path of single signatures judge the vectors; raises signatures.VerdictDiffers."""
    for key, r, s, message, verdict in VECTORS:
        given = (bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(r + s))
        if is_valid(*given) != verdict:
            raise signatures.VerdictDiffers(
                f"libsodium judges the signature {r}{s} by {key} of {message} otherwise than the"
                " specification: it must not be used; install the versions of requirements.lock"
            )


def _rows(data: bytes, count: int) -> U8:
    return np.frombuffer(data, np.uint8).reshape(count, -1)
