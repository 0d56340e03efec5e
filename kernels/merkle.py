"""Merkle trees: the dense tree over all accounts, which is kept, and roots of lists, which are not.

Both follow one rule: ceil(log2(leaves)) levels, node = keyed hash of its two children, and beyond
the last leaf stands an absent leaf, whose ancestors form a ladder of absent nodes. The state tree
is dense by account slot, so growing or shrinking by an account touches one path.
Spec: spec/state_hash.md#tree. Read `merkle_blocks` for the bodies.
"""

import itertools
from functools import lru_cache
from typing import Final

import numpy as np

from kernels import blake3, blake3_wide, memory, merkle_blocks
from kernels.layout import ACCOUNT_WORDS, U8, U32, U64
from kernels.pool import Pool

LEVELS_MAX: Final = 33
"""Levels of a tree of 2^32 leaves, the most that 32-bit positions allow."""
BLOCK_LEAVES: Final = 512
"""Leaves of a block that are hashed together; their nodes fit the second-level cache."""
BLOCKS_PER_THREAD: Final = 4
"""Blocks that each thread should get at least, so that they end at about the same time."""
GRAIN: Final = 1024
"""Leaves below which a second thread costs more than it brings."""
CAPACITY_MIN: Final = 1024
"""Leaves of the smallest state tree that is allocated; a power of two."""
NODE_BYTES: Final = 32
assert CAPACITY_MIN & (CAPACITY_MIN - 1) == 0, "levels are halves of each other"


def depth_of(leaves: int) -> int:
    """Return the levels above the leaves of a tree: ceil(log2(max(1, leaves)))."""
    return (max(1, leaves) - 1).bit_length()


@lru_cache(maxsize=64)
def absent_ladder(absent: bytes, node_key: bytes, wide: bool) -> U32:
    """Return the absent nodes of all levels, (LEVELS_MAX, 8) uint32, read-only, leaves first."""
    key = blake3.key_words(node_key)
    ladder = np.empty((LEVELS_MAX, NODE_BYTES), np.uint8)
    ladder[0] = np.frombuffer(absent, np.uint8)
    for level in range(1, LEVELS_MAX):
        pair = np.concatenate((ladder[level - 1], ladder[level - 1])).reshape(1, -1)
        _hash_rows(pair, key, ladder[level : level + 1], wide)
    ladder.flags.writeable = False
    return ladder.view(np.uint32)


def _hash_rows(rows: U8, key: U32, out: U8, wide: bool) -> None:
    """Hash rows in keyed mode on the calling thread."""
    rows.flags.writeable = False
    kernel = blake3_wide.hash_rows_wide if wide else blake3.hash_rows_scalar
    kernel(rows, key, blake3.KEYED, out, 0, len(rows))


