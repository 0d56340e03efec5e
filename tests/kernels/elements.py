"""Help for tests of the lane kernels: elements and words as Python integers, and back."""

import numpy as np
import pytest

from kernels.field51 import LIMB_BITS, LIMBS
from kernels.jit import has_ifma
from kernels.lanes64 import WIDTH
from kernels.layout import U64
from kernels.memory import zeros

needs_ifma = pytest.mark.skipif(
    not has_ifma(), reason="kernels may not use AVX-512 IFMA here; libsodium's path is tested"
)


def vectors(rows: list[list[int]]) -> U64:
    """Return aligned vectors: row k holds the k-th integer of each of eight lanes."""
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
    """Return vectors of little-endian 64-bit words of eight integers."""
    return vectors([[value >> 64 * k & (2**64 - 1) for value in values] for k in range(count)])


def values_of(words: U64) -> list[int]:
    """Return the integers that vectors of little-endian words hold."""
    return [sum(int(words[k, lane]) << 64 * k for k in range(len(words))) for lane in range(WIDTH)]


def address(array: U64) -> np.uint64:
    """Return where an array lies; the caller keeps it alive."""
    return np.uint64(array.ctypes.data)
