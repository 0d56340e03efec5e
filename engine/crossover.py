"""From how many transactions on a block is faster on one backend than on another, measured.

A made-up block runs through everything but signatures on both, is taken back, and runs again. The
answer is a setting (`device_crossover`); no result depends on it.
"""

import statistics
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from engine import constants
from kernels.backend import Accounts, Backend
from kernels.layout import NO_DEFECT, U8, Columns, Rules

SIZES: Final = (128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 65_536)
"""Transactions of the blocks that are measured."""
ACCOUNTS: Final = 2 * SIZES[-1]
REPEATS: Final = 5
BALANCE: Final = 1 << 20
RULES: Final = Rules(chain_id=1, height=1, fee_minimum=1, account_minimum=1, accounts_max=1 << 31)

ClockNs = Callable[[], int]


def crossover(
    small: Backend,
    large: Backend,
    *,
    sizes: tuple[int, ...] = SIZES,
    clock_ns: ClockNs = time.perf_counter_ns,
) -> int | None:
    """Return the least size from which on `large` is faster for every size, or None."""
    keys = np.zeros((ACCOUNTS, 32), np.uint8)
    keys[:, :8] = np.arange(ACCOUNTS, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    times = []
    for backend in (small, large):
        resident = backend.open_accounts(
            keys,
            np.full(ACCOUNTS, BALANCE, np.uint64),
            np.zeros(ACCOUNTS, np.uint64),
            leaf_key=constants.ACCOUNT_LEAF_KEY,
            node_key=constants.ACCOUNT_NODE_KEY,
        )
        times.append([_block_ns(backend, resident, keys, size, clock_ns) for size in sizes])
    found = None
    for size, one, other in list(zip(sizes, *times, strict=True))[::-1]:
        if other >= one:
            break
        found = size
    return found


def _block_ns(backend: Backend, resident: Accounts, keys: U8, size: int, clock_ns: ClockNs) -> int:
    """Return the median time of a block of `size` transfers; the first run is not counted."""
    columns = _transfers(keys, size)
    lane_offsets = np.arange(size + 1, dtype=np.int32)
    taken = []
    for _ in range(REPEATS + 1):
        start = clock_ns()
        senders, recipients = resident.find_parties(columns, lane_offsets)
        walk = resident.walk(columns, lane_offsets, senders, recipients, RULES)
        assert walk.defect == NO_DEFECT, "every made-up transfer may be included"
        hashes = backend.hash_transactions(columns)
        changes = resident.settle(
            columns, lane_offsets, senders, recipients, walk, keys[0].tobytes(), RULES
        )
        assert changes is not None, "the made-up block creates no account"
        leaves = backend.hash_receipts(
            hashes, walk.statuses, columns.kind, columns.fee, constants.RECEIPT_LEAF_KEY
        )
        backend.list_root(leaves, constants.RECEIPT_NODE_KEY, bytes(32))
        resident.update_tree(changes)
        resident.root()
        taken.append(clock_ns() - start)
        resident.undo(changes)
        resident.update_tree_slots(changes.slots, changes.count_after, changes.count_before)
    return int(statistics.median_low(taken[1:]))


def _transfers(keys: U8, size: int) -> Columns:
    """Return one transfer from each of the first accounts to another one, read-only."""
    ones = np.ones(size, np.uint64)
    columns = Columns(
        version=np.ones(size, np.uint8),
        kind=np.zeros(size, np.uint8),
        chain_id=np.full(size, RULES.chain_id, np.uint32),
        nonce=np.zeros(size, np.uint64),
        valid_until=ones,
        amount=ones.copy(),
        fee=ones.copy(),
        memo=np.zeros((size, 16), np.uint8),
        sender=keys[:size].copy(),
        recipient=keys[-size:].copy(),
        signature=np.zeros((size, 64), np.uint8),
    )
    for column in columns:
        column.flags.writeable = False
    return columns
