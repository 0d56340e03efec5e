"""The oracle against fixed values and against libsodium."""

import json
from pathlib import Path

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from spec import oracle


def libsodium_accepts(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Ask libsodium for its verdict."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def test_a_record_decodes_to_what_was_encoded() -> None:
    """Every field of a record survives the round trip at its largest value."""
    top = 2**64 - 1
    made = oracle.Transaction(2**32 - 1, top, top, top, top, b"s" * 32, b"r" * 32, b"m" * 16)
    record = oracle.encode_transaction(made)
    assert len(record) == 192
    assert oracle.decode_transaction(record) == made


def decoded(data: bytes) -> object:
    """Return a payload's lanes, or the refusal."""
    try:
        return oracle.decode_payload(data, oracle.Limits())
    except oracle.Invalid as refusal:
        return refusal.reason


def test_payload_has_one_encoding_per_content() -> None:
    """Each flipped byte of a payload is refused or changes the content."""
    lane = [oracle.Transaction(1, n, 9, n, 1, b"a" * 32, b"b" * 32) for n in range(2)]
    data = oracle.encode_payload([lane])
    content = decoded(data)
    assert isinstance(content, list)
    for index in range(len(data)):
        mutated = bytearray(data)
        mutated[index] ^= 1
        assert decoded(bytes(mutated)) != content


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_paths_lead_to_the_root(count: int) -> None:
    """The path of each leaf gives the root of its tree, and no other leaf has that path."""
    leaves = [oracle.plain_hash(bytes([i])) for i in range(count)]
    key, absent = oracle.context_key("test"), bytes(32)
    root = oracle.merkle_root(leaves, key, absent)
    for index, leaf in enumerate(leaves):
        path = oracle.merkle_path(leaves, index, key, absent)
        assert oracle.root_of_path(leaf, index, path, key) == root
        assert oracle.root_of_path(oracle.plain_hash(leaf), index, path, key) != root


def test_signatures_of_wycheproof(shared: Path) -> None:
    """The oracle agrees with all vectors of Wycheproof and with libsodium on them."""
    vectors = json.loads((shared / "vectors" / "wycheproof_ed25519.json").read_text())
    for group in vectors["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
            if len(signature) != 64:
                assert case["result"] == "invalid"
                continue
            verdict = oracle.is_valid_signature(key, signature, message)
            assert verdict == (case["result"] == "valid")
            assert verdict == libsodium_accepts(key, signature, message)


def test_small_order_and_torsion_as_libsodium() -> None:
    """Small-order A and R, torsion added to A and S out of range get libsodium's verdict."""
    signer = SigningKey(bytes(range(32)))
    message = b"message"
    signature = signer.sign(message).signature
    key = bytes(signer.verify_key)
    low = [oracle.uint(y, 32) for y in (0, 1, oracle.ED_P - 1, oracle.ED_P, oracle.ED_P + 1)]
    tangled = []
    for y in (0, oracle.ED_P - 1):
        x = oracle.ed_x(y, 0) or 0
        torsion = (x, y, 1, x * y % oracle.ED_P)
        tangled.append(oracle.ed_encode(oracle.ed_add(oracle.ed_decode(key), torsion)))
    s = int.from_bytes(signature[32:], "little")
    cases = [(a, signature) for a in [key, *low, *tangled]]
    cases += [(key, r + signature[32:]) for r in low]
    cases += [(key, signature[:32] + oracle.uint(v, 32)) for v in (0, s, s + oracle.ED_L)]
    verdicts = [oracle.is_valid_signature(a, b, message) for a, b in cases]
    assert verdicts == [libsodium_accepts(a, b, message) for a, b in cases]
    assert verdicts.count(True) == 2
