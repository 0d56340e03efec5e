"""Merkle trees on a device: levels hashed one after the other, the uppermost ones in one launch.

Of a level with many more nodes than changes only the parents of changed nodes are hashed: the first
changed slot below a node does it. A level with at most twice as many nodes as changes is hashed
whole, which costs less than finding out whom to leave out. From `TOP` nodes on one block of threads
climbs to the root in shared memory. A missing sibling is the level's absent node.
Spec: spec/state_hash.md#tree. Read `kernels.merkle` for the same tree on a CPU.
"""

from typing import Any, Final

import numpy as np
from numba import cuda, types

from kernels import blake3
from kernels.gpu import hashes
from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Arena, Device
from kernels.gpu.grid import THREADS, kernel
from kernels.gpu.hashes import eight, eight_words, hash_pair, put_digest
from kernels.integers import leaf
from kernels.layout import U8, U32
from kernels.merkle import CAPACITY_MIN, LEVELS_MAX, NODE_BYTES, absent_ladder, depth_of
from kernels.merkle_blocks import LEAF_SHIFT, LEAF_WORDS, NODE_WORDS, level_start

TOP: Final = 2 * THREADS
"""Nodes of the highest level that is not hashed in shared memory."""
DENSE: Final = 2
"""A level of at most so many nodes per change is hashed whole."""


@leaf
def parent_digest(nodes: Any, child: Any, count: Any, node: Any, absent: Any, key: Any) -> Any:
    """Return the hash of a parent from its children in a level of `count` nodes at row `child`."""
    left = eight(nodes, child + 2 * node)
    right = eight_words(absent)
    if 2 * node + 1 < count:
        right = eight(nodes, child + 2 * node + 1)
    return hash_pair(eight_words(key), left, right)


@kernel
def hash_level(
    nodes: Any, child: Any, count: Any, parents: Any, parent: Any, absent: Any, key: Any
) -> None:
    """Hash all parents of the `count` nodes at row `child` into rows of `parents` from `parent`.

    nodes, parents: (rows, 8) uint32; absent: (8,) uint32, the absent node of the children's level.
    """
    node = cuda.grid(1)
    if 2 * node < count:
        digest = parent_digest(nodes, child, count, node, absent, key)
        put_digest(parents, parent + node, digest)


@kernel
def hash_changed(
    nodes: Any, child: Any, count: Any, parent: Any, changed: Any, shift: Any, absent: Any, key: Any
) -> None:
    """Hash the parents that stand above `changed`, (m,) uint32 slots; parent = slot >> shift."""
    i = cuda.grid(1)
    if i < changed.shape[0]:
        node = np.int64(changed[i]) >> shift
        if i == 0 or np.int64(changed[i - 1]) >> shift != node:
            digest = parent_digest(nodes, child, count, node, absent, key)
            put_digest(nodes, parent + node, digest)


@kernel
def hash_top(
    nodes: Any, capacity: Any, level: Any, count: Any, depth: Any, ladder: Any, key: Any, root: Any
) -> None:
    """Hash from level `level`, of `count` <= TOP nodes, up to the root, by one block of threads.

    nodes: (2 * capacity, 8) uint32, levels as `merkle_blocks.level_start` says; ladder: (levels, 8)
    uint32, absent nodes; root: (1, 8) uint32.
    """
    below = cuda.shared.array((TOP, 8), types.uint32)
    thread = cuda.threadIdx.x
    start = level_start(capacity, level)
    for node in range(thread, count, THREADS):
        put_digest(below, node, eight(nodes, start + node))
    cuda.syncthreads()
    while level < depth:
        parents = (count + 1) >> 1
        digest = eight(below, 0)
        if thread < parents:
            digest = parent_digest(below, 0, count, thread, ladder[level], key)
        cuda.syncthreads()
        level += 1
        count = parents
        if thread < parents:
            put_digest(below, thread, digest)
            put_digest(nodes, level_start(capacity, level) + thread, digest)
        cuda.syncthreads()
    if thread == 0:
        put_digest(root, 0, eight(below, 0))


class TreeKeys:
    """The keys of a kind of tree, and its absent nodes, on the device."""

    def __init__(self, device: Device, *, node_key: bytes, absent: bytes) -> None:
        """Take 32 bytes each."""
        self.ladder_rows: U32 = absent_ladder(absent, node_key, False)
        """(LEVELS_MAX, 8) uint32, leaves first; on the host"""
        self.ladder = device.put(self.ladder_rows)
        self.node_key = device.put(blake3.key_words(node_key))


def absent_leaf(leaf_key: bytes) -> bytes:
    """Return the leaf of two missing records."""
    out = np.empty((1, NODE_BYTES), np.uint8)
    pair = np.zeros((1, 4 * LEAF_WORDS), np.uint8)
    pair.flags.writeable = False
    blake3.hash_rows_scalar(pair, blake3.key_words(leaf_key), blake3.KEYED, out, 0, 1)
    return out.tobytes()


def leaves_of(count: int) -> int:
    """Return the leaves of `count` accounts: two to a leaf, at least one."""
    return max(1, (count + 1) >> LEAF_SHIFT)


