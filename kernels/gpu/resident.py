"""Accounts on a device: records, key table and tree, and what a block does to them.

The methods are those of `HostAccounts`, take and return host arrays, and give the same bits. What
one method returned and the next one is given again (slots, statuses) does not cross twice: its copy
on the device is remembered by the identity of the host array, which is read-only. Every method may
raise DeviceFailed; the state on the device then counts for nothing any more. Read `guarded` next.
Spec: spec/block.md, spec/state_hash.md#records.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels import accounts, bitmap
from kernels.gpu import prefix, settlement, table, walks
from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Arena, Device
from kernels.gpu.failures import DeviceDiffers
from kernels.gpu.grid import SIMULATED
from kernels.gpu.long_lanes import walk_long_lanes
from kernels.gpu.prefix import prefix_sums
from kernels.gpu.tree import DeviceTree, leaves_of
from kernels.gpu.uploads import Uploads
from kernels.host_accounts import CAPACITY_MIN, check_lanes, even, key_words, read_only
from kernels.layout import (
    ACCOUNT_WORDS,
    I32,
    KEY_WORDS,
    NO_DEFECT,
    NO_SLOT,
    U32,
    U64,
    Changes,
    Columns,
    Rules,
    Walk,
)

LONG_LANE: Final = 6 if SIMULATED else 512
"""A lane of more transactions is scanned by blocks of threads; a thread walks about ten per us."""
ROWS_PER_COPY: Final = 1 << 20
"""Records that are copied to the device at once when accounts are opened."""

_FREE = np.uint32(0xFFFF_FFFF)
_NO_DEFECT = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


class DeviceAccounts:
    """Accounts in dense slots on a device."""

    def __init__(
        self,
        device: Device,
        uploads: Uploads,
        records: U64,
        count: int,
        *,
        supply: int,
        secret: bytes,
        leaf_key: bytes,
        node_key: bytes,
        long_lane: int = LONG_LANE,
    ) -> None:
        """Copy the first `count` of (capacity, 8) uint64 records, all of different keys."""
        self._device = device
        self._uploads = uploads
        self._arena = Arena(device)
        self._long_lane = long_lane
        self._secret = device.put(np.frombuffer(secret, np.uint64))
        self.supply = supply
        self.count = count
        self._capacity = even(max(count, len(records), CAPACITY_MIN))
        self._records = device.array((self._capacity, ACCOUNT_WORDS), np.uint64)
        for start in range(0, count, ROWS_PER_COPY):
            rows = records[start : min(count, start + ROWS_PER_COPY)]
            device.copy_in(rows, self._records[start : start + len(rows)])
        self._make_slot_arrays()
        self._entries = device.empty(0, np.uint64)
        self._fill_table(accounts.entries_for(self._capacity))
        self._twins: dict[str, tuple[NDArray[Any], DeviceArray]] = {}
        self._tree = DeviceTree(
            device, leaf_key=leaf_key, node_key=node_key, leaves=leaves_of(self._capacity)
        )
        self._tree.build(self._records, count)

    # A block

    def find_parties(self, columns: Columns, lane_offsets: I32) -> tuple[U32, U32]:
        """See HostAccounts.find_parties."""
        check_lanes(lane_offsets, len(columns.amount))
        there = self._uploads.get(columns)
        offsets = self._arena.put("lane_offsets", lane_offsets)
        lanes, count = len(lane_offsets) - 1, len(columns.amount)
        senders = self._arena.take("senders", lanes, np.uint32)
        recipients = self._arena.take("recipients", count, np.uint32)
        where = (self._entries, self._records, self._secret)
        self._device.launch(table.find_rows, lanes, *where, there.sender, offsets, senders)
        self._device.launch(table.find_keys, count, *where, there.recipient, recipients)
        found = self._fetch_all(senders, recipients)
        self._remember("senders", found[0], senders)
        self._remember("recipients", found[1], recipients)
        return found[0], found[1]

    def walk(
        self,
        columns: Columns,
        lane_offsets: I32,
        sender_slots: U32,
        recipient_slots: U32,
        rules: Rules,
    ) -> Walk:
        """See HostAccounts.walk."""
        lanes, count = len(sender_slots), len(columns.amount)
        check_lanes(lane_offsets, count)
        there, take = self._uploads.get(columns), self._arena.take
        offsets = self._arena.put("lane_offsets", lane_offsets)
        senders = self._twin("senders", sender_slots)
        recipients = self._twin("recipients", recipient_slots)
        numbers = self._arena.put("numbers", np.array([_NO_DEFECT, 0], np.uint64))
        statuses = take("statuses", count, np.uint8)
        balances = take("sender_balances", lanes, np.uint64)
        nonces = take("sender_nonces", lanes, np.uint64)
        for array in (statuses, balances, nonces):
            self._device.zero(array)
        before = (
            *there.walked, there.sender, offsets, senders, recipients, self._first_lanes,
            self._records, np.uint64(rules.chain_id), np.uint64(rules.height),
            np.uint64(rules.fee_minimum), np.uint64(rules.account_minimum),
        )  # fmt: skip
        after = (statuses, balances, nonces, numbers)
        launch = self._device.launch
        launch(walks.claim_senders, lanes, senders, self._first_lanes)
        launch(walks.walk_short, lanes, *before, np.uint64(self._long_lane), *after)
        walk_long_lanes(self._device, self._arena, lane_offsets, self._long_lane, before, after)
        launch(walks.release_senders, lanes, senders, self._first_lanes)
        found = self._fetch_all(*after)
        for name, host, twin in zip(("statuses", "balances", "nonces"), found, after, strict=False):
            self._remember(name, host, twin)
        first, fees = (int(number) for number in found[3])
        index, defect = (first >> 8, first & 0xFF) if first != _NO_DEFECT else (count, NO_DEFECT)
        return Walk(
            statuses=found[0],
            sender_balances=found[1],
            sender_nonces=found[2],
            fee_total=fees,
            defect_index=index,
            defect=defect,
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
        assert walk.defect == NO_DEFECT, "a batch with a defect settles nothing"
        assert len(lane_offsets) == len(sender_slots) + 1, "one sender per lane"
        count_before = self.count
        statuses = self._twin("statuses", walk.statuses)
        found = self._create(
            columns, statuses, recipient_slots, walk, fee_recipient, rules.accounts_max
        )
        if found is None:
            return None
        recipients, fee_slot = found
        senders = self._twin("senders", sender_slots)
        slots = self._changed(senders, statuses, recipients, fee_slot)
        changed = len(slots)
        take, launch = self._arena.take, self._device.launch
        sums = take("sums", settlement.SUMS, np.uint64)
        self._device.zero(sums)
        values = [take(f"values_{i}", changed, np.uint64) for i in range(4)]
        before = (sums, settlement.BEFORE_LOW, settlement.BEFORE_HIGH)
        after = (sums, settlement.AFTER_LOW, settlement.AFTER_HIGH)
        launch(
            settlement.read_changed, changed, self._records, slots, values[0], values[1], *before
        )
        launch(
            settlement.debit_senders, len(sender_slots), self._records, senders,
            self._twin("balances", walk.sender_balances), self._twin("nonces", walk.sender_nonces),
        )  # fmt: skip
        launch(
            settlement.credit_recipients, max(1, len(recipient_slots)), self._records, statuses,
            recipients, self._uploads.get(columns).amount, fee_slot, np.uint64(walk.fee_total),
        )  # fmt: skip
        launch(settlement.read_changed, changed, self._records, slots, values[2], values[3], *after)
        created = self._records[count_before : self.count]
        done = self._fetch_all(slots, *values, sums, created)
        self._check_conservation(done[5])
        self._remember("changed", done[0], slots)
        return Changes(
            slots=done[0],
            balances_before=done[1],
            balances_after=done[3],
            nonces_before=done[2],
            nonces_after=done[4],
            created_keys=np.ascontiguousarray(done[6][:, :KEY_WORDS]).view(np.uint8),
            count_before=count_before,
            count_after=self.count,
        )

    def update_tree_slots(self, slots: U32, count_before: int, count_after: int) -> None:
        """See HostAccounts.update_tree_slots."""
        assert count_after == self.count, "the tree follows the records"
        if count_after < count_before:
            # The last leaf's path lost siblings even where no account on it changed.
            last = np.uint32(max(0, count_after - 1))
            slots = np.append(slots[: np.searchsorted(slots, last)], last)
        self._tree.update(self._records, self._twin("changed", slots), count_before, count_after)

    def root(self) -> bytes:
        """See HostAccounts.root."""
        return self._tree.root()

    def path(self, leaf_index: int) -> list[bytes]:
        """Return the siblings of a leaf and of its ancestors, the leaf's own first."""
        return self._tree.path(leaf_index)

    def undo(self, changes: Changes) -> None:
        """See HostAccounts.undo."""
        assert self.count == changes.count_after, "changes are undone in reverse order"
        self._write(changes.slots, changes.balances_before, changes.nonces_before)
        first, stop = changes.count_before, changes.count_after
        where = (self._entries, self._records, self._secret)
        self._device.launch(table.forget_slots, stop - first, *where, first, stop)
        self._device.launch(table.clear_records, stop - first, self._records, first, stop)
        self._tombstones += stop - first
        self.count = first

    def redo(self, changes: Changes) -> None:
        """See HostAccounts.redo."""
        assert self.count == changes.count_before, "changes are redone on the state before them"
        first, stop = changes.count_before, changes.count_after
        assert len(changes.created_keys) == stop - first, "one key per created account"
        self._reserve(stop - first)
        if stop > first:
            keys = self._arena.put("created_keys", key_words(changes.created_keys))
            self._device.launch(table.write_keys, stop - first, self._records, keys, first)
            where = (self._entries, self._records, self._secret)
            self._device.launch(table.enter_slots, stop - first, *where, first, stop)
        self.count = stop
        self._write(changes.slots, changes.balances_after, changes.nonces_after)

    # Parts

    def _fetch_all(self, *arrays: DeviceArray) -> list[NDArray[Any]]:
        """Return arrays on the host, with one wait; read-only."""
        found = [self._device.begin_fetch(array) for array in arrays]
        self._device.wait()
        return [read_only(array) for array in found]

    def _remember(self, name: str, host: NDArray[Any], twin: DeviceArray) -> None:
        """Note that `twin`, of the arena, is what `host` holds."""
        self._twins[name] = (host, twin)

    def _twin(self, name: str, host: NDArray[Any]) -> DeviceArray:
        """Return the copy of a host array on the device; made now unless it is remembered."""
        known = self._twins.get(name)
        if known is not None and known[0] is host:
            return known[1]
        return self._arena.put(f"given.{name}", host)

    def _write(self, slots: U32, balances: U64, nonces: U64) -> None:
        assert not len(slots) or int(slots[-1]) < self.count, "slots of accounts that exist"
        put = self._arena.put
        self._device.launch(
            table.write_values, len(slots), self._records, put("written.slots", slots),
            put("written.balances", balances), put("written.nonces", nonces),
        )  # fmt: skip

    def _create(
        self,
        columns: Columns,
        statuses: DeviceArray,
        recipient_slots: U32,
        walk: Walk,
        fee_recipient: bytes,
        accounts_max: int,
    ) -> tuple[DeviceArray, DeviceArray] | None:
        """Give slots to the keys without account; None and nothing written where there is no room.

        Returns the recipients' slots and, in (1,) int64, that of the fee recipient, -1 without
        fees; both on the device.
        """
        count, launch = len(recipient_slots), self._device.launch
        recipients = self._twin("recipients", recipient_slots)
        flags = self._arena.take("flags", count, np.uint32)
        launch(settlement.flag_missing, count, statuses, recipients, flags)
        positions, total = prefix_sums(self._device, self._arena, "missing", flags, count)
        fee_words = key_words(np.frombuffer(fee_recipient, np.uint8).reshape(1, -1))
        missing, fee_found = (
            int(array[0]) for array in self._fetch_all(total, self._find(fee_words))
        )
        if not walk.fee_total:
            fee_found = -1
        fee_is_new = int(fee_found == NO_SLOT)
        if missing + fee_is_new == 0:
            return recipients, self._arena.put("fee_slot", np.array([fee_found], np.int64))
        keys = self._arena.take("new_keys", (missing + fee_is_new, KEY_WORDS), np.uint64)
        rows = self._arena.take("new_rows", missing, np.int32)
        there = self._uploads.get(columns)
        launch(settlement.list_missing, count, flags, positions, there.recipient, rows, keys)
        if fee_is_new:
            self._device.copy_in(fee_words, keys[missing : missing + 1])
        # Written over by `_assign` where the fee recipient is one of the new ones.
        fee_slot = self._arena.put("fee_slot", np.array([fee_found], np.int64))
        assigned = self._assign(keys, rows, recipients, fee_slot, accounts_max)
        return None if assigned is None else (assigned, fee_slot)

    def _find(self, words: U64) -> DeviceArray:
        """Return the slot of one key, or NO_SLOT, in (1,) uint32 on the device."""
        keys = self._arena.put("one_key", words)
        found = self._arena.take("one_slot", 1, np.uint32)
        self._device.launch(
            table.find_keys, 1, self._entries, self._records, self._secret, keys, found
        )
        return found

    def _assign(
        self,
        keys: DeviceArray,
        rows: DeviceArray,
        recipients: DeviceArray,
        fee_slot: DeviceArray,
        accounts_max: int,
    ) -> DeviceArray | None:
        """Create an account for each distinct key, in order of its least row; None without room.

        Returns the recipients' slots. The key behind those of `rows`, if there is one, is that of
        the fee recipient, whose slot is written to `fee_slot`.
        """
        count, take, launch = len(keys), self._arena.take, self._device.launch
        claims = take("claims", 1 << (2 * count).bit_length(), np.uint32)
        places = take("places", count, np.uint32)
        flags = take("firsts", count, np.uint32)
        launch(prefix.fill_u32, len(claims), claims, _FREE)
        launch(table.claim_keys, count, keys, self._secret, claims, places)
        launch(settlement.flag_first, count, claims, places, flags)
        ranks, total = prefix_sums(self._device, self._arena, "ranks", flags, count)
        created = int(self._device.fetch(total)[0])
        if self.count + created > accounts_max:
            return None
        self._reserve(created)
        where = (self._entries, self._records, self._secret)
        launch(settlement.create_accounts, count, *where, keys, flags, ranks, self.count)
        slots = take("recipients_after", recipients.shape, np.uint32)
        self._device.copy_within(recipients, slots)
        launch(settlement.assign_slots, count, claims, places, ranks, rows, self.count, slots,
               fee_slot)  # fmt: skip
        self.count += created
        return slots

    def _changed(
        self,
        senders: DeviceArray,
        statuses: DeviceArray,
        recipients: DeviceArray,
        fee_slot: DeviceArray,
    ) -> DeviceArray:
        """Return the changed slots on the device, ascending."""
        launch = self._device.launch
        items = max(1, len(senders), len(statuses))
        launch(
            settlement.mark_changed, items, senders, statuses, recipients, fee_slot, self._bitmap
        )
        words = max(1, bitmap.words_for(self.count))
        counts = self._arena.take("word_counts", words, np.uint32)
        launch(settlement.count_words, words, self._bitmap, counts)
        starts, total = prefix_sums(self._device, self._arena, "words", counts, words)
        slots = self._arena.take("changed", int(self._device.fetch(total)[0]), np.uint32)
        launch(settlement.take_words, words, self._bitmap, starts, slots)
        return slots

    def _check_conservation(self, sums: U64) -> None:
        """Compare the sums before and after in 128 bits; units only move."""
        low, high, low_after, high_after, greatest = (int(number) for number in sums)
        if low + (high << 32) != low_after + (high_after << 32) or greatest > self.supply:
            raise DeviceDiffers(f"a block on the device changed the supply: {sums.tolist()}")

    def _make_slot_arrays(self) -> None:
        """Make what has an entry per slot besides records and tree."""
        words = bitmap.words_for(self._capacity)
        self._bitmap = self._device.array(words, np.uint64)
        self._first_lanes = self._device.empty(self._capacity, np.uint32)
        self._device.launch(prefix.fill_u32, self._capacity, self._first_lanes, _FREE)

    def _fill_table(self, size: int) -> None:
        """Make a table of `size` entries with all present accounts and no tombstones."""
        del self._entries  # the old one goes before there is a new one
        self._entries = self._device.array(size, np.uint64)
        where = (self._entries, self._records, self._secret)
        self._device.launch(table.enter_slots, self.count, *where, 0, self.count)
        self._tombstones = 0

    def _reserve(self, created: int) -> None:
        """Make room for more accounts."""
        wanted = self.count + created
        if wanted > self._capacity:
            self._capacity = even(2 * wanted)
            records = self._device.array((self._capacity, ACCOUNT_WORDS), np.uint64)
            self._device.copy_within(self._records[: self.count], records[: self.count])
            self._records = records
            self._make_slot_arrays()
        size = len(self._entries)
        if wanted + self._tombstones > accounts.count_limit(size):
            self._fill_table(max(size, accounts.entries_for(2 * wanted)))
