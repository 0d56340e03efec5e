"""Bodies of the Merkle trees: nodes level by level within blocks that fit a core's cache.

A block is an aligned subtree of 2^height leaves. Everything below its root needs no other block, so
each thread takes a range of blocks and does all their lower levels in one call; what remains above
the blocks' roots is small. Wide forms hash WIDTH nodes side by side and ask ahead for cold lines.

Where a level has an odd number of nodes, the row behind its last node holds the absent node of that
level: nobody needs to ask whether a sibling exists. Read `merkle` for the owner of these arrays.
Spec: spec/state_hash.md#tree.
"""

from typing import Final

import numpy as np

from kernels import blake3
from kernels.blake3_vectors import (
    WIDTH,
    broadcast,
    prefetch,
    prefetch_write,
    scratch,
    store_address,
    store_digests,
)
from kernels.blake3_wide import (
    BLOCK,
    CHAINING,
    KEY,
    OUT_ROWS,
    ROWS,
    SINGLE_BLOCK,
    compress_wide,
    load_blocks,
)
from kernels.integers import leaf
from kernels.jit import njit
from kernels.layout import U32

LEAF_WORDS: Final = 32
"""32-bit words of a state leaf: the records of two accounts."""
LEAF_SHIFT: Final = 1
"""Slots to leaves: leaf = slot >> LEAF_SHIFT."""
NODE_WORDS: Final = 8

NODE_FLAGS: Final = int(SINGLE_BLOCK) | blake3.KEYED
LEAF_START_FLAGS: Final = blake3.CHUNK_START | blake3.KEYED
LEAF_END_FLAGS: Final = blake3.CHUNK_END | blake3.ROOT | blake3.KEYED

AHEAD: Final = 2 * WIDTH
"""Nodes between the one asked for and the one hashed: about the time of a memory access."""

_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_ADDRESS_BYTES: Final = np.uint64(8)
_NODE: Final = np.uint64(32)
_PAIR: Final = np.uint64(64)
_LEAF: Final = np.uint64(128)
_WIDE_NODE: Final = np.uint64(NODE_FLAGS)
_WIDE_START: Final = np.uint64(LEAF_START_FLAGS)
_WIDE_END: Final = np.uint64(LEAF_END_FLAGS)


@leaf
def level_start(capacity: int, level: int) -> int:
    """Return the row of the first node of a level, of 2 * capacity rows for all levels."""
    return 2 * capacity - ((2 * capacity) >> level)


@leaf
def take_leaves(slots: U32, first: int, stop: int, shift: int, leaves: U32) -> tuple[int, int]:
    """List the leaves, without repetition, of slots[first:] that lie in the block of the first.

    A block is 2^shift slots. Returns how many leaves were written, and the next slot's position.
    """
    block = slots[first] >> np.uint32(shift)
    count = 0
    i = first
    while i < stop and slots[i] >> np.uint32(shift) == block:
        leaf = slots[i] >> np.uint32(LEAF_SHIFT)
        if count == 0 or leaves[count - 1] != leaf:
            leaves[count] = leaf
            count += 1
        i += 1
    return count, i


@leaf
def halve(changed: U32, count: int) -> int:
    """Replace ascending nodes by their parents, without repetition; returns their number."""
    parents = 0
    for i in range(count):
        parent = changed[i] >> np.uint32(1)
        if parents == 0 or changed[parents - 1] != parent:
            changed[parents] = parent
            parents += 1
    return parents


@njit
def hash_nodes_scalar(
    nodes: U32, child: int, parent: int, changed: U32, count: int, key: U32
) -> None:
    """Hash changed[:count] of the level at row `parent` from their children at row `child`."""
    for i in range(count):
        node = np.int64(changed[i])
        pair = nodes[child + 2 * node : child + 2 * node + 2].reshape(2 * NODE_WORDS)
        blake3.compress(key, pair, 0, blake3.BLOCK_BYTES, NODE_FLAGS, nodes[parent + node])


