"""The tree on the device in the simulator: growth, shrinking, paths, sparse and dense levels."""

import numpy as np
import pytest

from engine import constants
from kernels.gpu.device import Device
from kernels.gpu.tree import DeviceTree
from kernels.layout import ACCOUNT_WORDS, U64
from spec import oracle
from tests.kernels.gpu.simulated.arms import device
from tests.kernels.test_merkle import fill, oracle_leaves, oracle_root

__all__ = ["device"]

CAPACITY = 200


def new_tree(device: Device) -> DeviceTree:
    """Return a tree under the chain's keys."""
    return DeviceTree(
        device,
        leaf_key=constants.ACCOUNT_LEAF_KEY,
        node_key=constants.ACCOUNT_NODE_KEY,
        leaves=4,
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 32, 33, 65, 130])
def test_building(device: Device, rng: np.random.Generator, count: int) -> None:
    """A tree of few and of many accounts has the specification's root and paths."""
    records = np.zeros((CAPACITY, ACCOUNT_WORDS), np.uint64)
    fill(records, np.arange(count, dtype=np.uint32), rng)
    tree = new_tree(device)
    tree.build(device.put(records), count)
    assert tree.root() == oracle_root(records, count)
    if not count:
        return
    leaves = oracle_leaves(records, count)
    node_key = oracle.context_key("tos account node v1")
    absent = oracle.keyed(oracle.context_key("tos account leaf v1"), bytes(128))
    for index in sorted({0, len(leaves) // 2, len(leaves) - 1}):
        path = tree.path(index)
        assert path == oracle.merkle_path(leaves, index, node_key, absent)
    with pytest.raises(IndexError):
        tree.path(len(leaves))


def test_updates_with_growth_and_back(device: Device, rng: np.random.Generator) -> None:
    """Changing few or many accounts, adding and removing some keeps the specification's root."""
    records: U64 = np.zeros((CAPACITY, ACCOUNT_WORDS), np.uint64)
    tree = new_tree(device)
    tree.build(device.put(records), 0)
    count = 0
    for target in (1, 3, 1, 0, 70, 70, 65, 64, 33, 130, 130, 2):
        kept = min(count, target)
        drawn = rng.integers(0, max(1, kept), int(rng.integers(1, 4))).astype(np.uint32)
        slots = np.unique(drawn[drawn < kept])
        slots = np.concatenate((slots, np.arange(kept, target, dtype=np.uint32)))
        fill(records, slots, rng)
        records[target:] = 0
        if target < count:
            last = np.uint32(max(0, target - 1))
            slots = np.append(slots[slots < last], last)
        tree.update(device.put(records), device.put(slots), count, target)
        count = target
        assert tree.root() == oracle_root(records, count), count
