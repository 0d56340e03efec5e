"""WIDTH signatures side by side: their bytes read, checked and hashed, before any point is known.

A *group* is a piece of scratch: elements first, then vectors of words, at the offsets below. Rows
that are refused by their bytes alone are computed like the others and masked: S becomes 0 where it
is too large. What does not fill a group repeats its last row.
Spec: spec/signatures.md#verdict, 1 to 3.
"""

from typing import Any, Final

import numpy as np

from kernels import scalar25519, sha512
from kernels.field51 import ELEMENT_BYTES
from kernels.integers import leaf
from kernels.lanes64 import (
    LINE_BYTES,
    VECTOR_BYTES,
    WIDTH,
    copy_bytes,
    lanes_and,
    lanes_is_zero,
    lanes_load,
    lanes_or,
    lanes_store,
    load_rows,
    store_word,
)

GROUPS_MAX: Final = 16
"""Groups of a chunk: what costs one inversion, or a pass of square roots, is done for all."""

_ROOT_ELEMENTS: Final = 5
"""Of `encoding25519.root_power`."""
SPARE: Final = _ROOT_ELEMENTS * ELEMENT_BYTES
SPARE_BYTES: Final = 3 * ELEMENT_BYTES
"""Of `known_keys_lanes` until a key is decoded, then the caller's."""
HEAD: Final = SPARE + SPARE_BYTES
"""R and A, 8 vectors of words."""
R: Final = HEAD
A: Final = HEAD + 4 * VECTOR_BYTES
SIGNATURE: Final = HEAD + 8 * VECTOR_BYTES
"""R and S, 8 vectors."""
S: Final = SIGNATURE + 4 * VECTOR_BYTES
H: Final = SIGNATURE + 8 * VECTOR_BYTES
"""h, 4 vectors."""
MASK: Final = H + 4 * VECTOR_BYTES
"""All ones in the lanes whose row may still be valid."""
GROUP_BYTES: Final = MASK + VECTOR_BYTES

# What all groups share, at the beginning of a scratch.
ROWS: Final = 0
"""WIDTH addresses."""
_STATE: Final = VECTOR_BYTES
WORK: Final = _STATE + sha512.STATE_BYTES
SHARED_BYTES: Final = -(-(WORK + sha512.WORK_BYTES) // LINE_BYTES) * LINE_BYTES

CONSTANTS_BYTES: Final = 8 * sha512.ROUNDS
"""Of SHA-512, with which tables begin."""

_ZERO = np.uint64(0)


@leaf
def _read(
    group: Any, scratch: Any, padded: Any, sources: Any, length: Any, stride: Any, rows: Any
) -> None:
    """Read WIDTH rows: R, A, message into the padded rows; then R, A, S as words.

    padded: address of WIDTH padded rows; sources: addresses of public keys, signatures, messages;
    rows: first and last row.
    """
    public_keys, signatures, messages = sources
    addresses = scratch + np.uint64(ROWS)
    for lane in range(WIDTH):
        row = np.uint64(min(rows[0] + lane, rows[1]))
        place = padded + stride * np.uint64(lane)
        copy_bytes(place, signatures + row * np.uint64(64), np.uint64(32))
        copy_bytes(place + np.uint64(32), public_keys + row * np.uint64(32), np.uint64(32))
        copy_bytes(place + np.uint64(64), messages + row * length, length)
        store_word(addresses + np.uint64(8 * lane), signatures + row * np.uint64(64))
    load_rows(addresses, _ZERO, group + np.uint64(SIGNATURE))
    for lane in range(WIDTH):
        store_word(addresses + np.uint64(8 * lane), padded + stride * np.uint64(lane))
    load_rows(addresses, _ZERO, group + np.uint64(HEAD))


@leaf
def _check(group: Any) -> None:
    """Write the mask of what the bytes alone say: S < L, no small order, y of A < p.

    An S that is too large becomes 0: its windows would name rows behind the table.
    """
    low = lanes_or(
        scalar25519.is_small_order(group + np.uint64(R)),
        scalar25519.is_small_order(group + np.uint64(A)),
    )
    is_scalar = scalar25519.is_scalar(group + np.uint64(S))
    for i in range(scalar25519.WORDS):
        word = group + np.uint64(S + VECTOR_BYTES * i)
        lanes_store(word, lanes_and(lanes_load(word), is_scalar))
    ranges = lanes_and(is_scalar, scalar25519.is_field_element(group + np.uint64(A)))
    lanes_store(group + np.uint64(MASK), lanes_and(ranges, lanes_is_zero(low)))


@leaf
def read_group(
    group: Any,
    scratch: Any,
    padded: Any,
    constants: Any,
    sources: Any,
    length: Any,
    stride: Any,
    rows: Any,
) -> None:
    """Fill a group with R, A, S, h and the mask of rows that their bytes do not refuse.

    scratch: SHARED_BYTES; padded: WIDTH rows of `stride` bytes with padding behind the messages;
    constants: of SHA-512; sources: addresses of public keys (n, 32), signatures (n, 64), messages
    (n, length), C-contiguous uint8. All uint64 addresses; rows: first and last row, integers.
    """
    _read(group, scratch, padded, sources, length, stride, rows)
    _check(group)
    state, work = scratch + np.uint64(_STATE), scratch + np.uint64(WORK)
    sha512.hash_rows(scratch + np.uint64(ROWS), stride, constants, work, state)
    scalar25519.reduce_wide(state, group + np.uint64(H))
