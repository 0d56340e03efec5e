"""Keys and signatures for benchmarks and test data, one per lane: see `insecure_signer`.

Not constant time and not hardened in any way: never for a key that guards something.
"""

from typing import Any, Final

import numpy as np

from kernels import curve25519 as curve
from kernels import encoding25519 as encoding
from kernels import field51 as field
from kernels import scalar25519, sha512
from kernels.curve25519 import AFFINE_ROW_BYTES
from kernels.ed25519_lanes import BASE_ENTRIES, digit_rows
from kernels.encoding25519 import element
from kernels.field51 import ELEMENT_BYTES
from kernels.groups25519 import CONSTANTS_BYTES
from kernels.integers import leaf
from kernels.jit import njit
from kernels.lanes64 import (
    LINE_BYTES,
    VECTOR_BYTES,
    WIDTH,
    copy_bytes,
    lanes_and,
    lanes_load,
    lanes_of,
    lanes_or,
    lanes_store,
    store_rows,
    store_word,
)

GROUPS_MAX: Final = 16
"""Groups of a chunk: one inversion for all of them."""
WINDOWS: Final = 32
"""Of 8 bits; each has a table of the multiples 0 to 128 of 256^window * B."""
WINDOW_BYTES: Final = BASE_ENTRIES * AFFINE_ROW_BYTES
SEED_BYTES: Final = 32
HEAD_BYTES: Final = 64
"""R and A, before the message that is hashed with them."""

# A group's part of the scratch: elements, then vectors of words.
_POINT_X, _POINT_Y, _POINT_Z = 5, 6, 7
_SECRET: Final = 8 * ELEMENT_BYTES
_NONCE: Final = _SECRET + 4 * VECTOR_BYTES
_ENCODED: Final = _NONCE + 4 * VECTOR_BYTES
"""Eight vectors: an encoded point, then S."""
_GROUP_BYTES: Final = _ENCODED + 8 * VECTOR_BYTES

# The part that all groups share.
_ROWS: Final = 0
_STATE: Final = VECTOR_BYTES
_WORK: Final = _STATE + sha512.STATE_BYTES
_WINDOWS: Final = _WORK + sha512.WORK_BYTES
_INVERSION: Final = _WINDOWS + 4 * VECTOR_BYTES
_STAGE: Final = _INVERSION + 5 * ELEMENT_BYTES
_GROUPS: Final = _STAGE + WIDTH * LINE_BYTES
SEED_ROWS: Final = _GROUPS + GROUPS_MAX * _GROUP_BYTES
"""Where the padded rows begin that seeds are hashed in, one per lane, one block each."""
MESSAGES: Final = SEED_ROWS + WIDTH * sha512.BLOCK_BYTES
"""Where the padded rows of prefix and message begin, then those of R, A and message."""

_ZERO = np.uint64(0)


@leaf
def _point_rows(scratch: Any, start: Any, stride: Any) -> None:
    for lane in range(WIDTH):
        place = scratch + start + stride * np.uint64(lane)
        store_word(scratch + np.uint64(_ROWS + 8 * lane), place)


@leaf
def _hash(scratch: Any, start: Any, stride: Any, tables: Any) -> None:
    """Hash the padded rows at `start` into the state."""
    _point_rows(scratch, start, stride)
    rows, work = scratch + np.uint64(_ROWS), scratch + np.uint64(_WORK)
    sha512.hash_rows(rows, stride, tables, work, scratch + np.uint64(_STATE))


@leaf
def _write_head(scratch: Any, source: Any, start: Any, stride: Any) -> None:
    """Write the 32 bytes of each lane that four vectors hold to the beginning of WIDTH rows."""
    stage = scratch + np.uint64(_STAGE)
    _point_rows(scratch, np.uint64(_STAGE), np.uint64(LINE_BYTES))
    store_rows(source, scratch + np.uint64(_ROWS), _ZERO)
    for lane in range(WIDTH):
        place = scratch + start + stride * np.uint64(lane)
        copy_bytes(place, stage + np.uint64(LINE_BYTES * lane), np.uint64(32))


