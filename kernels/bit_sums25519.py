"""Sums of many points, one for each bit of their scalars.

Of points P_i with scalars k_i, the *sum of bit b* is the sum of the P_i whose k_i has bit b set. A
sum of multiples is made of them, since sum k_i P_i = sum over b of 2^b * (sum of bit b); and where
scalars are secret and random, each of them is a random subset of the points.

Scalars are cut into windows of 8 bits. In each window, points with the same digit are linked into a
chain and added up: a *bucket* for each of 256 digits. WIDTH chains are added side by side, long
ones first, so that lanes have about the same to do; a chain that is over goes on with the neutral
point. Then WIDTH windows lie side by side, and their buckets are folded in half eight times: what
the upper half sums up to is the sum of the highest bit; added to the lower half, point by point, it
leaves buckets for the other bits.

Every pair of points may be added, equal ones and those of small order, too. Times depend on the
scalars, which nobody may want to hide for longer than a call.
"""

from typing import Any, Final

import numpy as np

from kernels import curve25519 as curve
from kernels import field51 as field
from kernels.curve25519 import AFFINE_ROW_BYTES, ROW_BYTES
from kernels.field51 import ELEMENT_BYTES
from kernels.integers import leaf
from kernels.jit import njit
from kernels.lanes64 import (
    VECTOR_BYTES,
    WIDTH,
    lanes_add,
    lanes_load,
    lanes_of,
    lanes_store,
    store_rows,
    store_word,
)

DIGIT_BITS: Final = 8
DIGITS: Final = 2**DIGIT_BITS
POINT_BYTES: Final = 4 * ELEMENT_BYTES
"""Of a point in lanes: X, Y, Z, T."""
SUMS_BYTES: Final = DIGIT_BITS * POINT_BYTES
"""Of what WIDTH windows come to: the points of bits 0 to 7, lane i of window i."""
LENGTHS: Final = 1_024
"""Chains are ordered by length; those of more points than this count as equal."""

_BUCKETS_BYTES: Final = DIGITS * ROW_BYTES
"""Of one window."""
_FOLDED_BYTES: Final = DIGITS // 2 * POINT_BYTES