def list_root(leaves: U8, node_key: bytes, absent: bytes, pool: Pool, wide: bool) -> bytes:
    """Return the 32-byte root over a list of leaves, in order.

    leaves: (n, 32) uint8, C-contiguous. node_key, absent: 32 bytes. Without leaves the root is
    `absent`; with one it is that leaf.
    """
    if leaves.ndim != 2 or leaves.shape[1] != NODE_BYTES or leaves.dtype != np.uint8:
        raise ValueError(f"leaves must be (n, 32) uint8, not {leaves.shape} {leaves.dtype}")
    if len(leaves) == 0:
        return absent
    key = blake3.key_words(node_key)
    ladder = absent_ladder(absent, node_key, wide)
    nodes = np.ascontiguousarray(leaves).view(np.uint32)
    while len(nodes) > 1:
        height = min(depth_of(len(nodes)), depth_of(BLOCK_LEAVES))
        blocks = -(-len(nodes) >> height)
        roots = np.empty((blocks, NODE_BYTES // 4), np.uint32)
        nodes.flags.writeable = False
        ranges = pool.ranges(blocks, grain=max(1, GRAIN >> height))
        pool.run(merkle_blocks.reduce_blocks, ranges, nodes, height, ladder, key, wide, roots)
        nodes, ladder = roots, ladder[height:]
    return nodes.tobytes()


def list_levels(leaves: U8, node_key: bytes, absent: bytes, wide: bool) -> list[U8]:
    """Return all levels of the tree of `list_root`, (n, 32) uint8 each: leaves first, root last.

    On the calling thread alone. leaves: (n, 32) uint8, n >= 1, C-contiguous.
    """
    assert len(leaves) >= 1, "there is a root"
    key = blake3.key_words(node_key)
    ladder = absent_ladder(absent, node_key, wide).view(np.uint8)
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        if len(below) & 1:
            level = len(levels) - 1
            below = np.concatenate((below, ladder[level : level + 1]))
        above = np.empty((len(below) // 2, NODE_BYTES), np.uint8)
        _hash_rows(below.reshape(len(above), 2 * NODE_BYTES), key, above, wide)
        levels.append(above)
    return levels


def list_path(levels: list[U8], position: int, node_key: bytes, absent: bytes) -> list[bytes]:
    """Return the siblings of a leaf and of its ancestors, the leaf's own first.

    levels: of `list_levels` with the same key and absent leaf.
    """
    assert 0 <= position < len(levels[0]), (position, len(levels[0]))
    ladder = absent_ladder(absent, node_key, False)
    siblings = []
    for level, nodes in enumerate(levels[:-1]):
        sibling = (position >> level) ^ 1
        node = nodes[sibling] if sibling < len(nodes) else ladder[level]
        siblings.append(node.tobytes())
    return siblings


class MerkleTree:
    """The tree over account records: two accounts to a leaf, all levels dense and kept.

    Level k stands in `nodes` from row 2C - 2C / 2^k on, where C is the capacity in leaves: 32 bytes
    per account in the levels that are used, and memory is taken when it is first written.
    """

    def __init__(self, *, leaf_key: bytes, node_key: bytes, pool: Pool, wide: bool) -> None:
        """Make the tree of no accounts. leaf_key, node_key: 32 bytes."""
        self._leaf_key = blake3.key_words(leaf_key)
        self._node_key = blake3.key_words(node_key)
        self._pool = pool
        self._wide = wide
        absent = np.empty((1, NODE_BYTES), np.uint8)
        record_pair = np.zeros((1, 4 * merkle_blocks.LEAF_WORDS), np.uint8)
        _hash_rows(record_pair, self._leaf_key, absent, wide)
        self._ladder = absent_ladder(absent.tobytes(), node_key, wide)
        self._clear()

    def _clear(self) -> None:
        self._capacity = CAPACITY_MIN
        self._nodes: U32 = memory.zeros((2 * CAPACITY_MIN, NODE_BYTES // 4), np.uint32)
        self._leaf_count = 1
        self._leaf_count_highest = 1
        self._nodes[0] = self._ladder[0]

    @property
    def resident_bytes(self) -> int:
        """Bytes of all nodes that were ever written."""
        levels = range(depth_of(self._leaf_count_highest) + 1)
        return sum(NODE_BYTES * -(-self._leaf_count_highest >> level) for level in levels)

    def root(self) -> bytes:
        """Return the 32 bytes of the root."""
        return self._row(depth_of(self._leaf_count), 0).tobytes()

    def path(self, leaf_index: int) -> list[bytes]:
        """Return the siblings of a leaf and of its ancestors, the leaf's own first."""
        if not 0 <= leaf_index < self._leaf_count:
            raise IndexError(f"leaf {leaf_index} of {self._leaf_count}")
        siblings = []
        for level in range(depth_of(self._leaf_count)):
            # The sibling of a last node that has none is the absent node, which stands there.
            siblings.append(self._row(level, (leaf_index >> level) ^ 1).tobytes())
        return siblings

    def build(self, records: U64, count: int) -> None:
        """Hash all accounts anew. records: (capacity, 8) uint64, even capacity; zero from count."""
        leaves = _leaf_rows(records, count)
        self._clear()
        self._resize(_leaves_of(count))
        depth = depth_of(self._leaf_count)
        height = min(depth, depth_of(BLOCK_LEAVES))
        blocks = -(-self._leaf_count >> height)
        ranges = self._pool.ranges(blocks, grain=max(1, GRAIN >> height))
        self._pool.run(
            merkle_blocks.build_blocks, ranges, leaves, self._nodes, self._capacity, height,
            self._leaf_count, self._leaf_key, self._node_key, self._wide,
        )  # fmt: skip
        self._climb(np.arange(blocks, dtype=np.uint32), height)

    def update(self, records: U64, slots: U32, count_before: int, count_after: int) -> None:
        """Rehash the paths of changed accounts.

        records: (capacity, 8) uint64, even capacity, already changed; zero from count_after on.
        slots: (m,) uint32, ascending, unique: all changed, created and removed accounts.
        """
        assert self._leaf_count == _leaves_of(count_before), "the tree is that of count_before"
        leaves = _leaf_rows(records, count_after)
        if count_after < count_before:
            # The last leaf's path lost siblings even where no account on it changed.
            kept = slots[: np.searchsorted(slots, np.uint32(max(0, count_after - 1)))]
            slots = np.append(kept, np.uint32(max(0, count_after - 1)))
        elif len(slots) == 0:
            return
        assert count_after <= count_before or slots[-1] == count_after - 1, "all created are listed"
        self._resize(_leaves_of(count_after))
        depth = depth_of(self._leaf_count)
        height = self._block_height(len(slots), depth)
        roots = np.empty(len(slots), np.uint32)
        slots = slots.view()
        slots.flags.writeable = False
        ranges = self._aligned_ranges(slots, height + merkle_blocks.LEAF_SHIFT)
        written = self._pool.run(
            merkle_blocks.update_blocks, ranges, leaves, self._nodes, self._capacity, height,
            slots, self._leaf_key, self._node_key, self._wide, roots,
        )  # fmt: skip
        parts = [roots[start : start + n] for (start, _), n in zip(ranges, written, strict=True)]
        self._climb(np.concatenate(parts), height)

    def _row(self, level: int, node: int) -> U32:
        row: U32 = self._nodes[2 * self._capacity - (2 * self._capacity >> level) + node]
        return row

    def _climb(self, roots: U32, height: int) -> None:
        """Rehash the levels above the blocks whose numbers are in `roots`."""
        depth = depth_of(self._leaf_count)
        merkle_blocks.climb(
            self._nodes,
            self._capacity,
            roots,
            len(roots),
            height,
            depth,
            self._node_key,
            self._wide,
        )

    def _block_height(self, changes: int, depth: int) -> int:
        """Return how high blocks must be for about BLOCK_LEAVES changes each."""
        blocks = max(changes // BLOCK_LEAVES, BLOCKS_PER_THREAD * self._pool.threads)
        return max(0, depth - depth_of(blocks))

    def _aligned_ranges(self, slots: U32, shift: int) -> list[tuple[int, int]]:
        """Cut slots into a range per thread, none of which cuts a block of 2^shift slots."""
        cuts = [0]
        for _, stop in self._pool.ranges(len(slots), grain=GRAIN)[:-1]:
            boundary = (int(slots[stop]) >> shift) << shift
            cuts.append(max(cuts[-1], int(np.searchsorted(slots, np.uint32(boundary)))))
        cuts.append(len(slots))
        return list(itertools.pairwise(cuts))

    def _resize(self, leaf_count: int) -> None:
        """Set the number of leaves, and the absent nodes behind the last node of each level."""
        if leaf_count > self._capacity:
            self._grow(1 << depth_of(leaf_count))
        self._leaf_count = leaf_count
        self._leaf_count_highest = max(self._leaf_count_highest, leaf_count)
        for level in range(depth_of(leaf_count)):
            nodes = -(-leaf_count >> level)
            if nodes & 1:
                self._row(level, nodes)[:] = self._ladder[level]

    def _grow(self, capacity: int) -> None:
        """Move all levels into arrays for `capacity` leaves."""
        nodes: U32 = memory.zeros((2 * capacity, NODE_BYTES // 4), np.uint32)
        for level in range(depth_of(self._leaf_count) + 1):
            used = -(-self._leaf_count >> level)
            start = 2 * capacity - (2 * capacity >> level)
            old = 2 * self._capacity - (2 * self._capacity >> level)
            nodes[start : start + used] = self._nodes[old : old + used]
        self._nodes = nodes
        self._capacity = capacity


def _leaves_of(count: int) -> int:
    """Return the leaves of `count` accounts: two to a leaf, at least one."""
    return max(1, (count + 1) >> merkle_blocks.LEAF_SHIFT)


def _leaf_rows(records: U64, count: int) -> U32:
    """View records as (leaves, 32) uint32, read-only."""
    assert records.shape[1] == ACCOUNT_WORDS, "records have eight words"
    assert records.dtype == np.uint64, "records are words of 64 bits"
    assert len(records) >= max(2, count), "all accounts have a record"
    assert len(records) % 2 == 0, "leaves hold two records"
    leaves: U32 = records.view(np.uint32).reshape(-1, merkle_blocks.LEAF_WORDS)
    leaves.flags.writeable = False
    return leaves