@leaf
def _secret(group: Any, scratch: Any, tables: Any, seeds: Any, first: Any, last: Any) -> None:
    """Hash WIDTH seeds: the secret scalar goes to the group, the prefix stays in the state."""
    stride = np.uint64(sha512.BLOCK_BYTES)
    for lane in range(WIDTH):
        row = np.uint64(min(first + lane, last))
        place = scratch + np.uint64(SEED_ROWS) + stride * np.uint64(lane)
        copy_bytes(place, seeds + row * np.uint64(SEED_BYTES), np.uint64(SEED_BYTES))
    _hash(scratch, np.uint64(SEED_ROWS), stride, tables)
    state, secret = scratch + np.uint64(_STATE), group + np.uint64(_SECRET)
    for i in range(4):
        word = lanes_load(state + np.uint64(VECTOR_BYTES * i))
        if i == 0:
            word = lanes_and(word, lanes_of(np.uint64(2**64 - 8)))
        if i == 3:
            word = lanes_and(word, lanes_of(np.uint64(2**62 - 1)))
            word = lanes_or(word, lanes_of(np.uint64(2**62)))
        lanes_store(secret + np.uint64(VECTOR_BYTES * i), word)


@njit
def _multiply_base(group: Any, scratch: Any, scalar: Any, tables: Any) -> None:
    """Write the point [scalar]B of a group; scalar: four vectors of words, below L."""
    windows, rows = scratch + np.uint64(_WINDOWS), scratch + np.uint64(_ROWS)
    scalar25519.offset_by_8(scalar, windows)
    x, y, z, t = field.zero(), field.one(), field.one(), field.zero()
    for k in range(WINDOWS):
        base = tables + np.uint64(CONSTANTS_BYTES + WINDOW_BYTES * k)
        negative = digit_rows(
            windows,
            np.uint64(k),
            np.uint64(8),
            lanes_of(base),
            np.uint64(AFFINE_ROW_BYTES),
            rows,
        )
        entry = curve.signed_entry(negative, curve.load_affine(rows))
        point = curve.add_affine(x, y, z, t, entry)
        x, y, z = curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
        t = field.carry(curve.complete_t(point))
    field.store(element(group, _POINT_X), field.carry(x))
    field.store(element(group, _POINT_Y), field.carry(y))
    field.store(element(group, _POINT_Z), field.carry(z))


@njit
def _start_key(group: Any, scratch: Any, tables: Any, seeds: Any, first: Any, last: Any) -> None:
    """Compute the point of WIDTH public keys."""
    _secret(group, scratch, tables, seeds, first, last)
    state, secret = scratch + np.uint64(_STATE), group + np.uint64(_SECRET)
    for i in range(8):
        word = lanes_of(_ZERO)
        if i < 4:
            word = lanes_load(secret + np.uint64(VECTOR_BYTES * i))
        lanes_store(state + np.uint64(VECTOR_BYTES * i), word)
    nonce = group + np.uint64(_NONCE)
    scalar25519.reduce_wide(state, nonce)
    _multiply_base(group, scratch, nonce, tables)


@njit
def _start_signature(
    group: Any, scratch: Any, tables: Any, sources: Any, sizes: Any, first: Any, last: Any
) -> None:
    """Compute the nonce r and the point [r]B of WIDTH signatures."""
    length, stride = sizes[0], sizes[1]
    _secret(group, scratch, tables, sources[0], first, last)
    prefix = scratch + np.uint64(_STATE + 4 * VECTOR_BYTES)
    _write_head(scratch, prefix, np.uint64(MESSAGES), stride)
    for lane in range(WIDTH):
        row = np.uint64(min(first + lane, last))
        place = scratch + np.uint64(MESSAGES + SEED_BYTES) + stride * np.uint64(lane)
        copy_bytes(place, sources[2] + row * length, length)
    _hash(scratch, np.uint64(MESSAGES), stride, tables)
    nonce = group + np.uint64(_NONCE)
    scalar25519.reduce_wide(scratch + np.uint64(_STATE), nonce)
    _multiply_base(group, scratch, nonce, tables)


