"""BLAKE3 of many messages, WIDTH of them side by side in the lanes of vectors.

A group of WIDTH rows is loaded so that lane i of vector j is word j of row i, compressed once, and
its digests are written back as rows. A group that is not full repeats its last row: the same bytes
are written to the same place twice. Rows of more than one chunk are hashed one at a time, WIDTH
chunks and then WIDTH parents side by side. `merkle`, `transaction_hash` and `receipt_hash` use the
same groups. Results equal `blake3.hash_rows_scalar` bit for bit.
Spec: spec/README.md#hashing.
"""

from typing import Final

import numpy as np

from kernels import blake3
from kernels.blake3_vectors import (
    SCRATCH_VECTORS,
    VECTOR_BYTES,
    WIDTH,
    broadcast,
    compress_vectors,
    copy_padded,
    load_address,
    load_quads,
    scratch,
    store_address,
    store_digests,
)
from kernels.integers import leaf
from kernels.jit import njit
from kernels.layout import U8, U32

__all__ = ["WIDTH", "compress_wide", "hash_rows_wide", "load_blocks", "point_rows"]

# Where things stand in a scratch area: offsets in bytes from its address.
KEY: Final = np.uint64(0)
"""8 vectors: the key, the same in all lanes."""
CHAINING: Final = np.uint64(8 * VECTOR_BYTES)
"""8 vectors: chaining values, at last the digests."""
BLOCK: Final = np.uint64(16 * VECTOR_BYTES)
"""16 vectors: the blocks that are compressed next."""
ROWS: Final = np.uint64(32 * VECTOR_BYTES)
"""WIDTH addresses: the rows that are read."""
OUT_ROWS: Final = np.uint64(34 * VECTOR_BYTES)
"""WIDTH addresses: the rows that digests are written to."""
PAD_ROWS: Final = np.uint64(36 * VECTOR_BYTES)
"""WIDTH addresses: of PADS."""
assert SCRATCH_VECTORS >= 38, "the areas above fit"

SINGLE_BLOCK: Final = np.uint64(blake3.CHUNK_START | blake3.CHUNK_END | blake3.ROOT)
"""Flags of a message that is one block."""

_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_QUAD_BYTES: Final = np.uint64(16)
_ADDRESS_BYTES: Final = np.uint64(8)
_VECTOR: Final = np.uint64(VECTOR_BYTES)
_BLOCK: Final = np.uint64(blake3.BLOCK_BYTES)
_DIGEST: Final = np.uint64(blake3.DIGEST_BYTES)
_CHUNK: Final = np.uint64(blake3.CHUNK_BYTES)


@njit(_nrt=False)
def compress_wide(chaining: int, block: int, length: int, flags: int, out: int) -> None:
    """Compress WIDTH blocks of first chunks; see `compress_vectors`. All arguments are uint64."""
    compress_vectors(chaining, block, _ZERO, _ZERO, length, flags, out)


@njit(_nrt=False)
def _compress_chunks(
    chaining: int, block: int, counter: int, step: int, length: int, flags: int, out: int
) -> None:
    """Compress WIDTH blocks of numbered chunks; see `compress_vectors`."""
    compress_vectors(chaining, block, counter, step, length, flags, out)


@leaf
def point_rows(rows: int, base: int, first: int, last: int, stride: int) -> None:
    """Write WIDTH addresses base + i * stride for i from `first`, none beyond `last`, to `rows`."""
    for lane in range(WIDTH):
        i = min(np.uint64(first) + np.uint64(lane), np.uint64(last))
        store_address(rows + np.uint64(lane) * _ADDRESS_BYTES, base + i * stride)


@leaf
def load_blocks(rows: int, offset: int, block: int) -> None:
    """Transpose the 64 bytes at `offset` of WIDTH rows into 16 vectors at `block`."""
    for quad in range(4):
        part = np.uint64(quad)
        load_quads(rows, offset + part * _QUAD_BYTES, block + part * np.uint64(4) * _VECTOR)


@leaf
def _load_tails(area: int, pads: int, offset: int, length: int) -> None:
    """Transpose `length` < 64 bytes at `offset` of WIDTH rows, and zeros, into the block."""
    for lane in range(WIDTH):
        row = load_address(area + ROWS + np.uint64(lane) * _ADDRESS_BYTES)
        copy_padded(row + offset, length, pads + np.uint64(lane) * _BLOCK)
    point_rows(area + PAD_ROWS, pads, _ZERO, np.uint64(WIDTH - 1), _BLOCK)
    load_blocks(area + PAD_ROWS, _ZERO, area + BLOCK)


