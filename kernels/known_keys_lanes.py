"""Public keys decoded by hints, and those without one in full lanes: kernels of `known_keys`.

A table has hints: the four words of x of a key. Of a chunk of groups, hints are asked for (`find`),
copied and proved; keys without a proof are decoded, moved together, so that one of them does not
cost a group (`decode_keys`). Then `finish_key` answers the points of a group, the same as
decoding, whatever the table held. `keep` writes hints.

What is proved and used is a copy: other threads write the table at any moment.
Spec: spec/signatures.md#known-keys
"""

from typing import Any, Final

import numpy as np

from kernels import encoding25519 as encoding
from kernels import field51 as field
from kernels.accounts import key_hash
from kernels.groups25519 import SPARE, SPARE_BYTES, A
from kernels.integers import leaf
from kernels.jit import njit
from kernels.lanes64 import (
    VECTOR_BYTES,
    WIDTH,
    lanes_and,
    lanes_is_zero,
    lanes_load,
    lanes_of,
    lanes_shift_right,
    lanes_store,
    lanes_xor,
    load_word,
    store_word,
)
from kernels.prefetch import prefetch

HINT_WORDS: Final = 4
TOGETHER: Final = 4
"""Groups whose square roots are taken side by side: their elements stay in the nearest cache."""

# In the spare bytes of a group.
_X: Final = SPARE
"""4 vectors: the hint, then x of who has a proof or was decoded."""
_IS_POINT: Final = _X + HINT_WORDS * VECTOR_BYTES
"""All ones in the lanes whose x is that of the key."""
_PLACES: Final = _IS_POINT + VECTOR_BYTES
"""Of the hints in the table."""
_MOVED: Final = _PLACES + VECTOR_BYTES
"""4 vectors: keys that were moved here to be decoded, then their x."""
_MOVED_IS_POINT: Final = _MOVED + HINT_WORDS * VECTOR_BYTES
assert _MOVED_IS_POINT + VECTOR_BYTES <= SPARE + SPARE_BYTES, "a group has room for all of it"

_HALF, _SIGN_SHIFT = np.uint64(32), np.uint64(63)
_ZERO, _ONES = np.uint64(0), ~np.uint64(0)


@leaf
def _words(address: Any) -> Any:
    """Return the four words of a lane."""
    return (
        load_word(address),
        load_word(address + np.uint64(VECTOR_BYTES)),
        load_word(address + np.uint64(2 * VECTOR_BYTES)),
        load_word(address + np.uint64(3 * VECTOR_BYTES)),
    )


@njit
def find(group: Any, table: Any, secret: Any) -> None:
    """Ask for the hints of a group's keys. table: (n, 4) uint64, 0 < n < 2^32; secret: (8,)."""
    length = np.uint64(table.shape[0])
    for lane in range(WIDTH):
        k0, k1, k2, k3 = _words(group + np.uint64(A + 8 * lane))
        place = ((key_hash(k0, k1, k2, k3, secret) >> _HALF) * length) >> _HALF
        prefetch(table, np.int64(place))
        store_word(group + np.uint64(_PLACES + 8 * lane), place)


@njit
def copy_hints(group: Any, table: Any) -> None:
    """Copy what stands at the places that `find` named."""
    for lane in range(WIDTH):
        place = np.int64(load_word(group + np.uint64(_PLACES + 8 * lane)))
        for i in range(HINT_WORDS):
            store_word(group + np.uint64(_X + 8 * lane + VECTOR_BYTES * i), table[place, i])


@njit
def prove(group: Any) -> None:
    """Write in which lanes the copied hint is x of the key.

    Spec: spec/signatures.md#known-keys; that y is below p is looked at elsewhere, as for decoding.
    """
    words = group + np.uint64(A)
    x = field.canonical(field.from_words(group + np.uint64(_X)))
    u, v = encoding.ratio(field.from_words(words))
    square = field.carry(field.multiply(v, field.carry(field.square(x))))
    error = field.canonical(field.carry(field.subtract(square, u)))
    last = lanes_load(words + np.uint64((HINT_WORDS - 1) * VECTOR_BYTES))
    sign = lanes_shift_right(last, _SIGN_SHIFT)
    is_sign = lanes_is_zero(lanes_xor(field.parity(x), sign))
    lanes_store(group + np.uint64(_IS_POINT), lanes_and(is_sign, field.is_zero(error)))


