"""Ed25519 verification of groups of WIDTH signatures, side by side.

A call goes through its rows in chunks of GROUPS_MAX groups. Per chunk: each group's bytes are read
and checked, its messages hashed; all public keys are decoded together; each group computes
[S]B - [h]A; all Z are inverted together; each group's point is encoded and compared with R.

[S]B + [h](-A): 64 windows of 4 bits of h from the highest, each one addition of a multiple of -A
out of a table of nine that the group makes, then four doublings; at every second window one
addition of a multiple of B out of a fixed table of 129, by 8 bits of S. Digits are signed, so that
a table holds only half of the multiples. Digit 0 is a row of its own, the neutral point: there are
no branches on data.

What does not fill a group repeats its last row. Rows that are refused early are computed like
the others, with the neutral point for a key that is none and 0 for an S that is too large: the
mask decides at the end. So everything computed is a point of the curve, whose Z is never 0; one Z
that were would spoil the shared inversion for its lane in the whole chunk.

Read `ed25519` for arrays, tables and scratch. Spec: spec/signatures.md#verdict
"""

from typing import Any, Final

import numpy as np

from kernels import curve25519 as curve
from kernels import encoding25519 as encoding
from kernels import field51 as field
from kernels import groups25519, scalar25519
from kernels.curve25519 import AFFINE_ROW_BYTES, ROW_BYTES
from kernels.encoding25519 import element
from kernels.field51 import ELEMENT_BYTES
from kernels.groups25519 import (
    CONSTANTS_BYTES,
    GROUP_BYTES,
    GROUPS_MAX,
    MASK,
    ROWS,
    WORK,
    A,
    H,
    R,
    S,
)
from kernels.integers import leaf
from kernels.jit import njit
from kernels.lanes64 import (
    LINE_BYTES,
    VECTOR_BYTES,
    WIDTH,
    lanes_add,
    lanes_and,
    lanes_is_below,
    lanes_load,
    lanes_multiply,
    lanes_of,
    lanes_shift_right,
    lanes_store,
    lanes_sub,
    lanes_xor,
    load_word,
    store_word,
)

KEY_ENTRIES: Final = 9
"""Multiples 0 to 8 of a public key."""
BASE_ENTRIES: Final = 129
"""Multiples 0 to 128 of the base point."""
WINDOWS: Final = 64
_TOGETHER: Final = 4
"""Groups whose square roots are taken side by side: their elements stay in the nearest cache."""

_POINT_X, _POINT_Y, _POINT_Z = 5, 6, 7
"""Elements of a group, behind those of `encoding25519`."""

