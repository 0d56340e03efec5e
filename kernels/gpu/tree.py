"""Merkle trees on a device: subtrees hashed level by level in shared memory, many levels a launch.

Of a level with many more nodes than changes only the parents of changed nodes are hashed: the first
changed slot below a node does it. From the first level with at most twice as many nodes as changes
all is hashed, which costs less than finding out whom to leave out: blocks of threads climb from
`TOP` nodes each to their common ancestor, or to the root. A missing sibling is the level's absent
node.
Spec: spec/state_hash.md#tree. Read `kernels.merkle` for the same tree on a CPU.
"""

from typing import Any, Final

import numpy as np
from numba import cuda, types

from kernels import blake3
from kernels.gpu import hashes
from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Arena, Device
from kernels.gpu.grid import THREADS, blocks_for, kernel
from kernels.gpu.hashes import eight, eight_words, hash_pair, put_digest
from kernels.integers import leaf
from kernels.layout import U8, U32
from kernels.merkle import CAPACITY_MIN, LEVELS_MAX, NODE_BYTES, absent_ladder, depth_of
from kernels.merkle_blocks import LEAF_SHIFT, LEAF_WORDS, NODE_WORDS, level_start

TOP: Final = 2 * THREADS
"""Nodes of a level from which one block of threads climbs; a power of two."""
TOP_LEVELS: Final = TOP.bit_length() - 1
"""Levels above them up to one node."""
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
def hash_subtrees(
    below: Any, first: Any, count: Any, levels: Any, ladder: Any, level: Any, nodes: Any,
    capacity: Any, written: Any, key: Any, root: Any,
) -> None:  # fmt: skip
    """Hash `levels` levels above the `count` nodes at row `first` of `below`, TOP_LEVELS at most.

    Each block of threads climbs from TOP nodes. below, nodes: (rows, 8) uint32. What is hashed goes
    to the levels of `nodes` from number `written` on, as `merkle_blocks.level_start` says. ladder:
    (levels, 8) uint32, absent nodes, of the nodes below at `level`. root: (1, 8) uint32, written
    where one block climbs to the root.
    """
    held = cuda.shared.array((THREADS, 8), types.uint32)
    thread = cuda.threadIdx.x
    place = np.int64(cuda.blockIdx.x) * TOP
    first += place
    count = min(count - place, TOP)
    digest = eight(below, first)
    for step in range(levels):
        before, count = count, (count + 1) >> 1
        if thread < count:
            if step == 0:
                digest = parent_digest(below, first, before, thread, ladder[level], key)
            else:
                digest = parent_digest(held, 0, before, thread, ladder[level + step], key)
        cuda.syncthreads()
        place >>= 1
        if thread < count:
            put_digest(held, thread, digest)
            put_digest(nodes, level_start(capacity, written + step) + place + thread, digest)
        cuda.syncthreads()
    if thread == 0 and cuda.gridDim.x == 1:
        put_digest(root, 0, digest)


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
        level, count = 0, self._leaf_count
        while changed is not None and count > TOP and (count + 1) >> 1 > DENSE * changes:
            self._device.launch(
                hash_changed, changes, self._nodes, level_start(self._capacity, level), count,
                level_start(self._capacity, level + 1), changed, level + 1 + LEAF_SHIFT,
                self._keys.ladder[level], self._keys.node_key,
            )  # fmt: skip
            level, count = level + 1, (count + 1) >> 1
        first = level_start(self._capacity, level)
        climb(
            self._device, self._nodes, first, count, self._keys, level, self._nodes,
            self._capacity, level + 1, self._root,
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


def climb(
    device: Device,
    below: DeviceArray,
    first: int,
    count: int,
    keys: TreeKeys,
    level: int,
    nodes: DeviceArray,
    capacity: int,
    written: int,
    root: DeviceArray,
) -> None:
    """Hash everything above a level of `count` nodes; arguments as of `hash_subtrees`."""
    while True:
        levels, blocks = min(depth_of(count), TOP_LEVELS), blocks_for(count, TOP)
        device.launch_blocks(
            hash_subtrees, blocks, below, first, count, levels, keys.ladder, level, nodes, capacity,
            written, keys.node_key, root,
        )  # fmt: skip
        if blocks == 1:
            return
        level, written = level + levels, written + levels
        below, first, count = nodes, level_start(capacity, written - 1), blocks


def list_root(
    device: Device, arena: Arena, leaves: DeviceArray, count: int, keys: TreeKeys
) -> bytes:
    """Return the root over (count >= 1, 8) uint32 leaves on the device, which stay as they are."""
    depth = depth_of(count)
    assert depth < LEVELS_MAX, "positions have 32 bits"
    root = arena.take("list_root", (1, NODE_WORDS), np.uint32)
    capacity = max(1, 1 << depth >> 1)  # of a tree that has the leaves' parents as its leaves
    nodes = arena.take("list_nodes", (2 * capacity, NODE_WORDS), np.uint32)
    climb(device, leaves, 0, count, keys, 0, nodes, capacity, 0, root)
    digest: U8 = device.fetch(root)
    return digest.tobytes()
