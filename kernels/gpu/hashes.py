"""BLAKE3 on a device: one thread per message, all of it in registers.

Words come from columns of uint64, two at a time, and go through `blake3.compress_words`, the rounds
of the CPU's body. Digests are rows of eight uint32. Longer messages than a chunk stay on the CPU.
Spec: spec/README.md#hashing, spec/transaction.md#hash, spec/receipts.md.
"""

from typing import Any, Final

import numpy as np
from numba import cuda

from kernels import blake3
from kernels.blake3 import compress_words
from kernels.gpu.grid import kernel
from kernels.integers import leaf

_IV = tuple(np.uint32(word) for word in blake3.INITIAL_WORDS)
_NONE = np.uint32(0)
_BLOCK: Final = np.uint32(blake3.BLOCK_BYTES)
_START: Final = np.uint32(blake3.CHUNK_START)
_END: Final = np.uint32(blake3.CHUNK_END | blake3.ROOT)
_LAST: Final = np.uint32(blake3.CHUNK_END)
_KEYED: Final = np.uint32(blake3.KEYED)
_SINGLE: Final = np.uint32(blake3.CHUNK_START | blake3.CHUNK_END | blake3.ROOT | blake3.KEYED)
_ROOT: Final = np.uint32(blake3.ROOT)
_HALF = np.uint64(32)


@leaf
def low(word: Any) -> Any:
    """Return the lower half of a uint64 as uint32."""
    return np.uint32(word & np.uint64(0xFFFF_FFFF))


@leaf
def high(word: Any) -> Any:
    """Return the upper half of a uint64 as uint32."""
    return np.uint32(word >> _HALF)


@leaf
def quad(rows: Any, i: Any) -> Any:
    """Return a row of four uint64, 32 bytes, as eight uint32."""
    a, b, c, d = rows[i, 0], rows[i, 1], rows[i, 2], rows[i, 3]
    return low(a), high(a), low(b), high(b), low(c), high(c), low(d), high(d)


@leaf
def upper_quad(rows: Any, i: Any) -> Any:
    """Return the words 4 to 7 of a row of eight uint64 as eight uint32."""
    a, b, c, d = rows[i, 4], rows[i, 5], rows[i, 6], rows[i, 7]
    return low(a), high(a), low(b), high(b), low(c), high(c), low(d), high(d)


@leaf
def eight(rows: Any, i: Any) -> Any:
    """Return a row of eight uint32."""
    return (
        rows[i, 0], rows[i, 1], rows[i, 2], rows[i, 3],
        rows[i, 4], rows[i, 5], rows[i, 6], rows[i, 7],
    )  # fmt: skip


@leaf
def eight_words(words: Any) -> Any:
    """Return eight uint32 of one array."""
    return words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7]


@leaf
def put_digest(out: Any, i: Any, digest: Any) -> None:
    """Write eight uint32 to row i of out, (n, 8) uint32."""
    out[i, 0], out[i, 1], out[i, 2], out[i, 3] = digest[0], digest[1], digest[2], digest[3]
    out[i, 4], out[i, 5], out[i, 6], out[i, 7] = digest[4], digest[5], digest[6], digest[7]


@leaf
def hash_pair(key: Any, left: Any, right: Any) -> Any:
    """Return the keyed hash of 64 bytes: a node of a tree, from its two children."""
    return compress_words(key, left + right, _NONE, _NONE, _BLOCK, _SINGLE)


@kernel
def hash_transactions(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    memo: Any, sender: Any, recipient: Any, signature: Any, out: Any,
) -> None:  # fmt: skip
    """Hash each transaction from its columns; out: (n, 8) uint32.

    memo: (n, 2), sender, recipient: (n, 4), signature: (n, 8) uint64; others as in `Columns`.
    """
    i = cuda.grid(1)
    if i < out.shape[0]:
        first = np.uint32(version[i]) | np.uint32(np.uint32(kind[i]) << np.uint32(8))
        numbers = (
            np.uint32(first), chain_id[i], low(nonce[i]), high(nonce[i]),
            low(valid_until[i]), high(valid_until[i]), low(amount[i]), high(amount[i]),
        )  # fmt: skip
        rest = (
            low(fee[i]), high(fee[i]), _NONE, _NONE,
            low(memo[i, 0]), high(memo[i, 0]), low(memo[i, 1]), high(memo[i, 1]),
        )  # fmt: skip
        value = compress_words(_IV, numbers + rest, _NONE, _NONE, _BLOCK, _START)
        addresses = quad(sender, i) + quad(recipient, i)
        value = compress_words(value, addresses, _NONE, _NONE, _BLOCK, _NONE)
        signed = quad(signature, i) + upper_quad(signature, i)
        put_digest(out, i, compress_words(value, signed, _NONE, _NONE, _BLOCK, _END))


