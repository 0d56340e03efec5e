"""The ledger's state: resident accounts, their tree, and moves between branches.

Undone and redone write sets restore records first; the tree is then hashed once over all slots that
they touched, so a switch several blocks deep costs one update and keeps no tree nodes.
Spec: spec/state_hash.md.
"""

from collections.abc import Sequence

import numpy as np

from engine import constants
from engine.constants import derive_key
from kernels.backend import Backend
from kernels.layout import U8, U64, Changes

_ZERO = bytes(32)


class State:
    """All accounts at one block. One thread writes; `state_hash` describes what was last hashed."""

    def __init__(
        self,
        keys: U8,
        balances: U64,
        nonces: U64 | None = None,
        *,
        backend: Backend,
        capacity: int = 0,
    ) -> None:
        """Open n accounts in slot order. keys: (n, 32) uint8, balances: (n,) uint64."""
        self.supply = sum(int(part) for part in _halves(balances))
        if self.supply > constants.SUPPLY_MAX:
            raise ValueError(f"supply {self.supply} is above {constants.SUPPLY_MAX} base units")
        self.backend = backend
        self.generation = 0
        """rises before records change, so that a reader knows whether it saw one state"""
        self.accounts = backend.open_accounts(
            keys,
            balances,
            np.zeros(len(keys), np.uint64) if nonces is None else nonces,
            leaf_key=constants.ACCOUNT_LEAF_KEY,
            node_key=constants.ACCOUNT_NODE_KEY,
            capacity=capacity,
        )

    @property
    def count(self) -> int:
        """Accounts that exist; slots are [0, count)."""
        return self.accounts.count

    @property
    def resident_bytes(self) -> int:
        """Bytes of the arrays that stay resident."""
        return self.accounts.resident_bytes

    def state_hash(self) -> bytes:
        """Commit to the whole state (spec/state_hash.md#state_hash)."""
        data = constants.STATE_VERSION.to_bytes(4, "little") + bytes(4) + self.accounts.root()
        data += self.count.to_bytes(8, "little") + _ZERO + _ZERO + _ZERO
        data += self.supply.to_bytes(8, "little") + bytes(8)
        return derive_key(constants.STATE_CONTEXT, data)

    def begin_change(self) -> None:
        """Tell readers that the records are about to change."""
        self.generation += 1

    def undo(self, changes: Sequence[Changes]) -> None:
        """Take write sets back, newest first, and hash what they touched once."""
        if changes:
            self.begin_change()
            for item in changes:
                self.accounts.undo(item)
            self._rehash(changes, changes[0].count_after)

    def redo(self, changes: Sequence[Changes]) -> None:
        """Apply write sets again, oldest first, and hash what they touched once."""
        if changes:
            self.begin_change()
            for item in changes:
                self.accounts.redo(item)
            self._rehash(changes, changes[0].count_before)

    def _rehash(self, changes: Sequence[Changes], count_before: int) -> None:
        slots = changes[0].slots  # ascending, each once, as they must be: sorting takes far longer
        if len(changes) > 1:
            slots = np.unique(np.concatenate([item.slots for item in changes]))
        self.accounts.update_tree_slots(slots, count_before, self.count)


def _halves(balances: U64) -> tuple[int, int]:
    """Sum balances without wrapping: low and high halves apart, each below 2^64 for 2^32 rows."""
    low = int(np.sum(balances & np.uint64(0xFFFF_FFFF), dtype=np.uint64))
    return low, int(np.sum(balances >> np.uint64(32), dtype=np.uint64)) << 32
