"""Accounts of the backend `gpu`: on the device while it can be trusted, on the host always.

Each method does its work on the device and, where the device fails, does the same work on the host
copy (`mirror`), which stands at the same state: what one method hands to the next are host arrays,
so a block goes on whole in the middle; lanes' balances alone stay on the device, and a host that
has to settle walks again. From then on the host does everything. Small batches are
executed on the host and their write sets applied on the device. Of every n-th block each step is
also done on the host and compared; a difference gives the device up, and the host's result counts.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from kernels.gpu.failures import DeviceDiffers, DeviceFailed
from kernels.gpu.guard import Guard
from kernels.gpu.mirror import Mirror
from kernels.gpu.resident import DeviceAccounts
from kernels.host_accounts import HostAccounts
from kernels.layout import I32, U8, U32, U64, Changes, Columns, Rules, Walk

Result = TypeVar("Result")


class GuardedAccounts:
    """Implements `kernels.backend.Accounts`. One thread writes; others may read meanwhile."""

    def __init__(
        self, guard: Guard, mirror: Mirror, device: DeviceAccounts | None, *, crossover: int
    ) -> None:
        """Begin with equal states. crossover: transactions from which a block pays there."""
        self._guard = guard
        self._mirror = mirror
        self._device = device
        self._crossover = crossover
        self._is_sampled = False
        self.count = mirror.now.count
        self.supply = mirror.now.supply
        if device is None:
            self._take_over()

    # Readers, on any thread

    @property
    def records(self) -> U64:
        """(capacity, 8) uint64: the records; all zero from `count` on."""
        return self._mirror.now.records

    @property
    def resident_bytes(self) -> int:
        """Memory of the host's copy and of the device."""
        device = self._guard.device
        taken = 0 if device is None else device.bytes_taken
        return self._mirror.now.resident_bytes + taken

    def lookup(self, keys: U8) -> U32:
        """See HostAccounts.lookup."""
        return self._mirror.now.lookup(keys)

    def read(self, slots: U32) -> tuple[U8, U64, U64]:
        """See HostAccounts.read."""
        return self._mirror.now.read(slots)

    # A block

    def find_parties(self, columns: Columns, lane_offsets: I32) -> tuple[U32, U32]:
        """See HostAccounts.find_parties; a block begins here."""
        if self._device is not None and self._guard.device is None:  # given up elsewhere
            self._device = None
            self._take_over()
        is_large = len(columns.amount) >= self._crossover
        self._is_sampled = is_large and self._guard.is_due("blocks")
        return self._either(
            is_large,
            lambda there: there.find_parties(columns, lane_offsets),
            lambda here: here.find_parties(columns, lane_offsets),
            "the slots of a block's accounts",
        )

    def walk(
        self,
        columns: Columns,
        lane_offsets: I32,
        sender_slots: U32,
        recipient_slots: U32,
        rules: Rules,
    ) -> Walk:
        """See HostAccounts.walk."""
        given = (columns, lane_offsets, sender_slots, recipient_slots, rules)
        return self._either(
            len(columns.amount) >= self._crossover,
            lambda there: there.walk(*given, is_whole=self._is_sampled),
            lambda here: here.walk(*given),
            "what a block's lanes come to",
        )

    def settle(
        self,
        columns: Columns,
        lane_offsets: I32,
        sender_slots: U32,
        recipient_slots: U32,
        walk: Walk,
        fee_recipient: bytes,
        rules: Rules,
    ) -> Changes | None:
        """See HostAccounts.settle."""
        given = (columns, lane_offsets, sender_slots, recipient_slots, walk, fee_recipient, rules)
        if self._device is not None and len(columns.amount) >= self._crossover:
            settle = self._settle_both if self._is_sampled else self._settle_there
            changes = settle(*given)
        else:
            changes = self._settle_here(*given)
            if changes is not None:
                self._apply(changes)
        if changes is not None:
            self.count = changes.count_after
        return changes

    def update_tree(self, changes: Changes) -> None:
        """See HostAccounts.update_tree."""
        self.update_tree_slots(changes.slots, changes.count_before, changes.count_after)

    def update_tree_slots(self, slots: U32, count_before: int, count_after: int) -> None:
        """See HostAccounts.update_tree_slots."""
        if self._device is not None:
            try:
                with self._guard.lock:
                    self._device.update_tree_slots(slots, count_before, count_after)
                if self._is_sampled:
                    self._check_root()
                    self._is_sampled = False
                return
            except DeviceFailed as error:
                self._give_up(error)
        self._mirror.now.update_tree_slots(slots, count_before, count_after)

    def root(self) -> bytes:
        """See HostAccounts.root."""
        if self._device is not None:
            try:
                with self._guard.lock:
                    return self._device.root()
            except DeviceFailed as error:
                self._give_up(error)
        return self._settled().root()

    def proof(self, slot: int) -> tuple[bytes, list[bytes]]:
        """See HostAccounts.proof."""
        assert 0 <= slot < self.count, slot
        if self._device is not None:
            leaf = slot >> 1
            try:
                with self._guard.lock:
                    path = self._device.path(leaf)
                return self._mirror.now.records[2 * leaf : 2 * leaf + 2].tobytes(), path
            except DeviceFailed as error:
                self._give_up(error)
        return self._settled().proof(slot)

    def undo(self, changes: Changes) -> None:
        """See HostAccounts.undo."""
        assert self.count == changes.count_after, "changes are undone in reverse order"
        if self._device is not None:
            try:
                with self._guard.lock:
                    self._device.undo(changes)
            except DeviceFailed as error:
                self._give_up(error)
        self._mirror.follow(self._mirror.later.undo, changes)
        self.count = changes.count_before

    def redo(self, changes: Changes) -> None:
        """See HostAccounts.redo."""
        assert self.count == changes.count_before, "changes are redone on the state before them"
        self._apply(changes)
        self._mirror.follow(self._mirror.later.redo, changes)
        self.count = changes.count_after

    # Parts

    def _either(
        self,
        is_large: bool,
        there: Callable[[DeviceAccounts], Result],
        here: Callable[[HostAccounts], Result],
        what: str,
    ) -> Result:
        """Do a piece of work that writes nothing: on the device, on the host, or on both."""
        if self._device is None or not is_large:
            return here(self._mirror.now)
        try:
            with self._guard.lock:
                result = there(self._device)
        except DeviceFailed as error:
            self._give_up(error)
            return here(self._mirror.now)
        if self._is_sampled:
            expected = here(self._mirror.now)
            if not is_equal(result, expected):
                self._give_up(DeviceDiffers(f"{what} differ from the CPU's"))
                return expected
        return result

    def _settle_here(self, *given: Any) -> Changes | None:
        """Settle on the host, which walks again where the lanes' arrays went with a device."""
        now = self._mirror.now
        *walked, walk, fee_recipient, rules = given
        _, _, sender_slots, _ = walked
        if len(walk.sender_balances) != len(sender_slots):
            walk = now.walk(*walked, rules)
        return now.settle(*walked, walk, fee_recipient, rules)

    def _settle_there(self, *given: Any) -> Changes | None:
        """Settle on the device; the host's copy follows."""
        assert self._device is not None, "the device was there"
        try:
            with self._guard.lock:
                changes = self._device.settle(*given)
        except DeviceFailed as error:
            self._give_up(error)
            return self._settle_here(*given)
        if changes is not None:
            self._mirror.follow(self._mirror.later.redo, changes)
        return changes

    def _settle_both(self, *given: Any) -> Changes | None:
        """Settle on both and compare; the host's write set counts."""
        assert self._device is not None, "the device was there"
        result = None
        try:
            with self._guard.lock:
                result = self._device.settle(*given)
        except DeviceFailed as error:
            self._give_up(error)
        expected = self._settle_here(*given)
        if self._device is not None and not is_equal(result, expected):
            self._give_up(DeviceDiffers("a block's write set differs from the CPU's"))
        return expected if self._device is None else result

    def _apply(self, changes: Changes) -> None:
        """Bring the device to the state after changes that the host made."""
        if self._device is not None:
            try:
                with self._guard.lock:
                    self._device.redo(changes)
            except DeviceFailed as error:
                self._give_up(error)

    def _check_root(self) -> None:
        """Hash the host's records anew and compare; raises DeviceDiffers."""
        assert self._device is not None, "the device was there"
        now = self._mirror.now
        with self._guard.lock:
            root = self._device.root()
        if root != self._mirror.tree.root_of(now.records, now.count):
            raise DeviceDiffers("a root over the accounts differs from the CPU's")

    def _give_up(self, error: DeviceFailed) -> None:
        """Go on without the device; its memory goes with the last that names it."""
        self._guard.give_up(str(error))
        self._device = None
        self._take_over()

    def _take_over(self) -> None:
        self._is_sampled = False
        self._mirror.tree.want()

    def _settled(self) -> HostAccounts:
        """Return the host's accounts with a tree."""
        now = self._mirror.now
        self._mirror.tree.settle_at(now.records, now.count)
        return now


def is_equal(one: Any, other: Any) -> bool:
    """Say whether two results hold the same: arrays, numbers, tuples of them, or None."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(is_equal, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())
    return bool(one == other)
