"""Keys of somebody: libsodium and the specification agree on which bytes are one."""

import json
from collections import Counter
from pathlib import Path

import pytest

from runtime.errors import ExplainedError
from runtime.keypair import MIXED_KEY, KeyPair, is_public_key
from spec import oracle

CASES = json.loads(Path(__file__).parents[1].joinpath("vectors", "keys.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_keys_have_the_published_verdict(case: dict[str, object]) -> None:
    """Good keys pass; small and mixed orders, odd encodings and what is no point do not."""
    assert is_public_key(bytes.fromhex(str(case["key"]))) is case["valid"]


def test_each_way_of_being_no_key_is_published() -> None:
    """All eight points of small order, all seven mixtures with one, and the good ones."""
    kinds = Counter(str(case["name"]).rstrip("0123456789 ") for case in CASES)
    assert kinds["prime order"] == 4
    assert kinds["order"] == 8
    assert kinds["prime order and order"] == 7
    assert [case["valid"] for case in CASES].count(True) == 4


def test_made_keys_are_keys() -> None:
    """Whatever the seed, its key is one."""
    for n in range(64):
        assert is_public_key(KeyPair.of(bytes([n]) * 32).public_key)


def test_a_library_that_cannot_tell_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mixed key is refused by the specification; a libsodium that takes it is told of."""
    assert not oracle.is_public_key(MIXED_KEY)
    monkeypatch.setattr("nacl.bindings.crypto_core_ed25519_is_valid_point", lambda _: True)
    is_public_key.cache_clear()
    with pytest.raises(ExplainedError, match="mixed order"):
        is_public_key(bytes(32))