@njit
def hash_leaves_scalar(leaves: U32, nodes: U32, changed: U32, count: int, key: U32) -> None:
    """Hash leaves changed[:count], 128 bytes each, into level 0."""
    for i in range(count):
        leaf = np.int64(changed[i])
        half = LEAF_WORDS // 2
        digest = nodes[leaf]
        blake3.compress(key, leaves[leaf, :half], 0, blake3.BLOCK_BYTES, LEAF_START_FLAGS, digest)
        blake3.compress(digest, leaves[leaf, half:], 0, blake3.BLOCK_BYTES, LEAF_END_FLAGS, digest)


@leaf
def _point_changed(
    area: int, changed: U32, first: int, count: int, source: int, size: int, target: int
) -> None:
    """Point ROWS at source + node * size and OUT_ROWS at target + node * 32, for one group."""
    for lane in range(WIDTH):
        node = np.uint64(changed[min(first + lane, count - 1)])
        place = area + np.uint64(lane) * _ADDRESS_BYTES
        store_address(place + ROWS, source + node * size)
        store_address(place + OUT_ROWS, target + node * _NODE)


@njit(_nrt=False)
def hash_nodes_wide(
    nodes: U32, child: int, parent: int, changed: U32, count: int, key: U32
) -> None:
    """Do `hash_nodes_scalar` for WIDTH nodes at a time."""
    area = scratch()
    broadcast(np.uint64(key.ctypes.data), area + KEY)
    base = np.uint64(nodes.ctypes.data)
    source = base + np.uint64(child) * _NODE
    target = base + np.uint64(parent) * _NODE
    for first in range(0, count, WIDTH):
        for i in range(first + AHEAD, min(first + AHEAD + WIDTH, count)):
            prefetch_write(target + np.uint64(changed[i]) * _NODE)
        _point_changed(area, changed, first, count, source, _PAIR, target)
        load_blocks(area + ROWS, _ZERO, area + BLOCK)
        compress_wide(area + KEY, area + BLOCK, _PAIR, _WIDE_NODE, area + CHAINING)
        store_digests(area + CHAINING, area + OUT_ROWS)


@leaf
def _prefetch_leaf(source: int, target: int, leaf: int) -> None:
    """Ask for the two lines of a leaf, and for the line where its digest goes."""
    prefetch(source + leaf * _LEAF)
    prefetch(source + leaf * _LEAF + _PAIR)
    prefetch_write(target + leaf * _NODE)


@njit(_nrt=False)
def hash_leaves_wide(leaves: U32, nodes: U32, changed: U32, count: int, key: U32) -> None:
    """Do `hash_leaves_scalar` for WIDTH leaves at a time."""
    area = scratch()
    broadcast(np.uint64(key.ctypes.data), area + KEY)
    source, target = np.uint64(leaves.ctypes.data), np.uint64(nodes.ctypes.data)
    block, chaining = area + BLOCK, area + CHAINING
    for first in range(0, count, WIDTH):
        for i in range(first + AHEAD, min(first + AHEAD + WIDTH, count)):
            _prefetch_leaf(source, target, np.uint64(changed[i]))
        _point_changed(area, changed, first, count, source, _LEAF, target)
        load_blocks(area + ROWS, _ZERO, block)
        compress_wide(area + KEY, block, _PAIR, _WIDE_START, chaining)
        load_blocks(area + ROWS, _PAIR, block)
        compress_wide(chaining, block, _PAIR, _WIDE_END, chaining)
        store_digests(chaining, area + OUT_ROWS)


@leaf
def prefetch_leaves(leaves: U32, nodes: U32, slots: U32, first: int, stop: int) -> None:
    """Ask for the leaves with which the next block begins."""
    source, target = np.uint64(leaves.ctypes.data), np.uint64(nodes.ctypes.data)
    for i in range(first, min(first + AHEAD, stop)):
        _prefetch_leaf(source, target, np.uint64(slots[i] >> np.uint32(LEAF_SHIFT)))