# Scratch.
_ROWS: Final = 0
_STARTS: Final = VECTOR_BYTES
"""Where the buckets of each lane's window begin."""
_STAGE: Final = 2 * VECTOR_BYTES
_FOLDED: Final = _STAGE + 24 * VECTOR_BYTES
_BUCKETS: Final = -(-(_FOLDED + _FOLDED_BYTES) // 64) * 64
SCRATCH_BYTES: Final = _BUCKETS + WIDTH * _BUCKETS_BYTES

_ELEMENT = np.uint64(ELEMENT_BYTES)
_LINE = np.uint64(64)


@leaf
def load_point(place: Any) -> Any:
    """Return (X, Y, Z, T) of a point in lanes, reduced."""
    return (
        field.load(place),
        field.load(place + _ELEMENT),
        field.load(place + _ELEMENT + _ELEMENT),
        field.load(place + _ELEMENT + _ELEMENT + _ELEMENT),
    )


@leaf
def store_completed(place: Any, point: Any) -> None:
    """Write a completed point as X, Y, Z, T, reduced."""
    z, t = field.carry(curve.complete_z(point)), field.carry(curve.complete_t(point))
    store_point(place, curve.complete_x(point), curve.complete_y(point), z, t)


@leaf
def store_point(place: Any, x: Any, y: Any, z: Any, t: Any) -> None:
    """Write X, Y, Z, T, reduced. x, y: loose; z, t: reduced."""
    field.store(place, field.carry(x))
    field.store(place + _ELEMENT, field.carry(y))
    field.store(place + _ELEMENT + _ELEMENT, z)
    field.store(place + _ELEMENT + _ELEMENT + _ELEMENT, t)


@leaf
def store_point_rows(place: Any, rows: Any) -> None:
    """Write a point in lanes as rows of ROW_BYTES, whose WIDTH addresses stand at `rows`.

    place: 24 vectors, of which the point is the first 20.
    """
    store_rows(place, rows, np.uint64(0))
    store_rows(place + np.uint64(8 * VECTOR_BYTES), rows, _LINE)
    store_rows(place + np.uint64(16 * VECTOR_BYTES), rows, _LINE + _LINE)


@leaf
def _link(
    digits: Any, stride: int, first: int, count: int, links: Any, heads: Any, sizes: Any
) -> None:
    """Link rows whose digits are the same, but those of digit 0, which count for nothing.

    digits: bytes; row i has its digit at first + i // WIDTH * stride + i % WIDTH * 8. heads, sizes:
    (DIGITS,), the first row of each chain and how many it has; links: the next row.
    """
    for digit in range(DIGITS):
        heads[digit] = count
        sizes[digit] = 0
    for group in range(count // WIDTH):
        for lane in range(WIDTH):
            digit = digits[first + group * stride + 8 * lane]
            if digit:
                row = group * WIDTH + lane
                links[row] = heads[digit]
                heads[digit] = row
                sizes[digit] += 1


@leaf
def _order(sizes: Any, places: Any, order: Any) -> None:
    """Write the digits to `order`, (DIGITS,), those of long chains first.

    places: (LENGTHS + 1,), overwritten.
    """
    for length in range(LENGTHS + 1):
        places[length] = 0
    for digit in range(DIGITS):
        places[min(sizes[digit], LENGTHS)] += 1
    place = 0
    for k in range(LENGTHS + 1):
        length = LENGTHS - k
        number = places[length]
        places[length] = place
        place += number
    for digit in range(DIGITS):
        length = min(sizes[digit], LENGTHS)
        order[places[length]] = digit
        places[length] += 1


@leaf
def _add_chains(points: Any, links: Any, at: Any, steps: int, scratch: Any) -> None:
    """Write the sums of WIDTH chains to the stage. at: (WIDTH,), the first rows, overwritten."""
    rows, stage = scratch + np.uint64(_ROWS), scratch + np.uint64(_STAGE)
    x, y, z, t = field.zero(), field.one(), field.one(), field.zero()
    for _ in range(steps):
        for lane in range(WIDTH):
            row = at[lane]
            store_word(
                rows + np.uint64(8 * lane), points + np.uint64(AFFINE_ROW_BYTES) * np.uint64(row)
            )
            at[lane] = links[row]
        point = curve.add_affine(x, y, z, t, curve.load_affine(rows))
        x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
        t = field.carry(curve.complete_t(point))
    store_point(stage, x, y, field.carry(z), t)


@leaf
def _fill_buckets(
    points: Any, links: Any, heads: Any, sizes: Any, order: Any, at: Any, buckets: Any, scratch: Any
) -> None:
    """Add the chains of a window and write each sum to the row of its digit."""
    rows = scratch + np.uint64(_ROWS)
    for first in range(0, DIGITS, WIDTH):
        steps = 0
        for lane in range(WIDTH):
            digit = order[first + lane]
            at[lane] = heads[digit]
            steps = max(steps, sizes[digit])
        _add_chains(points, links, at, steps, scratch)
        for lane in range(WIDTH):
            row = buckets + np.uint64(ROW_BYTES) * np.uint64(order[first + lane])
            store_word(rows + np.uint64(8 * lane), row)
        store_point_rows(scratch + np.uint64(_STAGE), rows)


@leaf
def _load_bucket(scratch: Any, digit: Any) -> Any:
    """Return the buckets of a digit, lane i that of window i."""
    rows = scratch + np.uint64(_ROWS)
    starts = lanes_load(scratch + np.uint64(_STARTS))
    lanes_store(rows, lanes_add(starts, lanes_of(np.uint64(ROW_BYTES) * np.uint64(digit))))
    return curve.load_entry(rows)


@leaf
def _fold_one(x: Any, y: Any, z: Any, t: Any, target: Any, low: Any, high: Any) -> Any:
    """Return a point of the upper half added to (x, y, z, t); write it added to `low`."""
    entry = curve.make_entry(*high)
    store_completed(target, curve.add_entry(*low, entry))
    point = curve.add_entry(x, y, z, t, entry)
    x, y = curve.complete_x(point), curve.complete_y(point)
    return x, y, field.carry(curve.complete_z(point)), field.carry(curve.complete_t(point))


@leaf
def _fold(scratch: Any, sums: Any) -> None:
    """Write the sums of 8 bits of WIDTH windows, whose buckets are filled."""
    folded, size = scratch + np.uint64(_FOLDED), np.uint64(POINT_BYTES)
    half = DIGITS // 2
    x, y, z, t = field.zero(), field.one(), field.one(), field.zero()
    for digit in range(half):
        low, high = _load_bucket(scratch, digit), _load_bucket(scratch, digit + half)
        x, y, z, t = _fold_one(x, y, z, t, folded + size * np.uint64(digit), low, high)
    store_point(sums + size * np.uint64(DIGIT_BITS - 1), x, y, z, t)
    for k in range(1, DIGIT_BITS):
        half >>= 1
        x, y, z, t = field.zero(), field.one(), field.one(), field.zero()
        for digit in range(half):
            place = folded + size * np.uint64(digit)
            high = load_point(folded + size * np.uint64(digit + half))
            x, y, z, t = _fold_one(x, y, z, t, place, load_point(place), high)
        store_point(sums + size * np.uint64(DIGIT_BITS - 1 - k), x, y, z, t)


@njit
def sum_bits(
    points: Any,
    count: int,
    digits: Any,
    words: int,
    lists: Any,
    scratch: Any,
    sums: Any,
) -> None:
    """Write the sums of 64 * words bits of the scalars of `count` points.

    points: address of count affine rows, and one more, of the neutral point; count: a multiple of
    WIDTH; digits: (count * 8 * words,) uint8, the scalars as vectors of `words` words, WIDTH
    scalars side by side; lists: int32 arrays, `links` of count + 1 or more, then of DIGITS, DIGITS,
    DIGITS, LENGTHS + 1 and WIDTH; scratch: SCRATCH_BYTES; sums: address of SUMS_BYTES for each
    WIDTH windows of 8 bits. Addresses are uint64 and multiples of 64.
    """
    links, heads, sizes, order, places, at = lists
    links[count] = count
    for lane in range(WIDTH):
        buckets = scratch + np.uint64(_BUCKETS + _BUCKETS_BYTES * lane)
        store_word(scratch + np.uint64(_STARTS + 8 * lane), buckets)
    for part in range(words * 8 // WIDTH):
        for lane in range(WIDTH):
            window = part * WIDTH + lane
            first = window // 8 * VECTOR_BYTES + window % 8
            _link(digits, words * VECTOR_BYTES, first, count, links, heads, sizes)
            _order(sizes, places, order)
            buckets = scratch + np.uint64(_BUCKETS + _BUCKETS_BYTES * lane)
            _fill_buckets(points, links, heads, sizes, order, at, buckets, scratch)
        _fold(scratch, sums + np.uint64(SUMS_BYTES) * np.uint64(part))
