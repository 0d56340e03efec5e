"""Hashes of transactions straight from their columns: no 192-byte record is ever written.

A record is three blocks: numbers and memo, the two addresses, the signature. The wide form fills
the vectors of each block from the columns, which for plain numbers needs no transposition at all.
Spec: spec/transaction.md#layout.
"""

from typing import Final

import numpy as np

from kernels import blake3
from kernels.blake3_vectors import (
    VECTOR_BYTES,
    WIDTH,
    broadcast,
    copy_words,
    join_bytes,
    load_quads,
    scratch,
    split_words,
    store_digests,
    zero_words,
)
from kernels.blake3_wide import BLOCK, CHAINING, KEY, OUT_ROWS, ROWS, compress_wide, point_rows
from kernels.integers import leaf
from kernels.jit import njit
from kernels.layout import U8, U32, Columns

_KEY = blake3.key_words(None)
_LENGTH: Final = np.uint64(blake3.BLOCK_BYTES)
_ZERO: Final = np.uint64(0)
_START: Final = np.uint64(blake3.CHUNK_START)
_END: Final = np.uint64(blake3.CHUNK_END | blake3.ROOT)
_LAST_LANE: Final = np.uint64(WIDTH - 1)
_VECTOR: Final = np.uint64(VECTOR_BYTES)


@njit
def _numbers_block(columns: Columns, i: int, block: U32) -> None:
    """Fill block, (16,) uint32, with the first 64 bytes of transaction i."""
    block[0] = np.uint32(columns.version[i]) | (np.uint32(columns.kind[i]) << np.uint32(8))
    block[1] = columns.chain_id[i]
    block[2] = np.uint32(columns.nonce[i])
    block[3] = np.uint32(columns.nonce[i] >> np.uint64(32))
    block[4] = np.uint32(columns.valid_until[i])
    block[5] = np.uint32(columns.valid_until[i] >> np.uint64(32))
    block[6] = np.uint32(columns.amount[i])
    block[7] = np.uint32(columns.amount[i] >> np.uint64(32))
    block[8] = np.uint32(columns.fee[i])
    block[9] = np.uint32(columns.fee[i] >> np.uint64(32))
    block[10] = 0
    block[11] = 0
    blake3.load_words(columns.memo[i], 0, block[12:])


@njit
def hash_transactions_scalar(columns: Columns, out: U8, start: int, stop: int) -> None:
    """Hash transactions [start, stop) one after another into out, (n, 32) uint8."""
    block = np.empty(16, np.uint32)
    chaining = np.empty(8, np.uint32)
    for i in range(start, stop):
        _numbers_block(columns, i, block)
        blake3.compress(_KEY, block, 0, blake3.BLOCK_BYTES, blake3.CHUNK_START, chaining)
        blake3.load_words(columns.sender[i], 0, block[:8])
        blake3.load_words(columns.recipient[i], 0, block[8:])
        blake3.compress(chaining, block, 0, blake3.BLOCK_BYTES, 0, chaining)
        blake3.load_words(columns.signature[i], 0, block)
        flags = blake3.CHUNK_END | blake3.ROOT
        blake3.compress(chaining, block, 0, blake3.BLOCK_BYTES, flags, chaining)
        blake3.store_digest(chaining, out[i])


@leaf
def _load_rows(area: int, base: int, first: int, row_bytes: int, vector: int) -> None:
    """Transpose rows [first, first + WIDTH) of a byte column into vectors of the block."""
    point_rows(area + ROWS, base, first, first + _LAST_LANE, row_bytes)
    for offset in range(_ZERO, row_bytes, np.uint64(16)):
        place = area + BLOCK + (vector + offset // np.uint64(4)) * _VECTOR
        load_quads(area + ROWS, offset, place)


@leaf
def _load_numbers(columns: Columns, first: int, area: int) -> None:
    """Fill the block with the first 64 bytes of transactions [first, first + WIDTH)."""
    block = area + BLOCK
    word = first * np.uint64(8)
    join_bytes(
        np.uint64(columns.version.ctypes.data) + first,
        np.uint64(columns.kind.ctypes.data) + first,
        block,
    )
    copy_words(np.uint64(columns.chain_id.ctypes.data) + first * np.uint64(4), block + _VECTOR)
    split_words(np.uint64(columns.nonce.ctypes.data) + word, block + np.uint64(2) * _VECTOR)
    split_words(np.uint64(columns.valid_until.ctypes.data) + word, block + np.uint64(4) * _VECTOR)
    split_words(np.uint64(columns.amount.ctypes.data) + word, block + np.uint64(6) * _VECTOR)
    split_words(np.uint64(columns.fee.ctypes.data) + word, block + np.uint64(8) * _VECTOR)
    zero_words(block + np.uint64(10) * _VECTOR)
    zero_words(block + np.uint64(11) * _VECTOR)
    memo = np.uint64(columns.memo.ctypes.data)
    _load_rows(area, memo, first, np.uint64(16), np.uint64(12))


@leaf
def _hash_group(columns: Columns, first: int, area: int, out: int) -> None:
    """Hash transactions [first, first + WIDTH)."""
    block, chaining = area + BLOCK, area + CHAINING
    _load_numbers(columns, first, area)
    compress_wide(area + KEY, block, _LENGTH, _START, chaining)
    sender = np.uint64(columns.sender.ctypes.data)
    _load_rows(area, sender, first, np.uint64(32), np.uint64(0))
    recipient = np.uint64(columns.recipient.ctypes.data)
    _load_rows(area, recipient, first, np.uint64(32), np.uint64(8))
    compress_wide(chaining, block, _LENGTH, _ZERO, chaining)
    signature = np.uint64(columns.signature.ctypes.data)
    _load_rows(area, signature, first, np.uint64(64), np.uint64(0))
    compress_wide(chaining, block, _LENGTH, _END, chaining)
    point_rows(area + OUT_ROWS, out, first, first + _LAST_LANE, np.uint64(32))
    store_digests(chaining, area + OUT_ROWS)


@njit(_nrt=False)
def hash_transactions_wide(columns: Columns, out: U8, start: int, stop: int) -> None:
    """Hash transactions [start, stop), WIDTH at a time, into out, (n, 32) uint8.

    columns: read-only, C-contiguous, n of each. stop - start >= WIDTH: a last group that is not
    full begins earlier and hashes some again.
    """
    area = scratch()
    broadcast(np.uint64(_KEY.ctypes.data), area + KEY)
    for first in range(start, stop, WIDTH):
        begin = np.uint64(min(first, stop - WIDTH))
        _hash_group(columns, begin, area, np.uint64(out.ctypes.data))
