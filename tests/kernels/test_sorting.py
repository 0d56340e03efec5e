"""Words in order against NumPy's own sorts, and merged columns against a sort of both."""

import numpy as np
import pytest

from kernels import sorting
from kernels.layout import U64

EDGES = np.array([0, 1, 2**8 - 1, 2**8, 2**31, 2**32, 2**56, 2**63, 2**64 - 1], np.uint64)
COUNTS = (0, 1, 2, sorting.FEW - 1, sorting.FEW, sorting.FEW + 1, 5_000, 70_000)


def words_of(rng: np.random.Generator, count: int) -> list[U64]:
    """Return words of many shapes: random, few values, one byte that differs, in order, equal."""
    random = rng.integers(0, 2**64, count, np.uint64)
    one_byte = random & np.uint64(0xFF << int(8 * rng.integers(8)))
    ascending = np.arange(count, dtype=np.uint64) << np.uint64(20)
    few = EDGES[rng.integers(0, len(EDGES), count)]
    return [random, one_byte, few, ascending, ascending[::-1], np.full(count, 2**63, np.uint64)]


@pytest.mark.parametrize("count", COUNTS)
def test_words_come_ascending(rng: np.random.Generator, count: int) -> None:
    """Sorted words are NumPy's, rows are those of its stable sort, and what came in stays."""
    for words in words_of(rng, count):
        before = words.copy()
        assert sorting.sort(words).tolist() == np.sort(words).tolist()
        rows = sorting.argsort(words)
        assert rows.dtype == np.uint32
        assert rows.tolist() == np.argsort(words, kind="stable").tolist()
        assert words.tolist() == before.tolist()


@pytest.mark.parametrize("left", COUNTS)
def test_columns_are_merged(rng: np.random.Generator, left: int) -> None:
    """A merge is a stable sort of both columns, the left one first, values beside their keys."""
    for right in (0, 1, left, 3_000):
        for a, b in zip(words_of(rng, left), words_of(rng, right), strict=True):
            keys = np.concatenate([np.sort(a), np.sort(b)])
            values = rng.integers(0, 2**64, len(keys), np.uint64)
            order = np.argsort(keys, kind="stable")
            found = sorting.merge((keys[:left], values[:left]), (keys[left:], values[left:]))
            assert found[0].tolist() == keys[order].tolist()
            assert found[1].tolist() == values[order].tolist()
