"""Marks: what was marked is found while there is room, and nothing else ever is."""

import numpy as np
import pytest

from engine.verified import VerifiedMarks
from kernels import marks as kernel
from kernels.layout import U8


def some_hashes(rng: np.random.Generator, count: int) -> U8:
    """Return random hashes, (count, 32) uint8."""
    return rng.integers(0, 256, (count, 32), dtype=np.uint8)


def test_marks_are_found_and_others_are_not(rng: np.random.Generator) -> None:
    """Twice marked is marked once; a hash that differs in one bit is another hash."""
    marks = VerifiedMarks(2**16)
    hashes = some_hashes(rng, 5_000)
    assert not marks.is_verified(hashes).any()
    for _ in range(2):
        marks.mark(hashes)
        assert marks.is_verified(hashes).all()
    for bit in range(256):
        other = hashes[:10].copy()
        other[:, bit // 8] ^= np.uint8(1 << (bit % 8))
        assert not marks.is_verified(other).any()
    assert not marks.is_verified(some_hashes(rng, 5_000)).any()


@pytest.mark.parametrize("marks_max", [1, 8, 9, 1_000])
def test_the_set_is_bounded_and_keeps_the_newest(rng: np.random.Generator, marks_max: int) -> None:
    """However many are marked, at most `marks_max` (rounded up) are kept, the last ones surely."""
    marks = VerifiedMarks(marks_max)
    assert marks_max <= marks.marks_max <= max(kernel.WAYS, 2 * marks_max)
    hashes = some_hashes(rng, 4 * marks.marks_max + 3)
    for start in range(0, len(hashes), 7):
        marks.mark(hashes[start : start + 7])
        assert marks.is_verified(hashes[start : start + 7]).all()
    assert marks.is_verified(hashes[-kernel.WAYS :]).all()
    kept = int(marks.is_verified(hashes).sum())
    assert marks.marks_max // 2 <= kept <= marks.marks_max


def test_equal_tags_are_told_apart_by_all_bytes() -> None:
    """Where tags meet, the whole hash is compared."""
    tags = np.zeros((1, kernel.WAYS), np.uint64)
    kept = np.zeros((kernel.WAYS, 4), np.uint64)
    secret = np.zeros(8, np.uint64)  # the keyed hash of 0, x, 0, y is then 0 for any x and y
    hashes = np.array([[0, 1, 0, 2], [0, 3, 0, 4], [0, 5, 0, 6]], np.uint64)
    for array in (secret, hashes):
        array.flags.writeable = False
    first = hashes[:2].copy()
    first.flags.writeable = False
    kernel.put_marks(tags, kept, np.zeros(1, np.uint8), secret, first)
    assert len(set(tags[0, :2].tolist())) == 1, "the tags are equal"
    found = np.zeros(3, np.uint8)
    kernel.find_marks(tags, kept, secret, hashes, found, 0, 3)
    assert found.tolist() == [1, 1, 0]


def test_no_hashes() -> None:
    """Nothing is marked and nothing is asked for."""
    marks = VerifiedMarks(8)
    marks.mark(np.empty((0, 32), np.uint8))
    assert marks.is_verified(np.empty((0, 32), np.uint8)).shape == (0,)