@njit
def _move(groups: Any, size: Any, start: Any, stop: Any, missed: Any, first: Any) -> Any:
    """Move keys without a proof together; return where `missed` ends.

    Lanes behind `stop` are not moved: without a proof they are no points.
    """
    end = first
    for row in range(start, stop):
        group = groups + size * np.uint64((row - start) // WIDTH)
        group += np.uint64(8 * ((row - start) % WIDTH))
        if load_word(group + np.uint64(_IS_POINT)) == _ZERO:
            place = groups + size * np.uint64((end - first) // WIDTH)
            place += np.uint64(_MOVED + 8 * ((end - first) % WIDTH))
            for i in range(HINT_WORDS):
                offset = np.uint64(VECTOR_BYTES * i)
                store_word(place + offset, load_word(group + np.uint64(A) + offset))
            missed[end] = row
            end += 1
    return end


@njit
def _finish_moved(group: Any) -> None:
    """Write x of the keys that were moved to a group in their place, and which are points."""
    moved = group + np.uint64(_MOVED)
    x, _, is_point = encoding.finish_decode(moved, group)
    # That was x of the negative.
    x = field.canonical(field.carry(field.subtract(field.zero(), x)))
    field.to_words(moved, x)
    lanes_store(group + np.uint64(_MOVED_IS_POINT), is_point)


@njit
def _move_back(
    groups: Any, size: Any, start: Any, missed: Any, places: Any, hints: Any, first: Any, end: Any
) -> None:
    """Bring x of the moved keys to their groups; write their hints, and where these belong."""
    for k in range(first, end):
        lane = missed[k] - start
        group = groups + size * np.uint64(lane // WIDTH) + np.uint64(8 * (lane % WIDTH))
        moved = groups + size * np.uint64((k - first) // WIDTH)
        moved += np.uint64(8 * ((k - first) % WIDTH))
        for i in range(HINT_WORDS):
            offset = np.uint64(VECTOR_BYTES * i)
            hints[k, i] = load_word(moved + np.uint64(_MOVED) + offset)
            store_word(group + np.uint64(_X) + offset, hints[k, i])
        places[k] = load_word(group + np.uint64(_PLACES))
        store_word(group + np.uint64(_IS_POINT), load_word(moved + np.uint64(_MOVED_IS_POINT)))


@njit
def decode_keys(
    groups: Any,
    size: Any,
    start: Any,
    stop: Any,
    table: Any,
    missed: Any,
    places: Any,
    hints: Any,
    first: Any,
) -> Any:
    """Decode the keys of rows [start, stop), whose hints were found; `finish_key` comes next.

    groups: of a chunk, `size` bytes apart; missed: (n,) int32, gets from `first` on the rows whose
    key had no hint that fits; places, hints: (n,) and (n, 4) uint64, theirs. Returns where `missed`
    ends.
    """
    for i in range((stop - start + WIDTH - 1) // WIDTH):
        copy_hints(groups + size * np.uint64(i), table)
    for i in range((stop - start + WIDTH - 1) // WIDTH):
        prove(groups + size * np.uint64(i))
    end = _move(groups, size, start, stop, missed, first)
    count = (end - first + WIDTH - 1) // WIDTH
    for i in range(count):
        group = groups + size * np.uint64(i)
        encoding.start_decode(group + np.uint64(_MOVED), group)
    for i in range(0, count, TOGETHER):
        encoding.root_power(groups + size * np.uint64(i), size, min(TOGETHER, count - i))
    for i in range(count):
        _finish_moved(groups + size * np.uint64(i))
    _move_back(groups, size, start, missed, places, hints, first, end)
    return end


@leaf
def finish_key(group: Any) -> Any:
    """Return what `encoding25519.finish_decode` does of the keys of a group."""
    mask = lanes_load(group + np.uint64(_IS_POINT))
    x = field.negate_where(lanes_of(_ONES), field.from_words(group + np.uint64(_X)))
    y = field.from_words(group + np.uint64(A))
    return field.select(mask, x, field.zero()), field.select(mask, y, field.one()), mask


@njit
def keep(table: Any, missed: Any, places: Any, hints: Any, count: Any, out: Any) -> None:
    """Write those of `count` hints to the table whose row of `out` is not 0."""
    for k in range(count):
        if out[missed[k]]:
            place = np.int64(places[k])
            for i in range(HINT_WORDS):
                table[place, i] = hints[k, i]
