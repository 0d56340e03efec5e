"""BLAKE3, one message at a time: the body that every other hash of the project is compared with.

Ordinary compiled functions over small arrays, so that a device kernel can call them for one item
per thread. The bytes are those of the BLAKE3 specification in its three modes, for messages of any
length, with 32-byte digests. Read `blake3_wide` next for many messages side by side.
Spec: spec/README.md#hashing.
"""

from typing import Any, Final

import numpy as np

from kernels.jit import njit
from kernels.layout import U8, U32

PLAIN: Final = 0
"""Mode of `hash_row` with the key words of None: the ordinary hash."""
KEYED: Final = 16
"""Mode with the words of a 32-byte key."""
DERIVE: Final = 64
"""Mode with the words of `context_key`: derives from data under a context string."""

CHUNK_START: Final = 1
CHUNK_END: Final = 2
PARENT: Final = 4
ROOT: Final = 8
DERIVE_CONTEXT: Final = 32

BLOCK_BYTES: Final = 64
CHUNK_BYTES: Final = 1024
DIGEST_BYTES: Final = 32
LEVELS_MAX: Final = 54
"""Levels of the largest chunk tree: messages end below 2^64 bytes, chunks hold 2^10."""

INITIAL_WORDS: Final = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
ROUNDS: Final = 7
PERMUTATION: Final = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
"""Where each word of the next round's message stands in this round's."""

_IV0, _IV1, _IV2, _IV3 = (np.uint32(word) for word in INITIAL_WORDS[:4])


def key_words(key: bytes | None) -> U32:
    """Return the (8,) uint32 words of a 32-byte key, read-only; None gives those of no key."""
    if key is None:
        words = np.array(INITIAL_WORDS, np.uint32)
    else:
        if len(key) != DIGEST_BYTES:
            raise ValueError(f"a BLAKE3 key has {DIGEST_BYTES} bytes, not {len(key)}")
        words = np.frombuffer(key, "<u4").astype(np.uint32)
    words.flags.writeable = False
    return words


def context_key(context: str) -> bytes:
    """Return the 32 bytes whose `key_words` the mode DERIVE takes for a context string."""
    message = np.frombuffer(context.encode(), np.uint8)
    out = np.empty(DIGEST_BYTES, np.uint8)
    hash_row(message, key_words(None), DERIVE_CONTEXT, out)
    return out.tobytes()


@njit
def _mix(a: Any, b: Any, c: Any, d: Any, x: Any, y: Any) -> Any:
    """Mix two message words into a column or diagonal of four state words."""
    a = np.uint32(a + b + x)
    d = np.uint32(d ^ a)
    d = np.uint32((d >> np.uint32(16)) | (d << np.uint32(16)))
    c = np.uint32(c + d)
    b = np.uint32(b ^ c)
    b = np.uint32((b >> np.uint32(12)) | (b << np.uint32(20)))
    a = np.uint32(a + b + y)
    d = np.uint32(d ^ a)
    d = np.uint32((d >> np.uint32(8)) | (d << np.uint32(24)))
    c = np.uint32(c + d)
    b = np.uint32(b ^ c)
    b = np.uint32((b >> np.uint32(7)) | (b << np.uint32(25)))
    return a, b, c, d


@njit
def _round(v: Any, m: Any) -> Any:
    """Mix 16 message words into the 16 state words: four columns, then four diagonals."""
    v0, v4, v8, v12 = _mix(v[0], v[4], v[8], v[12], m[0], m[1])
    v1, v5, v9, v13 = _mix(v[1], v[5], v[9], v[13], m[2], m[3])
    v2, v6, v10, v14 = _mix(v[2], v[6], v[10], v[14], m[4], m[5])
    v3, v7, v11, v15 = _mix(v[3], v[7], v[11], v[15], m[6], m[7])
    v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[8], m[9])
    v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[10], m[11])
    v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[12], m[13])
    v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[14], m[15])
    return v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15


@njit
def _permute(m: Any) -> Any:
    """Reorder 16 message words for the next round, as PERMUTATION says."""
    return (
        m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13],
        m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8],
    )  # fmt: skip


@njit
def compress_words(c: Any, m: Any, low: Any, high: Any, length: Any, flags: Any) -> Any:
    """Return f(c, m), cut to 8 words, from words that stand in registers: no array is touched.

    c: 8 and m: 16 uint32 in tuples; low, high: halves of the chunk's number; length, flags: as in
    `compress`; all uint32. Kernels of a device call this, so that nothing has to lie in memory; on
    a CPU the form over arrays is faster.
    """
    v = (
        c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7],
        _IV0, _IV1, _IV2, _IV3, low, high, length, flags,
    )  # fmt: skip
    v = _round(v, m)
    for _ in range(ROUNDS - 1):
        m = _permute(m)
        v = _round(v, m)
    return (
        np.uint32(v[0] ^ v[8]), np.uint32(v[1] ^ v[9]), np.uint32(v[2] ^ v[10]),
        np.uint32(v[3] ^ v[11]), np.uint32(v[4] ^ v[12]), np.uint32(v[5] ^ v[13]),
        np.uint32(v[6] ^ v[14]), np.uint32(v[7] ^ v[15]),
    )  # fmt: skip


