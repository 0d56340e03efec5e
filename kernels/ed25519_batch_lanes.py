"""Ed25519 verification of many signatures by one equation: the kernels of `ed25519_batch`.

`prepare_rows` reads, checks and hashes groups of WIDTH signatures, decodes R, and A by hints where
there are some (`known_keys_lanes`), and writes -A and -R as rows of tables and z h modulo L and z
as their scalars, z being the random number of the signature. Rows that are refused get scalars of
zero and so count for nothing.

`bit_sums25519` makes sums of points of that, one for each bit of the scalars. `cancels` says
whether these, times the powers of two that they count, are together the neutral point; `write_sums`
writes them as rows, of which random sums are made in the same way; and `have_order` says whether
points are of order L or neutral.

Spec: spec/signatures.md#batches
"""

from typing import Any, Final

import numpy as np

from kernels import bit_sums25519 as bit_sums
from kernels import curve25519 as curve
from kernels import encoding25519 as encoding
from kernels import field51 as field
from kernels import groups25519, known_keys_lanes, scalar25519
from kernels.bit_sums25519 import DIGIT_BITS, POINT_BYTES, SUMS_BYTES, load_point, store_completed
from kernels.curve25519 import AFFINE_ROW_BYTES, ROW_BYTES
from kernels.field51 import ELEMENT_BYTES
from kernels.groups25519 import GROUP_BYTES, GROUPS_MAX, MASK, H, R, S
from kernels.integers import leaf
from kernels.jit import njit
from kernels.known_keys_lanes import TOGETHER
from kernels.lanes64 import (
    VECTOR_BYTES,
    WIDTH,
    lanes_and,
    lanes_load,
    lanes_of,
    lanes_store,
    load_word,
    store_word,
)
from kernels.scalar25519 import SCALAR_BYTES

KEY_WINDOWS: Final = 32
"""Windows of 8 bits of a scalar modulo L."""
NONCE_WINDOWS: Final = 16
"""Windows of a random number."""
NONCE_WORDS: Final = 2
NONCE_BYTES: Final = NONCE_WORDS * VECTOR_BYTES
"""Of WIDTH random numbers."""

