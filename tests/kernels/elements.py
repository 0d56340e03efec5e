"""Help for tests of the lane kernels: elements and words as Python integers, and back."""

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from kernels.field51 import LIMB_BITS, LIMBS, P, limbs_of
from kernels.lanes64 import WIDTH
from kernels.layout import U64
from kernels.memory import zeros
from kernels.processor import LANES

needs_lanes = pytest.mark.skipif(
    LANES is None, reason="kernels may not use AVX2 here; libsodium's path is tested"
)

ROUNDING_MODES = {"nearest": 0, "down": 0x400, "up": 0x800, "to zero": 0xC00}
"""As `fesetround` of x86-64 knows them."""


def vectors(rows: list[list[int]]) -> U64:
    """Return aligned vectors: row k holds the k-th integer of each lane."""
    array: U64 = zeros((len(rows), WIDTH), np.uint64)
    array[:] = np.array(rows, dtype=np.uint64)
    return array


def elements(lanes: list[list[int]]) -> U64:
    """Return an element whose lane i has the five limbs `lanes[i]`."""
    return vectors([[lane[k] for lane in lanes] for k in range(LIMBS)])


def numbers(element: U64) -> list[int]:
    """Return what the lanes of an element count, not reduced."""
    return [
        sum(int(element[k, lane]) << LIMB_BITS * k for k in range(LIMBS)) for lane in range(WIDTH)
    ]


def words_of(values: list[int], count: int) -> U64:
    """Return vectors of little-endian 64-bit words of WIDTH integers."""
    return vectors([[value >> 64 * k & (2**64 - 1) for value in values] for k in range(count)])


def values_of(words: U64) -> list[int]:
    """Return the integers that vectors of little-endian words hold."""
    return [sum(int(words[k, lane]) << 64 * k for k in range(len(words))) for lane in range(WIDTH)]


def address(array: U64) -> np.uint64:
    """Return where an array lies; the caller keeps it alive."""
    return np.uint64(array.ctypes.data)


def groups(values: list[int]) -> list[list[int]]:
    """Return values in lists of one per lane, the last filled up with zeros."""
    filled = values + [0] * (-len(values) % WIDTH)
    return [filled[i : i + WIDTH] for i in range(0, len(filled), WIDTH)]


def count(limbs: list[int]) -> int:
    """Return what limbs count."""
    return sum(limb << LIMB_BITS * i for i, limb in enumerate(limbs))


def edges(top: list[int], rng: np.random.Generator) -> list[list[int]]:
    """Return 32 elements: limbs at their tops, at zero, one below, alone, and random."""
    made = [top, [0] * LIMBS, [limb - 1 for limb in top], [1, 0, 0, 0, 0]]
    made += [[limb if i == k else 0 for i, limb in enumerate(top)] for k in range(LIMBS)]
    made += [limbs_of(value) for value in (P - 1, 19, 2**255 - 1)]
    while len(made) < 32:
        made.append([int(rng.integers(0, limb, endpoint=True, dtype=np.uint64)) for limb in top])
    return made


def pairs(top: list[int], rng: np.random.Generator) -> list[tuple[Any, Any]]:
    """Return (a, b) of all lanes each, in which every edge meets every other once."""
    made = edges(top, rng)
    flat = [(a, b) for a in made for b in made]
    return [
        ([a for a, _ in flat[i : i + WIDTH]], [b for _, b in flat[i : i + WIDTH]])
        for i in range(0, len(flat), WIDTH)
    ]


def is_within(element: U64, top: list[int]) -> bool:
    """Say whether limb k of every lane is at most top[k]."""
    return bool((element <= np.array(top, np.uint64)[:, None]).all())


@contextmanager
def rounding(mode: str) -> Iterator[None]:
    """Let floating-point operations of this thread round in another way."""
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    assert library.fesetround(ROUNDING_MODES[mode]) == 0
    try:
        yield
    finally:
        assert library.fesetround(0) == 0