@njit
def climb(
    nodes: U32, capacity: int, changed: U32, count: int, low: int, high: int, key: U32, wide: bool
) -> int:
    """Rehash the ancestors of changed[:count], nodes of level `low`, up to level `high`.

    changed: (m,) uint32, ascending; is replaced by the nodes of level `high`, whose number is
    returned.
    """
    for level in range(low, high):
        count = halve(changed, count)
        child, parent = level_start(capacity, level), level_start(capacity, level + 1)
        if wide:
            hash_nodes_wide(nodes, child, parent, changed, count, key)
        else:
            hash_nodes_scalar(nodes, child, parent, changed, count, key)
    return count


@njit
def update_blocks(
    leaves: U32, nodes: U32, capacity: int, height: int, slots: U32, leaf_key: U32, node_key: U32,
    wide: bool, roots: U32, start: int, stop: int,
) -> int:  # fmt: skip
    """Rehash what slots[start:stop] changed, up to the roots of their blocks.

    leaves: (leaf_capacity, 32) uint32, records of two accounts each. nodes: (2 * capacity, 8)
    uint32. slots: (m,) uint32, ascending, unique; [start, stop) cuts no block. roots: (m,) uint32;
    from `start` on it takes the blocks' numbers, whose number is returned.
    """
    shift = height + LEAF_SHIFT
    changed = np.empty(min(1 << height, max(1, stop - start)), np.uint32)
    done = 0
    i = start
    while i < stop:
        roots[start + done] = slots[i] >> np.uint32(shift)
        done += 1
        count, i = take_leaves(slots, i, stop, shift, changed)
        if wide:
            hash_leaves_wide(leaves, nodes, changed, count, leaf_key)
            prefetch_leaves(leaves, nodes, slots, i, stop)
        else:
            hash_leaves_scalar(leaves, nodes, changed, count, leaf_key)
        climb(nodes, capacity, changed, count, 0, height, node_key, wide)
    return done


@njit
def build_blocks(
    leaves: U32, nodes: U32, capacity: int, height: int, leaf_count: int, leaf_key: U32,
    node_key: U32, wide: bool, start: int, stop: int,
) -> None:  # fmt: skip
    """Hash all of the blocks [start, stop), up to their roots; arrays as in `update_blocks`."""
    changed = np.empty(1 << height, np.uint32)
    for block in range(start, stop):
        first = block << height
        count = min(1 << height, leaf_count - first)
        for i in range(count):
            changed[i] = np.uint32(first + i)
        if wide:
            hash_leaves_wide(leaves, nodes, changed, count, leaf_key)
        else:
            hash_leaves_scalar(leaves, nodes, changed, count, leaf_key)
        climb(nodes, capacity, changed, count, 0, height, node_key, wide)


@njit
def reduce_blocks(
    leaves: U32, height: int, ladder: U32, key: U32, wide: bool, out: U32, start: int, stop: int
) -> None:
    """Write the roots of the blocks [start, stop) of a list to out, (blocks, 8) uint32.

    leaves: (n, 8) uint32, read-only. ladder: (levels, 8) uint32: the absent nodes from the leaves'
    level upwards.
    """
    # Level k of a block stands from row level_start(2^height, k) on, as in the state tree.
    capacity = 1 << height
    work = np.empty((2 * capacity, NODE_WORDS), np.uint32)
    changed = np.empty(capacity, np.uint32)
    for block in range(start, stop):
        first = block << height
        count = min(capacity, len(leaves) - first)
        work[:count] = leaves[first : first + count]
        for level in range(height):
            child, parent = level_start(capacity, level), level_start(capacity, level + 1)
            if count & 1:
                work[child + count] = ladder[level]
            count = (count + 1) >> 1
            for i in range(count):
                changed[i] = np.uint32(i)
            if wide:
                hash_nodes_wide(work, child, parent, changed, count, key)
            else:
                hash_nodes_scalar(work, child, parent, changed, count, key)
        out[block] = work[level_start(capacity, height)]
