"""Unsigned arithmetic against Python's integers, compiled and portable, edges included."""

from typing import Any

import numpy as np

from kernels import integers
from kernels.jit import njit

EDGES = [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]


def words(rng: np.random.Generator) -> list[int]:
    """Return the edges and random words of every length in bits."""
    return EDGES + [int(rng.integers(0, 2**64, dtype=np.uint64)) >> shift for shift in range(64)]


@njit
def multiply_high_many(a: Any, b: Any, out: Any) -> None:
    """Write the upper products of two (n,) uint64 arrays to `out`, as compiled code does."""
    for i in range(out.shape[0]):
        out[i] = integers.multiply_high(a[i], b[i])


@njit
def bits_many(words: Any, counts: Any, zeros: Any) -> None:
    """Write bit counts and trailing zeros of (n,) uint64 to two (n,) int64 arrays."""
    for i in range(words.shape[0]):
        counts[i] = integers.bit_count(words[i])
        zeros[i] = integers.trailing_zeros(words[i])


def test_multiply_high(rng: np.random.Generator) -> None:
    """Upper halves of products equal Python's for every pair of words, on both bodies."""
    pairs = [(a, b) for a in words(rng) for b in words(rng)]
    a, b = (np.array(column, np.uint64) for column in zip(*pairs, strict=True))
    out = np.empty(len(pairs), np.uint64)
    multiply_high_many(a, b, out)
    expected = [x * y >> 64 for x, y in pairs]
    assert out.tolist() == expected
    portable = [int(integers.multiply_high_portable(x, y)) for x, y in zip(a, b, strict=True)]
    assert portable == expected


def test_bits(rng: np.random.Generator) -> None:
    """Set bits and trailing zeros equal Python's, on both bodies."""
    made = np.array(words(rng), np.uint64)
    counts, zeros = np.empty(len(made), np.int64), np.empty(len(made), np.int64)
    bits_many(made, counts, zeros)
    expected = [int(word).bit_count() for word in made]
    lowest = [(int(w) & -int(w)).bit_length() - 1 if w else 64 for w in made]
    assert counts.tolist() == [integers.bit_count_portable(word) for word in made] == expected
    assert zeros.tolist() == [integers.trailing_zeros_portable(word) for word in made] == lowest


def test_wide_sums_do_not_wrap() -> None:
    """A sum of words beyond 2^64 keeps its upper half."""
    high = low = np.uint64(0)
    for word in EDGES * 3:
        high, low = integers.add_wide(high, low, np.uint64(word))
    assert integers.wide_to_int(high, low) == 3 * sum(EDGES)


def test_exact_sums() -> None:
    """A sum of many words far above 2^64 is exact."""
    assert integers.sum_exact(np.array(EDGES * 9, np.uint64)) == 9 * sum(EDGES)