# A group has five elements more, to decode R beside A.
_R_ELEMENTS: Final = -(-GROUP_BYTES // 64) * 64
_GROUP_BYTES: Final = -(-(_R_ELEMENTS + 5 * ELEMENT_BYTES) // 64) * 64

# Scratch of `prepare_rows`.
_SCALAR: Final = groups25519.SHARED_BYTES
"""z as four words."""
_GROUPS: Final = -(-(_SCALAR + SCALAR_BYTES) // 64) * 64
MESSAGES: Final = _GROUPS + GROUPS_MAX * _GROUP_BYTES
"""Where the padded rows of R, A and message begin."""

PARTS: Final = (KEY_WINDOWS + NONCE_WINDOWS) // WIDTH
"""Of WIDTH windows: those of keys, then those of nonces."""
BITS: Final = DIGIT_BITS * (KEY_WINDOWS + NONCE_WINDOWS)

# Scratch of `cancels`: a point in lanes, an address for each, and a row for each window.
_POINT: Final = 0
_ADDRESSES: Final = 24 * VECTOR_BYTES
_WINDOW_ROWS: Final = -(-(_ADDRESSES + VECTOR_BYTES) // 64) * 64
CANCELS_BYTES: Final = _WINDOW_ROWS + (KEY_WINDOWS + NONCE_WINDOWS) * ROW_BYTES

_Z, _T = 2, 3
"""Elements of a point in lanes."""
_ZERO, _ONE = np.uint64(0), np.uint64(1)


def _signed_bits(number: int) -> list[int]:
    """Return digits -1, 0, 1 that count `number`, lowest first, no two neighbours other than 0."""
    digits = []
    while number:
        digit = 2 - number % 4 if number % 2 else 0
        digits.append(digit)
        number = (number - digit) // 2
    return digits


def _ladder() -> list[int]:
    """Return what to add after each doubling of -2 P to come from P to plus or minus [L]P."""
    digits, sign, steps = _signed_bits(scalar25519.L)[::-1], 1, []
    assert digits[0] == 1
    for digit in digits[1:]:
        sign = -sign
        steps.append(sign * digit)
    return steps


LADDER: Final = np.array(_ladder(), np.int64)


@leaf
def _start(
    group: Any,
    scratch: Any,
    tables: Any,
    sources: Any,
    length: Any,
    stride: Any,
    rows: Any,
    known: Any,
) -> None:
    """Read a group, ask for the hints of A and begin to decode R. known: table and secret."""
    padded = scratch + np.uint64(MESSAGES)
    groups25519.read_group(group, scratch, padded, tables, sources, length, stride, rows)
    known_keys_lanes.find(group, known[0], known[1])
    encoding.start_decode(group + np.uint64(R), group + np.uint64(_R_ELEMENTS))


@leaf
def _finish(
    group: Any, scratch: Any, numbers: Any, key_scalars: Any, total: Any, places: Any
) -> None:
    """Decode R; write the rows of A and R and their scalars; add z S to the total.

    numbers: z, NONCE_BYTES, masked here; key_scalars: z h, SCALAR_BYTES; total: SCALAR_BYTES;
    places: of the rows of A and of R.
    """
    stride = np.uint64(AFFINE_ROW_BYTES)
    x, y, is_key = known_keys_lanes.finish_key(group)
    curve.store_affine(curve.make_affine(x, y), places[0], stride)
    x, y, is_point = encoding.finish_decode(group + np.uint64(R), group + np.uint64(_R_ELEMENTS))
    curve.store_affine(curve.make_affine(x, y), places[1], stride)
    mask = lanes_and(lanes_load(group + np.uint64(MASK)), lanes_and(is_key, is_point))
    mask = lanes_and(mask, scalar25519.is_field_element(group + np.uint64(R)))
    lanes_store(group + np.uint64(MASK), mask)
    z = scratch + np.uint64(_SCALAR)
    for i in range(scalar25519.WORDS):
        word = lanes_of(_ZERO)
        if i < NONCE_WORDS:
            number = numbers + np.uint64(VECTOR_BYTES * i)
            word = lanes_and(lanes_load(number), mask)
            lanes_store(number, word)
        lanes_store(z + np.uint64(VECTOR_BYTES * i), word)
        lanes_store(key_scalars + np.uint64(VECTOR_BYTES * i), lanes_of(_ZERO))
    scalar25519.multiply_add(z, group + np.uint64(S), total, total)
    scalar25519.multiply_add(z, group + np.uint64(H), key_scalars, key_scalars)


@njit
def prepare_rows(
    tables: Any,
    scratch: Any,
    sources: Any,
    length: Any,
    stride: Any,
    numbers: Any,
    key_scalars: Any,
    total: Any,
    keys: Any,
    nonces: Any,
    known: Any,
    missed: Any,
    places: Any,
    hints: Any,
    out: Any,
    start: int,
    stop: int,
) -> int:
    """Write the rows and scalars of signatures [start, stop), and to `out` whose bytes are good.

    tables, sources, length, stride: as for `ed25519_lanes.verify_groups`; numbers: address of
    random numbers, NONCE_BYTES per group, zero in lanes without a signature; key_scalars:
    SCALAR_BYTES per group, overwritten; total: SCALAR_BYTES, zeros, becomes the sums of z S modulo
    L, one per lane; keys, nonces: rows of -A and -R, overwritten; known: table and secret of
    `known_keys`; missed, places, hints: as for `known_keys_lanes.decode_keys`; out: (n,) uint8.
    Returns how many keys had no hint.
    """
    groups, size = scratch + np.uint64(_GROUPS), np.uint64(_GROUP_BYTES)
    chunk, unknown = start, 0
    while chunk < stop:
        end = min(stop, chunk + GROUPS_MAX * WIDTH)
        count = (end - chunk + WIDTH - 1) // WIDTH
        for i in range(count):
            rows, group = (chunk + WIDTH * i, end - 1), groups + size * np.uint64(i)
            _start(group, scratch, tables, sources, length, stride, rows, known)
        unknown = known_keys_lanes.decode_keys(
            groups, size, chunk, end, known[0], missed, places, hints, unknown
        )
        for i in range(0, count, TOGETHER):
            place, some = groups + size * np.uint64(i), min(TOGETHER, count - i)
            encoding.root_power(place + np.uint64(_R_ELEMENTS), size, some)
        for i in range(count):
            group, first = groups + size * np.uint64(i), chunk + WIDTH * i
            index = np.uint64((first - start) // WIDTH)
            row = np.uint64(WIDTH * AFFINE_ROW_BYTES) * index
            _finish(
                group,
                scratch,
                numbers + np.uint64(NONCE_BYTES) * index,
                key_scalars + np.uint64(SCALAR_BYTES) * index,
                total,
                (keys + row, nonces + row),
            )
            for lane in range(min(WIDTH, end - first)):
                mask = load_word(group + np.uint64(MASK + 8 * lane))
                out[first + lane] = np.uint8(mask & _ONE)
        chunk = end
    return unknown


@leaf
def _step(x: Any, y: Any, z: Any) -> Any:
    """Return (x, y, z) of -2 P, loose."""
    point = curve.double_negated(x, y, z)
    return curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)


@leaf
def _is_neutral(x: Any, y: Any, z: Any) -> Any:
    """Return all ones in the lanes of the neutral point. x, y, z: loose."""
    x = field.canonical(field.carry(x))
    difference = field.canonical(field.carry(field.subtract(y, z)))
    return lanes_and(field.is_zero(x), field.is_zero(difference))


@leaf
def _is_all_ones(place: Any) -> Any:
    """Say whether a vector is all ones."""
    word = load_word(place)
    for lane in range(1, WIDTH):
        word &= load_word(place + np.uint64(8 * lane))
    return word == ~_ZERO


@leaf
def _join_bits(sums: Any, place: Any) -> None:
    """Write, negated, the sum of 2^b times the point of bit b, b = 0 to 7, for each lane."""
    size = np.uint64(POINT_BYTES)
    x, y, z, t = load_point(sums + size * np.uint64(DIGIT_BITS - 1))
    for k in range(1, DIGIT_BITS):
        point = curve.double_negated(x, y, z)
        x, y = curve.complete_x(point), curve.complete_y(point)
        z, t = field.carry(curve.complete_z(point)), field.carry(curve.complete_t(point))
        entry = curve.make_entry(*load_point(sums + size * np.uint64(DIGIT_BITS - 1 - k)))
        # After k doublings the sign is (-1)^k, and the last one is odd.
        point = curve.add_entry(
            x, y, z, t, curve.signed_entry(lanes_of(_ZERO - np.uint64(k & 1)), entry)
        )
        x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
        t = field.carry(curve.complete_t(point))
    store_completed(place, point)


@leaf
def _add_row(x: Any, y: Any, z: Any, t: Any, row: Any, addresses: Any) -> Any:
    """Return the point plus that of a row, in every lane, completed."""
    lanes_store(addresses, lanes_of(row))
    entry = curve.make_entry(*curve.load_entry(addresses))
    return curve.add_entry(x, y, z, t, entry)


@leaf
def _join_windows(rows: Any, addresses: Any, doublings: int) -> Any:
    """Return (x, y, z), loose, of the sum of 256^k times the points of windows k, in every lane.

    rows: of the windows of keys, then of nonces; doublings: DIGIT_BITS - 1. The compiler must not
    know, or it unrolls the loop beyond the instruction cache.
    """
    size = np.uint64(ROW_BYTES)
    x, y, z, t = field.zero(), field.one(), field.one(), field.zero()
    for k in range(KEY_WINDOWS):
        window = KEY_WINDOWS - 1 - k
        for _ in range(doublings):
            x, y, z = _step(x, y, z)
        point = curve.double_negated(x, y, z)
        x, y = curve.complete_x(point), curve.complete_y(point)
        z, t = field.carry(curve.complete_z(point)), field.carry(curve.complete_t(point))
        point = _add_row(x, y, z, t, rows + size * np.uint64(window), addresses)
        x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
        if window < NONCE_WINDOWS:
            z, t = field.carry(z), field.carry(curve.complete_t(point))
            row = rows + size * np.uint64(KEY_WINDOWS + window)
            point = _add_row(x, y, z, t, row, addresses)
            x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
    return x, y, z


@njit
def cancels(sums: Any, scratch: Any, doublings: int) -> bool:
    """Say whether the sum of 2^b times the points of bits b, of keys and nonces, is neutral.

    sums: PARTS times SUMS_BYTES; scratch: CANCELS_BYTES; doublings: 7.
    """
    addresses, point = scratch + np.uint64(_ADDRESSES), scratch + np.uint64(_POINT)
    rows = scratch + np.uint64(_WINDOW_ROWS)
    for part in range(PARTS):
        _join_bits(sums + np.uint64(SUMS_BYTES) * np.uint64(part), point)
        for lane in range(WIDTH):
            row = rows + np.uint64(ROW_BYTES) * np.uint64(part * WIDTH + lane)
            store_word(addresses + np.uint64(8 * lane), row)
        bit_sums.store_point_rows(point, addresses)
    x, y, z = _join_windows(rows, addresses, doublings)
    lanes_store(addresses, _is_neutral(x, y, z))
    return _is_all_ones(addresses)


@njit
def write_sums(sums: Any, rows: Any, scratch: Any) -> None:
    """Write the points of BITS sums of bits as affine rows; their T is lost.

    scratch: five elements.
    """
    size = np.uint64(POINT_BYTES)
    encoding.invert_together(sums, size, PARTS * DIGIT_BITS, _Z, _T, scratch)
    for k in range(PARTS * DIGIT_BITS):
        x, y, _, inverse = load_point(sums + size * np.uint64(k))
        x, y = field.carry(field.multiply(x, inverse)), field.carry(field.multiply(y, inverse))
        place = rows + np.uint64(WIDTH * AFFINE_ROW_BYTES) * np.uint64(k)
        curve.store_affine(curve.make_affine(x, y), place, np.uint64(AFFINE_ROW_BYTES))


@njit
def have_order(sums: Any, count: int, ladder: Any) -> bool:
    """Say whether `count` points in lanes, overwritten, times L are neutral. ladder: LADDER."""
    for k in range(count):
        place = sums + np.uint64(POINT_BYTES) * np.uint64(k)
        x, y, z, t = load_point(place)
        entry = curve.make_entry(x, y, z, t)
        for i in range(ladder.shape[0]):
            point = curve.double_negated(x, y, z)
            x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
            digit = ladder[i]
            if digit:
                negative = lanes_of(_ZERO - np.uint64(digit < 0))
                t = field.carry(curve.complete_t(point))
                signed = curve.signed_entry(negative, entry)
                point = curve.add_entry(x, y, field.carry(z), t, signed)
                x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
        lanes_store(place, _is_neutral(x, y, z))
        if not _is_all_ones(place):
            return False
    return True
