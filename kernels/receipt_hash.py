"""Leaves of the receipts tree, hashed from columns: no 64-byte receipt is ever written.

A receipt is one block: transaction hash 32 | status u8 | kind u8 | 6 zero | units u64 = 0 |
fee u64 | 8 zero. Spec: spec/receipts.md.
"""

from typing import Final

import numpy as np

from kernels import blake3
from kernels.blake3_vectors import (
    VECTOR_BYTES,
    WIDTH,
    broadcast,
    join_bytes,
    load_quads,
    scratch,
    split_words,
    store_digests,
    zero_words,
)
from kernels.blake3_wide import (
    BLOCK,
    CHAINING,
    KEY,
    OUT_ROWS,
    ROWS,
    SINGLE_BLOCK,
    compress_wide,
    point_rows,
)
from kernels.integers import leaf
from kernels.jit import njit
from kernels.layout import U8, U32, U64

_FLAGS: Final = int(SINGLE_BLOCK) | blake3.KEYED
_WIDE_FLAGS: Final = np.uint64(_FLAGS)
_LENGTH: Final = np.uint64(blake3.BLOCK_BYTES)
_ZERO: Final = np.uint64(0)
_LAST_LANE: Final = np.uint64(WIDTH - 1)
_VECTOR: Final = np.uint64(VECTOR_BYTES)
_STATUS_WORD: Final = 8
_FEE_WORD: Final = 12


@njit
def hash_receipts_scalar(
    hashes: U8, statuses: U8, kinds: U8, fees: U64, key: U32, out: U8, start: int, stop: int
) -> None:
    """Hash receipts [start, stop) one after another; arguments as in `hash_receipts_wide`."""
    block = np.zeros(16, np.uint32)
    digest = np.empty(8, np.uint32)
    for i in range(start, stop):
        blake3.load_words(hashes[i], 0, block[:_STATUS_WORD])
        block[_STATUS_WORD] = np.uint32(statuses[i]) | (np.uint32(kinds[i]) << np.uint32(8))
        block[_FEE_WORD] = np.uint32(fees[i])
        block[_FEE_WORD + 1] = np.uint32(fees[i] >> np.uint64(32))
        blake3.compress(key, block, 0, blake3.BLOCK_BYTES, _FLAGS, digest)
        blake3.store_digest(digest, out[i])


@leaf
def _hash_group(
    hashes: U8, statuses: U8, kinds: U8, fees: U64, first: int, area: int, out: int
) -> None:
    """Hash receipts [first, first + WIDTH); the words that are always zero stay as they are."""
    block = area + BLOCK
    point_rows(area + ROWS, np.uint64(hashes.ctypes.data), first, first + _LAST_LANE, np.uint64(32))
    load_quads(area + ROWS, _ZERO, block)
    load_quads(area + ROWS, np.uint64(16), block + np.uint64(4) * _VECTOR)
    join_bytes(
        np.uint64(statuses.ctypes.data) + first,
        np.uint64(kinds.ctypes.data) + first,
        block + np.uint64(_STATUS_WORD) * _VECTOR,
    )
    split_words(
        np.uint64(fees.ctypes.data) + first * np.uint64(8),
        block + np.uint64(_FEE_WORD) * _VECTOR,
    )
    compress_wide(area + KEY, block, _LENGTH, _WIDE_FLAGS, area + CHAINING)
    point_rows(area + OUT_ROWS, out, first, first + _LAST_LANE, np.uint64(32))
    store_digests(area + CHAINING, area + OUT_ROWS)


@njit(_nrt=False)
def hash_receipts_wide(
    hashes: U8, statuses: U8, kinds: U8, fees: U64, key: U32, out: U8, start: int, stop: int
) -> None:
    """Hash receipts [start, stop) into out, (n, 32) uint8.

    hashes: (n, 32) uint8, statuses, kinds: (n,) uint8, fees: (n,) uint64, base units; all
    read-only and C-contiguous. key: (8,) uint32 of `key_words`. stop - start >= WIDTH: a last
    group that is not full begins earlier and hashes some again.
    """
    area = scratch()
    broadcast(np.uint64(key.ctypes.data), area + KEY)
    for word in range(_STATUS_WORD, 16):
        zero_words(area + BLOCK + np.uint64(word) * _VECTOR)
    for first in range(start, stop, WIDTH):
        begin = np.uint64(min(first, stop - WIDTH))
        _hash_group(hashes, statuses, kinds, fees, begin, area, np.uint64(out.ctypes.data))
