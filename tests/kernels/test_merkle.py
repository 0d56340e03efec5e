"""The kept tree against the specification's: growth, shrinking, paths, every changed slot."""

import numpy as np
import pytest

from engine import constants
from kernels.layout import ACCOUNT_WORDS, U32, U64
from kernels.merkle import MerkleTree, list_levels, list_path
from kernels.pool import Pool
from spec import oracle

CAPACITY = 5000


def new_tree(*, wide: bool, threads: int) -> MerkleTree:
    """Return an empty tree under the chain's keys."""
    return MerkleTree(
        leaf_key=constants.ACCOUNT_LEAF_KEY,
        node_key=constants.ACCOUNT_NODE_KEY,
        pool=Pool(threads),
        wide=wide,
    )


def oracle_leaves(records: U64, count: int) -> list[bytes]:
    """Return the specification's leaves of the first `count` records."""
    key = oracle.context_key("tos account leaf v1")
    raw = [record.tobytes() for record in records[: count + count % 2]]
    return [oracle.keyed(key, raw[i] + raw[i + 1]) for i in range(0, len(raw), 2)]


def oracle_root(records: U64, count: int) -> bytes:
    """Return the specification's root of the first `count` records."""
    absent = oracle.keyed(oracle.context_key("tos account leaf v1"), bytes(128))
    node_key = oracle.context_key("tos account node v1")
    return bytes(oracle.merkle_root(oracle_leaves(records, count), node_key, absent))


def fill(records: U64, slots: U32, rng: np.random.Generator) -> None:
    """Write random records at slots."""
    records[slots, :6] = rng.integers(0, 2**64, (len(slots), 6), np.uint64)


@pytest.mark.parametrize(("wide", "threads"), [(False, 1), (True, 1), (True, 2)])
def test_building(wide: bool, threads: int, rng: np.random.Generator) -> None:
    """A tree of 0 to 5,000 accounts has the specification's root."""
    records = np.zeros((CAPACITY, ACCOUNT_WORDS), np.uint64)
    tree = new_tree(wide=wide, threads=threads)
    for count in (0, 1, 2, 3, 4, 5, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 4097, 5000):
        records[:] = 0
        fill(records, np.arange(count, dtype=np.uint32), rng)
        tree.build(records, count)
        assert tree.root() == oracle_root(records, count), count


@pytest.mark.parametrize(("wide", "threads"), [(False, 1), (True, 1), (True, 2)])
def test_updates_with_growth_and_back(wide: bool, threads: int, rng: np.random.Generator) -> None:
    """Changing, adding and removing accounts past powers of two keeps the specification's root."""
    records = np.zeros((CAPACITY, ACCOUNT_WORDS), np.uint64)
    tree = new_tree(wide=wide, threads=threads)
    tree.build(records, 0)
    count = 0
    for target in (
        1,
        2,
        3,
        7,
        8,
        9,
        4,
        1,
        0,
        5,
        2049,
        2048,
        2047,
        4100,
        4096,
        1025,
        1024,
        1023,
        4999,
    ):
        changed = rng.integers(0, max(1, min(count, target)), int(rng.integers(0, 60)))
        slots = np.unique(changed[: count * 60]).astype(np.uint32)
        slots = slots[slots < min(count, target)]
        created = np.arange(min(count, target), max(count, target), dtype=np.uint32)
        every = np.concatenate((slots, created))
        if target > count:
            fill(records, every, rng)
        else:
            fill(records, slots, rng)
            records[target:count] = 0
        tree.update(records, every, count, target)
        count = target
        assert tree.root() == oracle_root(records, count), count
    rebuilt = new_tree(wide=wide, threads=threads)
    rebuilt.build(records, count)
    assert rebuilt.root() == tree.root()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 65, 1025])
def test_paths_lead_to_the_root(count: int, rng: np.random.Generator) -> None:
    """The path of each leaf is the specification's and leads to the root; others are refused."""
    records = np.zeros((CAPACITY, ACCOUNT_WORDS), np.uint64)
    fill(records, np.arange(count, dtype=np.uint32), rng)
    tree = new_tree(wide=True, threads=1)
    tree.build(records, count)
    leaves = oracle_leaves(records, count)
    node_key = oracle.context_key("tos account node v1")
    absent = oracle.keyed(oracle.context_key("tos account leaf v1"), bytes(128))
    for index in sorted({0, len(leaves) // 2, len(leaves) - 1}):
        path = tree.path(index)
        assert path == oracle.merkle_path(leaves, index, node_key, absent)
        assert oracle.root_of_path(leaves[index], index, path, node_key) == tree.root()
    with pytest.raises(IndexError):
        tree.path(len(leaves))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 17, 31, 64, 65, 1000])
def test_paths_of_lists(count: int, wide: bool, rng: np.random.Generator) -> None:
    """Out of the levels of a list come its root and the specification's path of each leaf."""
    node_key, absent = oracle.context_key("tos receipt node v1"), b"\x07" * 32
    leaves = rng.integers(0, 256, (count, 32), np.uint8)
    levels = list_levels(leaves, node_key, absent, wide)
    listed = [leaf.tobytes() for leaf in leaves]
    assert levels[0] is leaves
    assert levels[-1].tobytes() == oracle.merkle_root(listed, node_key, absent)
    for index in range(count):
        path = list_path(levels, index, node_key, absent)
        assert path == oracle.merkle_path(listed, index, node_key, absent)


def test_many_changes_at_once(rng: np.random.Generator) -> None:
    """Blocks of changed leaves on two threads give the scalar arm's root."""
    count = 200_000
    records = np.zeros((count, ACCOUNT_WORDS), np.uint64)
    fill(records, np.arange(count, dtype=np.uint32), rng)
    trees = [new_tree(wide=False, threads=1), new_tree(wide=True, threads=2)]
    for tree in trees:
        tree.build(records, count)
    for size in (1, 100, 5000, 60_000):
        slots = np.unique(rng.integers(0, count, size)).astype(np.uint32)
        fill(records, slots, rng)
        for tree in trees:
            tree.update(records, slots, count, count)
        assert trees[0].root() == trees[1].root()
