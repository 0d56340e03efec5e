"""A node's cryptography: one verdict whatever the number of signatures."""

import numpy as np
import pytest
from blake3 import blake3

from consensus.core.types import PublicKey, Signature
from consensus.crypto import NodeCrypto
from kernels.signature_vectors_table import VECTORS
from runtime.keypair import KeyPair


@pytest.fixture(scope="module")
def crypto() -> NodeCrypto:
    """Return the cryptography of one key."""
    return NodeCrypto(KeyPair.of(bytes(32)))


def test_hashes_are_blake3_under_a_context(crypto: NodeCrypto) -> None:
    """The hash is derive-key mode, which is what the specification's `derive_key` is."""
    expected = blake3(b"data", derive_key_context="tos header v1").digest()
    assert crypto.hash("tos header v1", b"data") == expected


def test_own_signatures_are_valid(crypto: NodeCrypto) -> None:
    """What is signed verifies under the own key and under no other message or key."""
    key = PublicKey(KeyPair.of(bytes(32)).public_key)
    other = PublicKey(KeyPair.of(b"o" * 32).public_key)
    signature = crypto.sign(b"message")
    assert crypto.verify(key, b"message", signature)
    assert not crypto.verify(key, b"another", signature)
    assert not crypto.verify(other, b"message", signature)


def test_published_vectors_have_one_verdict(crypto: NodeCrypto) -> None:
    """Each vector is judged alike alone, and among seven good signatures over its message."""
    pairs = [KeyPair.of(bytes([n]) * 32) for n in range(1, 8)]
    for key_hex, r, s, message_hex, verdict in VECTORS:
        key, message = PublicKey(bytes.fromhex(key_hex)), bytes.fromhex(message_hex)
        signature = Signature(bytes.fromhex(r + s))
        assert crypto.verify(key, message, signature) == verdict
        keys = [PublicKey(pair.public_key) for pair in pairs]
        good = [Signature(pair.sign(message)) for pair in pairs]
        assert crypto.verify_many(keys, message, good)
        assert crypto.verify_many([*keys, key], message, [*good, signature]) == verdict


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 67])
def test_one_bad_signature_spoils_a_certificate(
    crypto: NodeCrypto, rng: np.random.Generator, count: int
) -> None:
    """All good ones pass; with a bit flipped in any one of them none do."""
    pairs = [KeyPair.of(rng.bytes(32)) for _ in range(count)]
    message = rng.bytes(112)
    keys = [PublicKey(pair.public_key) for pair in pairs]
    made = [Signature(pair.sign(message)) for pair in pairs]
    assert crypto.verify_many(keys, message, made)
    if count:
        at, byte = int(rng.integers(count)), int(rng.integers(64))
        spoiled = bytearray(made[at])
        spoiled[byte] ^= 1 << int(rng.integers(8))
        bad = [*made[:at], Signature(bytes(spoiled)), *made[at + 1 :]]
        assert not crypto.verify_many(keys, message, bad)