@leaf
def _hash_chunks(
    area: int, pads: int, length: int, counter: int, step: int, flags: int, root: int
) -> None:
    """Hash the chunks of `length` <= 1024 bytes at ROWS into CHAINING; `root` joins the last."""
    blocks = max(_ONE, (length + _BLOCK - _ONE) // _BLOCK)
    chaining = area + KEY
    for i in range(blocks):
        offset = np.uint64(i) * _BLOCK
        size = min(_BLOCK, length - offset)
        block_flags = flags
        if offset == _ZERO:
            block_flags |= np.uint64(blake3.CHUNK_START)
        if np.uint64(i) + _ONE == blocks:
            block_flags |= np.uint64(blake3.CHUNK_END) | root
        if size == _BLOCK:
            load_blocks(area + ROWS, offset, area + BLOCK)
        else:
            _load_tails(area, pads, offset, size)
        _compress_chunks(chaining, area + BLOCK, counter, step, size, block_flags, area + CHAINING)
        chaining = area + CHAINING


@njit(_nrt=False)
def _hash_parents(area: int, values: U32, chunks: int, flags: int, out: int) -> None:
    """Merge values, (chunks, 8) uint32 with chunks >= 2, in place into the digest at `out`."""
    base = np.uint64(values.ctypes.data)
    count = np.uint64(chunks)
    while count > _ONE:
        pairs = count // np.uint64(2)
        level_flags = flags | np.uint64(blake3.PARENT)
        target = base
        if count == np.uint64(2):
            level_flags |= np.uint64(blake3.ROOT)
            target = out
        # A group writes below the rows that later groups read, and after it has read its own.
        for first in range(_ZERO, pairs, np.uint64(WIDTH)):
            point_rows(area + ROWS, base, first, pairs - _ONE, _BLOCK)
            point_rows(area + OUT_ROWS, target, first, pairs - _ONE, _DIGEST)
            load_blocks(area + ROWS, _ZERO, area + BLOCK)
            compress_wide(area + KEY, area + BLOCK, _BLOCK, level_flags, area + CHAINING)
            store_digests(area + CHAINING, area + OUT_ROWS)
        if count > pairs + pairs:
            for word in range(8):
                values[pairs, word] = values[pairs + pairs, word]
        count -= pairs


@njit(_nrt=False)
def _hash_long_row(
    area: int, pads: int, row: int, length: int, flags: int, values: U32, out: int
) -> None:
    """Hash one row of more than one chunk; values: (chunks, 8) uint32 to work in."""
    base = np.uint64(values.ctypes.data)
    full = length // _CHUNK
    for first in range(_ZERO, full, np.uint64(WIDTH)):
        # Lanes that repeat the last chunk would have the wrong number, and are overwritten:
        # groups that are not full count from their end, and repeat chunks of the group before.
        start = first
        if full >= np.uint64(WIDTH):
            start = min(first, full - np.uint64(WIDTH))
        last = full - _ONE
        point_rows(area + ROWS, row, start, last, _CHUNK)
        point_rows(area + OUT_ROWS, base, start, start + np.uint64(WIDTH - 1), _DIGEST)
        _hash_chunks(area, pads, _CHUNK, start, _ONE, flags, _ZERO)
        store_digests(area + CHAINING, area + OUT_ROWS)
    if length > full * _CHUNK:
        point_rows(area + ROWS, row + full * _CHUNK, _ZERO, _ZERO, _ZERO)
        point_rows(area + OUT_ROWS, base + full * _DIGEST, _ZERO, _ZERO, _ZERO)
        _hash_chunks(area, pads, length - full * _CHUNK, full, _ZERO, flags, _ZERO)
        store_digests(area + CHAINING, area + OUT_ROWS)
    _hash_parents(area, values, (length + _CHUNK - _ONE) // _CHUNK, flags, out)


@njit(_nrt=False)
def _hash_groups(
    rows: U8, key: U32, flags: int, out: U8, start: int, stop: int, pads: U8, values: U32
) -> None:
    """Do `hash_rows_wide` with arrays to work in; the caller's arguments keep all rows alive."""
    area = scratch()
    pad_base = np.uint64(pads.ctypes.data)
    row_base, out_base = np.uint64(rows.ctypes.data), np.uint64(out.ctypes.data)
    length = np.uint64(rows.shape[1])
    mode = np.uint64(flags)
    broadcast(np.uint64(key.ctypes.data), area + KEY)
    if length > _CHUNK:
        for i in range(np.uint64(start), np.uint64(stop)):
            row, target = row_base + i * length, out_base + i * _DIGEST
            _hash_long_row(area, pad_base, row, length, mode, values, target)
        return
    for first in range(np.uint64(start), np.uint64(stop), np.uint64(WIDTH)):
        point_rows(area + ROWS, row_base, first, np.uint64(stop) - _ONE, length)
        point_rows(area + OUT_ROWS, out_base, first, np.uint64(stop) - _ONE, _DIGEST)
        _hash_chunks(area, pad_base, length, _ZERO, _ZERO, mode, np.uint64(blake3.ROOT))
        store_digests(area + CHAINING, area + OUT_ROWS)


@njit
def hash_rows_wide(rows: U8, key: U32, flags: int, out: U8, start: int, stop: int) -> None:
    """Hash rows[start:stop], equal to `blake3.hash_rows_scalar`.

    rows: (n, m) uint8, C-contiguous, read-only, any m >= 0. key: (8,) uint32 of `key_words`,
    read-only. flags: PLAIN, KEYED or DERIVE. out: (n, 32) uint8, C-contiguous.
    """
    pads = np.empty((WIDTH, blake3.BLOCK_BYTES), np.uint8)
    chunks = (rows.shape[1] + blake3.CHUNK_BYTES - 1) // blake3.CHUNK_BYTES
    values = np.empty((chunks + WIDTH, 8), np.uint32)
    _hash_groups(rows, key, flags, out, start, stop, pads, values)
