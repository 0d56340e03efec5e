"""The host's flat copy of the accounts of a device: behind it by write sets that are under way.

Queries and re-checks read here. Write sets are applied on a thread of their own, so that a block
does not wait for them unless too many are under way; whoever reads or writes waits until all that
were handed over are in. The copy has no tree until the device is given up.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final

from kernels.host_accounts import HostAccounts
from kernels.layout import U32, U64, Changes
from kernels.merkle import MerkleTree

FOLLOWING_MAX: Final = 8
"""Write sets that are under way at a time; each keeps its block's arrays in locked memory."""


class LateTree:
    """A tree on the host that is hashed when it is first needed; implements `StateTree`."""

    def __init__(self, make: Callable[[], MerkleTree]) -> None:
        """make: returns an empty tree."""
        self._make = make
        self._tree: MerkleTree | None = None
        self._is_wanted = False

    @property
    def resident_bytes(self) -> int:
        """See StateTree.resident_bytes."""
        return 0 if self._tree is None else self._tree.resident_bytes

    def want(self) -> None:
        """Take over: the next update, or `settle_at`, hashes everything."""
        self._is_wanted = True

    def settle_at(self, records: U64, count: int) -> None:
        """Hash everything unless that was done since `want`."""
        if self._tree is None:
            self._tree = self._make()
            self._tree.build(records, count)

    def root_of(self, records: U64, count: int) -> bytes:
        """Return the root of records by a tree that is thrown away."""
        tree = self._make()
        tree.build(records, count)
        return tree.root()

    def build(self, records: U64, count: int) -> None:
        """See StateTree.build; nothing while nobody wants the tree."""
        if self._is_wanted:
            self.settle_at(records, count)

    def update(self, records: U64, slots: U32, count_before: int, count_after: int) -> None:
        """See StateTree.update; the first one hashes everything."""
        if self._tree is not None:
            self._tree.update(records, slots, count_before, count_after)
        elif self._is_wanted:
            self.settle_at(records, count_after)

    def root(self) -> bytes:
        """See StateTree.root."""
        assert self._tree is not None, "the tree was wanted and settled"
        return self._tree.root()

    def path(self, leaf_index: int) -> list[bytes]:
        """See StateTree.path."""
        assert self._tree is not None, "the tree was wanted and settled"
        return self._tree.path(leaf_index)


class Mirror:
    """Accounts on the host that follow those of a device."""

    def __init__(self, accounts: HostAccounts, tree: LateTree) -> None:
        """Follow from `accounts`, whose tree is `tree`."""
        self._accounts = accounts
        self.tree = tree
        self._thread = ThreadPoolExecutor(1, "mirror")
        self._following: deque[Future[None]] = deque(maxlen=FOLLOWING_MAX)
        """the last ones that were handed over, in order"""
        self._lock = threading.Lock()

    def follow(self, move: Callable[[Changes], None], changes: Changes) -> None:
        """Apply `move`, HostAccounts.redo or undo of `now`, after all that came before.

        Waits while FOLLOWING_MAX are under way.
        """
        with self._lock:
            before = self._following[-1] if self._following else None
            if len(self._following) == FOLLOWING_MAX:
                wait([self._following[0]])
            self._following.append(self._thread.submit(_in_order, before, move, changes))

    @property
    def now(self) -> HostAccounts:
        """Return the accounts with everything applied that was handed over."""
        with self._lock:
            last = self._following[-1] if self._following else None
        if last is not None:
            last.result()
        return self._accounts

    @property
    def later(self) -> HostAccounts:
        """Return the accounts without waiting: for their bound methods only, see `follow`."""
        return self._accounts

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def _in_order(before: Future[None] | None, move: Any, changes: Changes) -> None:
    """Apply a write set unless an earlier one failed: then the copy is of no use."""
    if before is not None:
        before.result()
    move(changes)