# A call's scratch, behind what groups share.
_STARTS: Final = groups25519.SHARED_BYTES
"""The addresses of the tables of keys, one per lane."""
_INVERSION: Final = _STARTS + VECTOR_BYTES
_TABLE: Final = -(-(_INVERSION + 5 * ELEMENT_BYTES) // LINE_BYTES) * LINE_BYTES
_TABLE_BYTES: Final = KEY_ENTRIES * ROW_BYTES
_GROUPS: Final = _TABLE + WIDTH * _TABLE_BYTES
MESSAGES: Final = _GROUPS + GROUPS_MAX * GROUP_BYTES
"""Where padded rows of R, A, message begin, one per lane; what follows messages stands there."""

TABLES_BYTES: Final = CONSTANTS_BYTES + BASE_ENTRIES * AFFINE_ROW_BYTES
"""The round constants of SHA-512, then the multiples of B."""

_LAST = np.uint64(WINDOWS - 1)
_ZERO, _ONE = np.uint64(0), np.uint64(1)


@njit
def _prepare(
    group: Any, scratch: Any, tables: Any, sources: Any, length: Any, stride: Any, rows: Any
) -> None:
    """Read, check and hash a group, cut S and h into windows, and begin to decode A."""
    padded = scratch + np.uint64(MESSAGES)
    groups25519.read_group(group, scratch, padded, tables, sources, length, stride, rows)
    scalar25519.offset_by_4(group + np.uint64(H), group + np.uint64(H))
    scalar25519.offset_by_8(group + np.uint64(S), group + np.uint64(S))
    encoding.start_decode(group + np.uint64(A), group)


@leaf
def _make_table(table: Any, x: Any, y: Any) -> None:
    """Write multiples 0 to 8 of the points (x, y), short, for each lane."""
    stride = np.uint64(_TABLE_BYTES)
    one, zero = field.one(), field.zero()
    curve.store_entry(curve.make_entry(zero, one, one, zero), table, stride)
    t = field.carry(field.multiply(x, y))
    first = curve.make_entry(x, y, one, t)
    curve.store_entry(first, table + np.uint64(ROW_BYTES), stride)
    z = one
    for k in range(2, KEY_ENTRIES):
        point = curve.add_affine(x, y, z, t, first)
        x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
        t = field.carry(curve.complete_t(point))
        entry = curve.make_entry(x, y, z, t)
        curve.store_entry(entry, table + np.uint64(ROW_BYTES * k), stride)


@leaf
def digit_rows(scalar: Any, window: Any, bits: Any, starts: Any, row_bytes: Any, rows: Any) -> Any:
    """Write the addresses of a window's rows to `rows`; return the mask of negative digits.

    scalar: where the windows stand; the last window of 256 bits has no offset, and its digit is
    small: the others hold digit + 2^(bits - 1).
    """
    bit = window * bits
    word = lanes_load(scalar + (bit >> np.uint64(6)) * np.uint64(VECTOR_BYTES))
    held = lanes_shift_right(word, bit & np.uint64(63))
    held = lanes_and(held, lanes_of((_ONE << bits) - _ONE))
    half = lanes_of((_ONE << (bits - _ONE)) if bit + bits < np.uint64(256) else _ZERO)
    negative = lanes_is_below(held, half)
    size = lanes_sub(lanes_xor(lanes_sub(held, half), negative), negative)
    lanes_store(rows, lanes_add(starts, lanes_multiply(size, lanes_of(row_bytes))))
    return negative


@leaf
def _add_key(x: Any, y: Any, z: Any, t: Any, group: Any, scratch: Any, window: Any) -> Any:
    """Return the point plus the multiple of -A that a window of h says, completed."""
    rows = scratch + np.uint64(ROWS)
    starts = lanes_load(scratch + np.uint64(_STARTS))
    negative = digit_rows(
        group + np.uint64(H), window, np.uint64(4), starts, np.uint64(ROW_BYTES), rows
    )
    return curve.add_entry(x, y, z, t, curve.signed_entry(negative, curve.load_entry(rows)))


@leaf
def _add_base(
    x: Any, y: Any, z: Any, t: Any, group: Any, scratch: Any, window: Any, base: Any
) -> Any:
    """Return the point plus the multiple of B that a window of S says, completed."""
    rows = scratch + np.uint64(ROWS)
    negative = digit_rows(
        group + np.uint64(S),
        window >> _ONE,
        np.uint64(8),
        lanes_of(base),
        np.uint64(AFFINE_ROW_BYTES),
        rows,
    )
    return curve.add_affine(x, y, z, t, curve.signed_entry(negative, curve.load_affine(rows)))


@njit
def _multiply(group: Any, scratch: Any, base: Any, doublings: Any) -> None:
    """Write the point [S]B - [h]A of a group.

    doublings: 3, those of a window but the last. The compiler must not know, or it unrolls the
    loop beyond the instruction cache.
    """
    x, y, z = field.zero(), field.one(), field.one()
    t = field.zero()
    window = _LAST
    while True:
        point = _add_key(x, y, z, t, group, scratch, window)
        if window & _ONE == _ZERO:
            x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
            t = field.carry(curve.complete_t(point))
            point = _add_base(x, y, z, t, group, scratch, window, base)
        x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
        if window == _ZERO:
            break
        for _ in range(doublings):
            point = curve.double_negated(x, y, z)
            x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
        point = curve.double_negated(x, y, z)
        x, y = curve.complete_x(point), curve.complete_y(point)
        z, t = field.carry(curve.complete_z(point)), field.carry(curve.complete_t(point))
        window -= _ONE
    field.store(element(group, _POINT_X), field.carry(x))
    field.store(element(group, _POINT_Y), field.carry(y))
    field.store(element(group, _POINT_Z), field.carry(z))


@njit
def _compute(group: Any, scratch: Any, base: Any, doublings: Any) -> None:
    """Finish decoding -A, make its table and write the point [S]B - [h]A."""
    x, y, is_point = encoding.finish_decode(group + np.uint64(A), group)
    mask = group + np.uint64(MASK)
    lanes_store(mask, lanes_and(lanes_load(mask), is_point))
    _make_table(scratch + np.uint64(_TABLE), x, y)
    _multiply(group, scratch, base, doublings)


@njit
def _judge(group: Any, scratch: Any, out: Any, start: Any, stop: Any) -> None:
    """Compare a group's point with R and write the verdicts of its rows [start, stop)."""
    x, y = field.load(element(group, _POINT_X)), field.load(element(group, _POINT_Y))
    inverse = field.load(element(group, encoding.BASE))
    place = group + np.uint64(R)
    is_equal = encoding.is_encoding(x, y, inverse, place, scratch + np.uint64(WORK))
    mask = group + np.uint64(MASK)
    lanes_store(mask, lanes_and(lanes_load(mask), is_equal))
    for row in range(start, stop):
        out[row] = np.uint8(load_word(mask + np.uint64(8 * (row - start))) & _ONE)


@leaf
def _write_starts(scratch: Any) -> None:
    for lane in range(WIDTH):
        start = scratch + np.uint64(_TABLE) + np.uint64(_TABLE_BYTES * lane)
        store_word(scratch + np.uint64(_STARTS + 8 * lane), start)


@njit
def verify_groups(
    tables: Any,
    scratch: Any,
    sources: Any,
    length: Any,
    stride: Any,
    doublings: Any,
    out: Any,
    start: Any,
    stop: Any,
) -> None:
    """Write 1 to `out` for each valid signature of rows [start, stop), 0 for the others.

    tables: address of the round constants and of the multiples of B; scratch: address of scratch
    of this call alone, a multiple of 64, with padding behind the messages; sources: addresses of
    public keys (n, 32), signatures (n, 64), messages (n, length), C-contiguous uint8; stride:
    padded bytes of R, A and a message; doublings: 3. All uint64, but start, stop and `out`, which
    is (n,) uint8.
    """
    _write_starts(scratch)
    base = tables + np.uint64(CONSTANTS_BYTES)
    groups = scratch + np.uint64(_GROUPS)
    size = np.uint64(GROUP_BYTES)
    chunk = start
    while chunk < stop:
        end = min(stop, chunk + GROUPS_MAX * WIDTH)
        count = (end - chunk + WIDTH - 1) // WIDTH
        for i in range(count):
            rows = (chunk + WIDTH * i, end - 1)
            group = groups + size * np.uint64(i)
            _prepare(group, scratch, tables, sources, length, stride, rows)
        for i in range(0, count, _TOGETHER):
            place = groups + size * np.uint64(i)
            encoding.root_power(place, size, min(_TOGETHER, count - i))
        for i in range(count):
            _compute(groups + size * np.uint64(i), scratch, base, doublings)
        inversion = scratch + np.uint64(_INVERSION)
        encoding.invert_together(groups, size, count, _POINT_Z, encoding.BASE, inversion)
        for i in range(count):
            first = chunk + WIDTH * i
            group = groups + size * np.uint64(i)
            _judge(group, scratch, out, first, min(end, first + WIDTH))
        chunk = end