@kernel
def hash_receipts(hashes: Any, statuses: Any, kinds: Any, fees: Any, key: Any, out: Any) -> None:
    """Hash each receipt; hashes, out: (n, 8) uint32, key: (8,) uint32, others as on the CPU."""
    i = cuda.grid(1)
    if i < out.shape[0]:
        codes = np.uint32(statuses[i]) | np.uint32(np.uint32(kinds[i]) << np.uint32(8))
        rest = (
            np.uint32(codes), _NONE, _NONE, _NONE, low(fees[i]), high(fees[i]), _NONE, _NONE,
        )  # fmt: skip
        put_digest(out, i, hash_pair(eight_words(key), eight(hashes, i), rest))


@leaf
def word_at(rows: Any, i: Any, place: Any) -> Any:
    """Return four bytes of a message from `place` on as uint32; beyond its end are zeros."""
    word = _NONE
    size = rows.shape[1]
    for byte in range(4):
        if place + byte < size:
            word |= np.uint32(np.uint32(rows[i, place + byte]) << np.uint32(8 * byte))
    return np.uint32(word)


@leaf
def words_at(rows: Any, i: Any, place: Any) -> Any:
    """Return 32 bytes of a message from `place` on as eight uint32."""
    return (
        word_at(rows, i, place), word_at(rows, i, place + 4),
        word_at(rows, i, place + 8), word_at(rows, i, place + 12),
        word_at(rows, i, place + 16), word_at(rows, i, place + 20),
        word_at(rows, i, place + 24), word_at(rows, i, place + 28),
    )  # fmt: skip


@kernel
def hash_messages(rows: Any, out: Any) -> None:
    """Hash each row of (n, m <= 1024) uint8; out: (n, 8) uint32."""
    i = cuda.grid(1)
    if i < out.shape[0]:
        size = rows.shape[1]
        blocks = max(1, (size + blake3.BLOCK_BYTES - 1) // blake3.BLOCK_BYTES)
        value = _IV
        for block in range(blocks):
            place = block * blake3.BLOCK_BYTES
            words = words_at(rows, i, place) + words_at(rows, i, place + 32)
            flags = _START if block == 0 else _NONE
            if block == blocks - 1:
                flags = np.uint32(flags | _END)
            length = np.uint32(min(blake3.BLOCK_BYTES, size - place))
            value = compress_words(value, words, _NONE, _NONE, length, flags)
        put_digest(out, i, value)


@kernel
def hash_leaves(records: Any, changed: Any, nodes: Any, key: Any) -> None:
    """Hash again the leaves that hold `changed`, (m,) uint32 slots, ascending.

    The first of the slots in a leaf does it. records: (capacity, 8) uint64, two to a leaf; nodes:
    (rows, 8) uint32, level 0 first.
    """
    i = cuda.grid(1)
    if i < changed.shape[0]:
        leaf_index = np.int64(changed[i]) >> 1
        if i == 0 or np.int64(changed[i - 1]) >> 1 != leaf_index:
            hash_leaf(records, leaf_index, nodes, key)


@leaf
def hash_leaf(records: Any, leaf_index: Any, nodes: Any, key: Any) -> None:
    """Hash two records, 128 bytes, into a node of level 0."""
    even, odd = 2 * leaf_index, 2 * leaf_index + 1
    words = quad(records, even) + upper_quad(records, even)
    value = compress_words(
        eight_words(key), words, _NONE, _NONE, _BLOCK, np.uint32(_START | _KEYED)
    )
    words = quad(records, odd) + upper_quad(records, odd)
    flags = np.uint32(_LAST | _ROOT | _KEYED)
    put_digest(nodes, leaf_index, compress_words(value, words, _NONE, _NONE, _BLOCK, flags))


@kernel
def hash_all_leaves(records: Any, count: Any, nodes: Any, key: Any) -> None:
    """Hash the leaves [0, count)."""
    i = cuda.grid(1)
    if i < count:
        hash_leaf(records, i, nodes, key)
