"""Hashes of recent blocks: each is found where it stands, also among such as begin alike."""

import numpy as np
import pytest

from engine import recent_blocks
from engine.recent_blocks import Inclusion, RecentBlocks


def test_every_hash_is_found_in_the_newest_block_that_has_it(rng: np.random.Generator) -> None:
    """Of blocks of 0 to 300 hashes, many with the same first word; strangers are not found."""
    recent = RecentBlocks()
    expected: dict[bytes, Inclusion] = {}
    shared = rng.integers(0, 256, 32, np.uint8)
    for height, count in enumerate((0, 1, 300, 2, 50)):
        hashes = rng.integers(0, 256, (count, 32), np.uint8)
        hashes[: count // 2, :8] = 7
        if height in (2, 4):
            hashes[33] = shared
        name = bytes([height]) * 32
        recent.add(name, height, hashes)
        for position, row in enumerate(hashes):
            expected[row.tobytes()] = Inclusion(name, height, position)
    assert {key: recent.find(key) for key in expected} == expected
    assert recent.find(b"\x07" * 32) is None
    assert recent.find(rng.bytes(32)) is None
    recent.remove(bytes([4]) * 32)
    assert recent.find(shared.tobytes()) == Inclusion(bytes([2]) * 32, 2, 33)
    assert recent.heights() == {0, 1, 2, 3}


def test_the_lowest_blocks_are_forgotten(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds in blocks and in transactions; the newest block stays whatever its size."""
    monkeypatch.setattr(recent_blocks, "BLOCKS_MAX", 3)
    monkeypatch.setattr(recent_blocks, "TRANSACTIONS_MAX", 20)
    recent = RecentBlocks()
    for height in range(1, 6):
        recent.add(bytes([height]), height, rng.integers(0, 256, (5, 32), np.uint8))
    assert recent.heights() == {3, 4, 5}
    recent.add(b"\6", 6, rng.integers(0, 256, (12, 32), np.uint8))
    assert recent.heights() == {5, 6}
    recent.add(b"\7", 7, rng.integers(0, 256, (21, 32), np.uint8))
    assert recent.heights() == {7}
