"""Claims about the batch signer: its keys and signatures are those of PyNaCl."""

import nacl.bindings
import numpy as np
import pytest

from kernels import insecure_signer
from kernels.insecure_signer import insecure_public_keys, insecure_sign
from kernels.processor import LANES


@pytest.mark.parametrize("has_lanes", [True, False])
@pytest.mark.parametrize(
    ("count", "length"), [(0, 9), (1, 0), (7, 160), (8, 31), (9, 32), (130, 33), (300, 200)]
)
def test_it_signs_as_pynacl_does(
    count: int, length: int, has_lanes: bool, monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Keys and signatures equal PyNaCl's byte for byte, with lanes and without."""
    if has_lanes and LANES is None:
        pytest.skip("kernels may not use AVX2 here")
    monkeypatch.setattr(insecure_signer, "LANES", LANES if has_lanes else None)
    seeds = rng.integers(0, 256, (count, 32), np.uint8)
    messages = rng.integers(0, 256, (count, length), np.uint8)
    keys = insecure_public_keys(seeds)
    signed = insecure_sign(seeds, keys, messages)
    for row in range(count):
        key, secret = nacl.bindings.crypto_sign_seed_keypair(seeds[row].tobytes())
        assert keys[row].tobytes() == key
        expected = nacl.bindings.crypto_sign(messages[row].tobytes(), secret)[:64]
        assert signed[row].tobytes() == expected


def test_wrong_shapes_are_refused() -> None:
    """Rows that do not fit each other are named."""
    seeds = np.zeros((2, 32), np.uint8)
    with pytest.raises(ValueError, match="seeds must be"):
        insecure_public_keys(seeds[:, :31])
    with pytest.raises(ValueError, match="public_keys must be"):
        insecure_sign(seeds, seeds[:1], seeds)
    with pytest.raises(ValueError, match="messages must be"):
        insecure_sign(seeds, seeds, seeds[:1])
