"""Claims about sums of points by the bits of their scalars: they are the oracle's sums."""

import random
from typing import Any

import numpy as np
import pytest

import spec.oracle
from kernels import bit_sums25519 as bit_sums
from kernels.curve25519 import AFFINE_ROW_BYTES
from kernels.ed25519 import affine_row
from kernels.field51 import LIMBS
from kernels.lanes64 import WIDTH
from kernels.memory import zeros
from tests.kernels.elements import address, needs_lanes, numbers
from tests.kernels.forgeries import torsion_points

pytestmark = needs_lanes
oracle: Any = spec.oracle


def affine(point: Any) -> tuple[int, int]:
    """Return x, y of the oracle's point."""
    inverse = pow(point[2], -1, oracle.ED_P)
    return point[0] * inverse % oracle.ED_P, point[1] * inverse % oracle.ED_P


def sums_of(points: list[Any], scalars: list[int], words: int) -> list[tuple[int, int]]:
    """Return the kernel's sum of each of 64 * words bits; the points fill whole groups."""
    count, windows = len(points), 8 * words
    rows = zeros((count + 1, AFFINE_ROW_BYTES // 8), np.uint64)
    rows[:] = [affine_row(affine(point)) for point in [*points, (0, 1, 1, 0)]]
    digits = zeros((count // WIDTH, words, WIDTH), np.uint64)
    for i, scalar in enumerate(scalars):
        parts = [scalar >> 64 * word & 2**64 - 1 for word in range(words)]
        digits[i // WIDTH, :, i % WIDTH] = parts
    lengths = (count + 1, *[bit_sums.DIGITS] * 3, bit_sums.LENGTHS + 1, WIDTH)
    lists = tuple(np.full(length, -1, np.int32) for length in lengths)
    scratch = zeros(bit_sums.SCRATCH_BYTES, np.uint8)
    sums = zeros((windows // WIDTH, bit_sums.DIGIT_BITS, 4, LIMBS, WIDTH), np.uint64)
    flat = digits.reshape(-1).view(np.uint8)
    bit_sums.sum_bits(address(rows), count, flat, words, lists, address(scratch), address(sums))
    found = []
    for bit in range(64 * words):
        window, place = divmod(bit, bit_sums.DIGIT_BITS)
        part, lane = divmod(window, WIDTH)
        x, y, z, t = (numbers(item)[lane] % oracle.ED_P for item in sums[part, place])
        assert x * y % oracle.ED_P == z * t % oracle.ED_P
        found.append(affine((x, y, z, t)))
    return found


def expected(points: list[Any], scalars: list[int], bits: int) -> list[tuple[int, int]]:
    """Return the oracle's sum of each bit."""
    answer = []
    for bit in range(bits):
        chosen = [point for point, k in zip(points, scalars, strict=True) if k >> bit & 1]
        answer.append(affine(oracle.sum_points(chosen)))
    return answer


@pytest.mark.parametrize("words", [2, 4])
def test_sums_are_those_of_the_oracle(words: int, seed: int) -> None:
    """Random points, with torsion and the same twice, and random scalars, some of them 0 or 1s."""
    rng = random.Random(seed)
    torsion = torsion_points()
    points = []
    for i in range(12 * WIDTH):
        point = oracle.ed_multiply(rng.randrange(oracle.ED_L), oracle.ED_BASE)
        points.append(oracle.ed_add(point, torsion[i % 8]) if i % 3 else point)
    points[5], points[6], points[7] = points[4], torsion[0], (0, 1, 1, 0)
    scalars = [rng.randrange(2 ** (64 * words)) for _ in points]
    scalars[:4] = [0, 2 ** (64 * words) - 1, 1, 2 ** (64 * words - 1)]
    scalars[8 : 8 + WIDTH] = [0] * WIDTH
    assert sums_of(points, scalars, words) == expected(points, scalars, 64 * words)


def test_all_points_in_one_chain() -> None:
    """Chains of every length, one of more points than lengths are told apart, and empty ones."""
    points = [oracle.ed_multiply(k + 1, oracle.ED_BASE) for k in range(2 * WIDTH)]
    for scalars in ([0x80] * len(points), [0] * len(points), [255, *[3] * (len(points) - 1)]):
        assert sums_of(points, scalars, 2) == expected(points, scalars, 128)
    many = (bit_sums.LENGTHS + 2 * WIDTH) // WIDTH * WIDTH
    some = [points[i % len(points)] for i in range(many)]
    scalars = [7] * (many - 3) + [1, 2, 4]
    assert sums_of(some, scalars, 2)[:8] == expected(some, scalars, 8)


def test_two_chains_beyond_the_lengths_that_are_told_apart() -> None:
    """Of chains that count as equally long, the longest says how many additions are made."""
    points = [oracle.ed_multiply(k + 1, oracle.ED_BASE) for k in range(WIDTH)]
    short, long = bit_sums.LENGTHS + WIDTH, bit_sums.LENGTHS + 3 * WIDTH
    scalars = [1] * short + [2] * long
    some = [points[i % WIDTH] for i in range(short + long)]
    assert sums_of(some, scalars, 2)[:2] == expected(some, scalars, 2)