@leaf
def _encode(group: Any) -> None:
    x, y = field.load(element(group, _POINT_X)), field.load(element(group, _POINT_Y))
    encoding.encode(x, y, field.load(element(group, encoding.BASE)), group + np.uint64(_ENCODED))


@njit
def _finish_signature(
    group: Any, scratch: Any, tables: Any, sources: Any, sizes: Any, first: Any, last: Any
) -> None:
    """Encode R, hash it with key and message, and append S = r + h a."""
    _encode(group)
    length, stride = sizes[0], sizes[2]
    start = np.uint64(MESSAGES) + sizes[1] * np.uint64(WIDTH)
    encoded = group + np.uint64(_ENCODED)
    _write_head(scratch, encoded, start, stride)
    for lane in range(WIDTH):
        row = np.uint64(min(first + lane, last))
        place = scratch + start + stride * np.uint64(lane)
        copy_bytes(place + np.uint64(32), sources[1] + row * np.uint64(32), np.uint64(32))
        copy_bytes(place + np.uint64(HEAD_BYTES), sources[2] + row * length, length)
    _hash(scratch, start, stride, tables)
    h = scratch + np.uint64(_STATE)
    scalar25519.reduce_wide(h, h)
    secret, nonce = group + np.uint64(_SECRET), group + np.uint64(_NONCE)
    scalar25519.multiply_add(h, secret, nonce, encoded + np.uint64(4 * VECTOR_BYTES))


@leaf
def _write(group: Any, scratch: Any, out: Any, width: Any, first: Any, last: Any) -> None:
    """Write the first `width` bytes that each lane's words hold to its row of `out`."""
    stage = scratch + np.uint64(_STAGE)
    _point_rows(scratch, np.uint64(_STAGE), np.uint64(LINE_BYTES))
    store_rows(group + np.uint64(_ENCODED), scratch + np.uint64(_ROWS), _ZERO)
    for lane in range(min(WIDTH, last - first + 1)):
        place = out + width * np.uint64(first + lane)
        copy_bytes(place, stage + np.uint64(LINE_BYTES * lane), width)


@njit
def run_groups(
    tables: Any, scratch: Any, sources: Any, sizes: Any, out: Any, start: Any, stop: Any
) -> None:
    """Write signatures, or public keys where the length is 2^64 - 1, of rows [start, stop).

    tables: address of the round constants and of WINDOWS tables of multiples; scratch: address of
    scratch of this call alone, with padding behind seeds and messages; sources: addresses of seeds
    (n, 32), public keys (n, 32), messages (n, length); sizes: length and the strides of both kinds
    of padded rows; out: address of (n, 64), or (n, 32) for keys. All uint64, but start and stop.
    """
    groups, size = scratch + np.uint64(_GROUPS), np.uint64(_GROUP_BYTES)
    is_signing = sizes[0] != np.uint64(2**64 - 1)
    width = np.uint64(64 if is_signing else 32)
    chunk = start
    while chunk < stop:
        end = min(stop, chunk + GROUPS_MAX * WIDTH)
        count = (end - chunk + WIDTH - 1) // WIDTH
        for i in range(count):
            group, first = groups + size * np.uint64(i), chunk + WIDTH * i
            if is_signing:
                _start_signature(group, scratch, tables, sources, sizes, first, end - 1)
            else:
                _start_key(group, scratch, tables, sources[0], first, end - 1)
        inversion = scratch + np.uint64(_INVERSION)
        encoding.invert_together(groups, size, count, _POINT_Z, encoding.BASE, inversion)
        for i in range(count):
            group, first = groups + size * np.uint64(i), chunk + WIDTH * i
            if is_signing:
                _finish_signature(group, scratch, tables, sources, sizes, first, end - 1)
            else:
                _encode(group)
            _write(group, scratch, out, width, first, end - 1)
        chunk = end