@njit
def compress(chaining: U32, block: U32, counter: int, length: int, flags: int, out: U32) -> None:
    """Compress one block: out = f(chaining, block), cut to 8 words. `out` may be `chaining`.

    chaining: (8,) uint32. block: (16,) uint32. counter: uint64, number of the chunk.
    length: uint32, bytes of the block in [0, 64]. flags: uint32. out: (8,) uint32.
    """
    m = (
        block[0], block[1], block[2], block[3], block[4], block[5], block[6], block[7],
        block[8], block[9], block[10], block[11], block[12], block[13], block[14], block[15],
    )  # fmt: skip
    low = np.uint32(np.uint64(counter))
    high = np.uint32(np.uint64(counter) >> np.uint64(32))
    v = (
        chaining[0], chaining[1], chaining[2], chaining[3],
        chaining[4], chaining[5], chaining[6], chaining[7],
        _IV0, _IV1, _IV2, _IV3, low, high, np.uint32(length), np.uint32(flags),
    )  # fmt: skip
    v = _round(v, m)
    for _ in range(ROUNDS - 1):
        m = _permute(m)
        v = _round(v, m)
    for i in range(8):
        out[i] = np.uint32(v[i] ^ v[i + 8])


@njit
def load_words(message: U8, start: int, words: U32) -> None:
    """Fill words, (k,) uint32, with the 4 * k little-endian bytes of message from `start`."""
    for i in range(words.size):
        byte = start + 4 * i
        words[i] = np.uint32(
            np.uint32(message[byte])
            | (np.uint32(message[byte + 1]) << np.uint32(8))
            | (np.uint32(message[byte + 2]) << np.uint32(16))
            | (np.uint32(message[byte + 3]) << np.uint32(24))
        )


@njit
def _load_tail(message: U8, start: int, stop: int, block: U32) -> None:
    """Fill block, (16,) uint32, with message[start:stop], less than 64 bytes, and zeros."""
    block[:] = 0
    for byte in range(stop - start):
        value = np.uint32(message[start + byte]) << np.uint32(8 * (byte % 4))
        block[byte // 4] = np.uint32(block[byte // 4] | value)


@njit
def store_digest(words: U32, out: U8) -> None:
    """Write words, (8,) uint32, as 32 little-endian bytes to out, (32,) uint8."""
    for i in range(8):
        for byte in range(4):
            out[4 * i + byte] = np.uint8((words[i] >> np.uint32(8 * byte)) & np.uint32(0xFF))


@njit
def _hash_chunk(
    message: U8, start: int, stop: int, key: U32, flags: int, block: U32, chaining: U32
) -> None:
    """Compress message[start:stop], a chunk of at most 1024 bytes, into `chaining`, (8,)."""
    chaining[:] = key
    number = start // CHUNK_BYTES
    blocks = max(1, (stop - start + BLOCK_BYTES - 1) // BLOCK_BYTES)
    for i in range(blocks):
        first = start + i * BLOCK_BYTES
        last = min(first + BLOCK_BYTES, stop)
        block_flags = flags
        if i == 0:
            block_flags |= CHUNK_START
        if i == blocks - 1:
            block_flags |= CHUNK_END
            if start == 0 and stop == message.size:
                block_flags |= ROOT
        if last - first == BLOCK_BYTES:
            load_words(message, first, block)
        else:
            _load_tail(message, first, last, block)
        compress(chaining, block, number, last - first, block_flags, chaining)


@njit
def hash_row(message: U8, key: U32, flags: int, out: U8) -> None:
    """Hash one message.

    message: (m,) uint8, read-only, any m >= 0. key: (8,) uint32 of `key_words`, read-only.
    flags: PLAIN, KEYED or DERIVE. out: (32,) uint8.
    """
    block = np.empty(16, np.uint32)
    chaining = np.empty(8, np.uint32)
    # Chaining values of complete subtrees, the largest first, as bits of the number of chunks.
    stack = np.empty((LEVELS_MAX + 1, 8), np.uint32)
    chunks = max(1, (message.size + CHUNK_BYTES - 1) // CHUNK_BYTES)
    depth = 0
    for number in range(chunks):
        start = number * CHUNK_BYTES
        _hash_chunk(
            message, start, min(start + CHUNK_BYTES, message.size), key, flags, block, chaining
        )
        complete = number + 1
        last = complete == chunks
        # A subtree closes when its last chunk is in; at the end all that is left closes.
        while depth > 0 and (last or complete & 1 == 0):
            depth -= 1
            block[:8] = stack[depth]
            block[8:] = chaining
            root = ROOT if last and depth == 0 else 0
            compress(key, block, 0, BLOCK_BYTES, flags | PARENT | root, chaining)
            complete >>= 1
        stack[depth] = chaining
        depth += 1
    store_digest(chaining, out)


@njit
def hash_rows_scalar(rows: U8, key: U32, flags: int, out: U8, start: int, stop: int) -> None:
    """Hash rows[start:stop] one after another.

    rows: (n, m) uint8, read-only. key, flags: as in `hash_row`. out: (n, 32) uint8.
    """
    for i in range(start, stop):
        hash_row(rows[i], key, flags, out[i])
