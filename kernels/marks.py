"""A bounded set of 32-byte hashes that forgets the oldest: eight ways to a bucket, one line each.

A bucket is one cache line of eight tags; a tag that matches leads to the whole hash, which is
compared. Hashes are chosen by strangers, so bucket and tag come from the keyed hash of
`accounts.key_hash`: nobody can aim at a bucket. A bucket that is full loses its oldest entry, so
the set may forget, and never claims a hash that was not put in.
Arrays: tags (buckets, 8) uint64, 0 is empty; kept (8 * buckets, 4) uint64; turns (buckets,) uint8;
secret (8,) uint64; hashes (n, 4) uint64; buckets is a power of two.
"""

from typing import Any

import numpy as np

from kernels.accounts import row_hash
from kernels.integers import ONE, ZERO, leaf
from kernels.jit import njit
from kernels.prefetch import prefetch, prefetch_write

WAYS = 8
GROUP = 64
"""Hashes whose lines are asked for before the first is looked at."""


@leaf
def way_of(tags: Any, kept: Any, hashes: Any, row: Any, bucket: Any, tag: Any) -> Any:
    """Return the way in which the hash at `row` stands, or WAYS."""
    for way in range(WAYS):
        if tags[bucket, way] == tag:
            place = bucket * WAYS + way
            difference = (kept[place, 0] ^ hashes[row, 0]) | (kept[place, 1] ^ hashes[row, 1])
            difference |= (kept[place, 2] ^ hashes[row, 2]) | (kept[place, 3] ^ hashes[row, 3])
            if difference == ZERO:
                return way
    return WAYS


@njit
def find_marks(
    tags: Any, kept: Any, secret: Any, hashes: Any, found: Any, start: Any, stop: Any
) -> None:
    """Write to found[start:stop], (n,) uint8, 1 for each hash that is in the set, else 0."""
    mask = np.uint64(tags.shape[0]) - ONE
    keyed = np.empty(GROUP, np.uint64)
    for base in range(start, stop, GROUP):
        size = min(GROUP, stop - base)
        for j in range(size):
            keyed[j] = row_hash(hashes, base + j, secret)
            prefetch(tags, np.int64(keyed[j] & mask))
        for j in range(size):
            bucket = np.int64(keyed[j] & mask)
            tag = keyed[j] | ONE
            for way in range(WAYS):
                if tags[bucket, way] == tag:
                    prefetch(kept, bucket * WAYS + way)
        for j in range(size):
            bucket = np.int64(keyed[j] & mask)
            way = way_of(tags, kept, hashes, base + j, bucket, keyed[j] | ONE)
            found[base + j] = np.uint8(way != WAYS)


@njit
def put_marks(tags: Any, kept: Any, turns: Any, secret: Any, hashes: Any) -> None:
    """Put all hashes into the set; each may push the oldest of its bucket out."""
    mask = np.uint64(tags.shape[0]) - ONE
    keyed = np.empty(GROUP, np.uint64)
    for base in range(0, hashes.shape[0], GROUP):
        size = min(GROUP, hashes.shape[0] - base)
        for j in range(size):
            keyed[j] = row_hash(hashes, base + j, secret)
            prefetch_write(tags, np.int64(keyed[j] & mask))
        for j in range(size):
            bucket = np.int64(keyed[j] & mask)
            tag = keyed[j] | ONE
            if way_of(tags, kept, hashes, base + j, bucket, tag) == WAYS:
                way = np.int64(turns[bucket])
                turns[bucket] = np.uint8((way + 1) % WAYS)
                tags[bucket, way] = tag
                for word in range(4):
                    kept[bucket * WAYS + way, word] = hashes[base + j, word]