class DeviceTree:
    """The tree over the records of accounts, kept on the device."""

    def __init__(self, device: Device, *, leaf_key: bytes, node_key: bytes, leaves: int) -> None:
        """Make room for `leaves`; `build` comes next."""
        self._device = device
        self._leaf_key = device.put(blake3.key_words(leaf_key))
        self._keys = TreeKeys(device, node_key=node_key, absent=absent_leaf(leaf_key))
        self._root = device.array((1, NODE_WORDS), np.uint32)
        self._capacity = max(CAPACITY_MIN, 1 << depth_of(leaves))
        self._nodes = device.array((2 * self._capacity, NODE_WORDS), np.uint32)
        self._leaf_count = 1
        self._fetched: tuple[U32, Any] | None = None
        """the root on its way to the host, and the event behind its copy; None before the first"""

    def root(self) -> bytes:
        """Return the root, 32 bytes, of the last `build` or `update`; waits until it is here."""
        assert self._fetched is not None, "the tree was built"
        rows, event = self._fetched
        self._device.wait_for(event)
        return rows.tobytes()

    def path(self, leaf_index: int) -> list[bytes]:
        """Return the siblings of a leaf and of its ancestors, the leaf's own first."""
        if not 0 <= leaf_index < self._leaf_count:
            raise IndexError(f"leaf {leaf_index} of {self._leaf_count}")
        siblings = []
        for level in range(depth_of(self._leaf_count)):
            sibling = (leaf_index >> level) ^ 1
            if sibling < -(-self._leaf_count >> level):
                row = level_start(self._capacity, level) + sibling
                siblings.append(self._device.fetch(self._nodes[row : row + 1]).tobytes())
            else:
                siblings.append(self._keys.ladder_rows[level].tobytes())
        return siblings

    def build(self, records: DeviceArray, count: int) -> None:
        """Hash everything: records (capacity, 8) uint64 on the device, zero from `count` on."""
        self._resize(leaves_of(count))
        self._device.launch(
            hashes.hash_all_leaves, self._leaf_count, records, self._leaf_count, self._nodes,
            self._leaf_key,
        )  # fmt: skip
        self._climb(None, 2 * self._leaf_count)

    def update(
        self, records: DeviceArray, changed: DeviceArray, count_before: int, count_after: int
    ) -> None:
        """Hash again what lies above `changed`, (m,) uint32 slots on the device, ascending.

        All slots are below count_after, and the last account is among them if the count differs.
        """
        assert self._leaf_count == leaves_of(count_before), "the tree is that of count_before"
        self._resize(leaves_of(count_after))
        count = len(changed)
        if not count and count_before == count_after:
            return
        self._device.launch(
            hashes.hash_leaves, count, records, changed, self._nodes, self._leaf_key
        )
        self._climb(changed, count)

    def _climb(self, changed: DeviceArray | None, changes: int) -> None:
        """Hash all levels above the leaves; `changed` None: every node of them."""
        level, count, depth = 0, self._leaf_count, depth_of(self._leaf_count)
        while count > TOP:
            child = level_start(self._capacity, level)
            parent = level_start(self._capacity, level + 1)
            absent, key = self._keys.ladder[level], self._keys.node_key
            parents = -(-count >> 1)
            if changed is None or parents <= DENSE * changes:
                self._device.launch(
                    hash_level, parents, self._nodes, child, count, self._nodes, parent, absent, key
                )
            else:
                self._device.launch(
                    hash_changed, changes, self._nodes, child, count, parent, changed,
                    level + 1 + LEAF_SHIFT, absent, key,
                )  # fmt: skip
            level, count = level + 1, parents
        self._device.launch_blocks(
            hash_top, 1, self._nodes, self._capacity, level, count, depth, self._keys.ladder,
            self._keys.node_key, self._root,
        )  # fmt: skip
        self._fetched = self._device.begin_fetch(self._root), self._device.mark()

    def _resize(self, leaf_count: int) -> None:
        """Set the number of leaves; more than there is room for move into larger arrays."""
        if leaf_count > self._capacity:
            capacity = 1 << depth_of(leaf_count)
            nodes = self._device.array((2 * capacity, NODE_WORDS), np.uint32)
            for level in range(depth_of(self._leaf_count) + 1):
                used = -(-self._leaf_count >> level)
                start, old = level_start(capacity, level), level_start(self._capacity, level)
                self._device.copy_within(self._nodes[old : old + used], nodes[start : start + used])
            self._nodes, self._capacity = nodes, capacity
        self._leaf_count = leaf_count


def list_root(
    device: Device, arena: Arena, leaves: DeviceArray, count: int, keys: TreeKeys
) -> bytes:
    """Return the root over (count >= 1, 8) uint32 leaves on the device, which stay as they are."""
    assert depth_of(count) < LEVELS_MAX, "positions have 32 bits"
    root = arena.take("list_root", (1, NODE_WORDS), np.uint32)
    level, depth = 0, depth_of(count)
    while count > TOP:
        parents = -(-count >> 1)
        above = arena.take(f"list_level_{level & 1}", (parents, NODE_WORDS), np.uint32)
        device.launch(
            hash_level, parents, leaves, 0, count, above, 0, keys.ladder[level], keys.node_key
        )
        leaves, count, level = above, parents, level + 1
    # The last levels are written nowhere but to the root: `top` has room for them.
    top = arena.take("list_top", (2 * TOP, NODE_WORDS), np.uint32)
    device.copy_within(leaves[:count], top[:count])
    device.launch_blocks(
        hash_top, 1, top, TOP, 0, count, depth - level, keys.ladder[level:], keys.node_key, root
    )
    digest: U8 = device.fetch(root)
    return digest.tobytes()
