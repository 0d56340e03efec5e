"""Accounts on a device: records, key table and tree, and what a block does to them.

The methods are those of `HostAccounts`, take and return host arrays, and give the same bits. What
one method returned and the next one is given again (slots, statuses) does not cross twice: its copy
on the device is remembered by the identity of the host array, which is read-only. Nobody waits for
a number that only shapes a launch: the host knows what it is at most. Every method may raise
DeviceFailed; the state on the device then counts for nothing any more. Read `guarded` next.
Spec: spec/block.md, spec/state_hash.md#records.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels import bitmap
from kernels.gpu import settlement, table, walks
from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Arena, Device
from kernels.gpu.failures import DeviceDiffers
from kernels.gpu.grid import SIMULATED
from kernels.gpu.long_lanes import walk_long_lanes
from kernels.gpu.new_keys import claim_keys
from kernels.gpu.prefix import prefix_sums
from kernels.gpu.records import DeviceRecords
from kernels.gpu.tree import DeviceTree, leaves_of
from kernels.gpu.uploads import Uploads
from kernels.host_accounts import CAPACITY_MIN, check_lanes, even, key_words, read_only
from kernels.layout import (
    I32,
    KEY_WORDS,
    NO_DEFECT,
    U8,
    U32,
    U64,
    Changes,
    Columns,
    Rules,
    Walk,
)

LONG_LANE: Final = 6 if SIMULATED else 512
"""A lane of more transactions is scanned by blocks of threads; a thread walks about ten per us."""

_STATUSES: Final = 8 * walks.NUMBERS
"""Where statuses begin behind the numbers of a walk, in bytes."""
_NO_LANES: U64 = read_only(np.empty(0, np.uint64))
_NO_KEYS: U8 = read_only(np.empty((0, 8 * KEY_WORDS), np.uint8))


class Walked(NamedTuple):
    """What a walk left on the device."""

    source: U8
    """the statuses on the host"""
    statuses: DeviceArray
    balances: DeviceArray
    nonces: DeviceArray
    missing: int
    """successes that pay to keys without account; `flags` of the arena say which"""


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
        self.supply = supply
        self._records = DeviceRecords(
            device, records, count, secret=secret,
            capacity=even(max(count, len(records), CAPACITY_MIN)),
        )  # fmt: skip
        self._none = device.array(1, np.uint32)
        """zero for good: accounts that are created where nobody pays to a new key"""
        self._counts = device.empty(settlement.COUNTS, np.uint64)
        self._sums = device.empty(settlement.SUMS, np.uint64)
        self._fee_slot = device.empty(1, np.int64)
        self._fee_key = device.empty((1, KEY_WORDS), np.uint64)
        self._fee_recipient = b""
        """whose key that is"""
        self._twins: dict[str, tuple[NDArray[Any], DeviceArray]] = {}
        self._walked: Walked | None = None
        self._hashed: U32 | None = None
        """slots of a write set over which `settle` has hashed the tree already"""
        self._tree = DeviceTree(
            device, leaf_key=leaf_key, node_key=node_key, leaves=leaves_of(self._records.capacity)
        )
        self._tree.build(self._records.array, count)

    @property
    def count(self) -> int:
        """Return how many accounts exist."""
        return self._records.count

    # A block

    def find_parties(self, columns: Columns, lane_offsets: I32) -> tuple[U32, U32]:
        """See HostAccounts.find_parties."""
        check_lanes(lane_offsets, len(columns.amount))
        there = self._uploads.get(columns)
        offsets = self._arena.put("lane_offsets", lane_offsets)
        if not lane_offsets.flags.writeable:
            self._remember("lane_offsets", lane_offsets, offsets)
        lanes, count = len(lane_offsets) - 1, len(columns.amount)
        parties = self._arena.take("parties", lanes + count, np.uint32)
        senders, recipients = parties[:lanes], parties[lanes:]
        where = self._records.where
        self._device.launch(table.find_rows, lanes, *where, there.sender, offsets, senders)
        self._device.launch(table.find_keys, count, *where, there.recipient, recipients)
        found = _sealed(self._device.fetch(parties))
        sender_slots, recipient_slots = found[:lanes], found[lanes:]
        self._remember("senders", sender_slots, senders)
        self._remember("recipients", recipient_slots, recipients)
        return sender_slots, recipient_slots

    def walk(
        self,
        columns: Columns,
        lane_offsets: I32,
        sender_slots: U32,
        recipient_slots: U32,
        rules: Rules,
        *,
        is_whole: bool = False,
    ) -> Walk:
        """See Accounts.walk; is_whole: the lanes' arrays are fetched, too."""
        lanes, count = len(sender_slots), len(columns.amount)
        there = self._uploads.get(columns)
        offsets = self._twin("lane_offsets", lane_offsets)
        senders = self._twin("senders", sender_slots)
        recipients = self._twin("recipients", recipient_slots)
        first_lane = _STATUSES + count + -count % 8
        walked = self._arena.take("walked", first_lane + 16 * lanes, np.uint8)
        self._device.zero(walked)
        numbers = walked[:_STATUSES].seen_as(np.uint64, (walks.NUMBERS,))
        statuses = walked[_STATUSES : _STATUSES + count]
        of_lanes = walked[first_lane:].seen_as(np.uint64, (2, lanes))
        before = (
            *there.walked, there.sender, offsets, senders, recipients, self._records.first_lanes,
            self._records.array, np.uint64(rules.chain_id), np.uint64(rules.height),
            np.uint64(rules.fee_minimum), np.uint64(rules.account_minimum),
        )  # fmt: skip
        after = (statuses, of_lanes[0], of_lanes[1], numbers)
        launch = self._device.launch
        launch(walks.claim_senders, max(1, lanes), senders, self._records.first_lanes, numbers)
        launch(walks.walk_short, lanes, *before, np.uint64(self._long_lane), *after)
        walk_long_lanes(self._device, self._arena, lane_offsets, self._long_lane, before, after)
        launch(walks.release_senders, lanes, senders, self._records.first_lanes)
        flags = self._arena.take("flags", count, np.uint32)
        launch(settlement.flag_missing, count, statuses, recipients, flags, numbers)
        fetched = walked if is_whole else walked[: _STATUSES + count]
        found = _sealed(self._device.fetch(fetched))
        host: U8 = found[_STATUSES : _STATUSES + count]
        first, fees, missing = found[:_STATUSES].view(np.uint64).tolist()
        self._walked = Walked(host, *after[:3], missing)
        balances, nonces = _NO_LANES, _NO_LANES
        if is_whole:
            balances, nonces = found[first_lane:].view(np.uint64).reshape(2, lanes)
        index, defect = (count, NO_DEFECT)
        if first != walks.NO_REFUSAL:
            index, defect = first >> 8, first & 0xFF
        return Walk(
            statuses=host,
            sender_balances=balances,
            sender_nonces=nonces,
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
        """See HostAccounts.settle; the tree is hashed as well, while the write set leaves."""
        assert walk.defect == NO_DEFECT, "a batch with a defect settles nothing"
        self._hashed = None
        count_before, lanes = self.count, len(sender_slots)
        recipients = self._twin("recipients", recipient_slots)
        walked = self._walked_as(walk, recipients, lanes)
        most = walked.missing + (walk.fee_total > 0)
        keys = self._arena.take("created_keys", (max(1, most), KEY_WORDS), np.uint64)
        recipients_after = self._create(
            columns, recipients, walked, keys, fee_recipient, walk.fee_total, rules.accounts_max
        )
        if recipients_after is None:
            return None
        senders = self._twin("senders", sender_slots)
        most_changed = min(count_before + most, lanes + len(columns.amount) + 1)
        slots = self._arena.take("changed", most_changed, np.uint32)
        self._mark_changed(senders, walked.statuses, recipients_after, count_before + most, slots)
        counts = self._device.begin_fetch_beside(self._counts)
        values = self._arena.take("values", settlement.PARTS * most_changed, np.uint64)
        where = (self._records.array, slots, self._counts, values)
        launch = self._device.launch
        launch(settlement.read_changed, most_changed, *where, settlement.BEFORE_LOW, self._sums)
        launch(
            settlement.debit_senders,
            lanes,
            self._records.array,
            senders,
            walked.balances,
            walked.nonces,
        )
        launch(
            settlement.credit_recipients, max(1, len(recipient_slots)), self._records.array,
            walked.statuses, recipients_after, self._uploads.get(columns).amount, self._fee_slot,
            np.uint64(walk.fee_total),
        )  # fmt: skip
        launch(settlement.read_changed, most_changed, *where, settlement.AFTER_LOW, self._sums)
        self._device.wait_for_fetched()
        created, changed = counts[0].tolist()
        self._records.count = count_before + created
        return self._leave(slots[:changed], values, keys[:created], count_before)

    def _leave(
        self, slots: DeviceArray, values: DeviceArray, keys: DeviceArray, count_before: int
    ) -> Changes:
        """Return the write set, fetched while the tree over it is hashed."""
        changed = len(slots)
        found = self._device.begin_fetch_beside(
            slots, values[: settlement.PARTS * changed], self._sums, *([keys] if len(keys) else [])
        )
        self._tree.update(self._records.array, slots, count_before, self.count)
        self._device.wait_for_fetched()
        self._check_conservation(found[2])
        host: U32 = _sealed(found[0])
        self._remember("changed", host, slots)
        self._hashed = host
        parts = _sealed(found[1]).reshape(settlement.PARTS, changed)
        return Changes(
            slots=host,
            balances_before=parts[0],
            balances_after=parts[2],
            nonces_before=parts[1],
            nonces_after=parts[3],
            created_keys=_sealed(found[3]).view(np.uint8) if len(keys) else _NO_KEYS,
            count_before=count_before,
            count_after=self.count,
        )

    def update_tree_slots(self, slots: U32, count_before: int, count_after: int) -> None:
        """See HostAccounts.update_tree_slots."""
        assert count_after == self.count, "the tree follows the records"
        is_hashed, self._hashed = slots is self._hashed, None
        if is_hashed:
            return
        if count_after < count_before:
            # The last leaf's path lost siblings even where no account on it changed.
            last = np.uint32(max(0, count_after - 1))
            slots = np.append(slots[: np.searchsorted(slots, last)], last)
        self._tree.update(
            self._records.array, self._twin("changed", slots), count_before, count_after
        )

    def root(self) -> bytes:
        """See HostAccounts.root."""
        return self._tree.root()

    def path(self, leaf_index: int) -> list[bytes]:
        """Return the siblings of a leaf and of its ancestors, the leaf's own first."""
        return self._tree.path(leaf_index)

    def undo(self, changes: Changes) -> None:
        """See HostAccounts.undo."""
        assert self.count == changes.count_after, "changes are undone in reverse order"
        self._hashed = None
        self._write(changes.slots, changes.balances_before, changes.nonces_before)
        self._records.remove(changes.count_before, changes.count_after)
        self._records.count = changes.count_before

    def redo(self, changes: Changes) -> None:
        """See HostAccounts.redo."""
        assert self.count == changes.count_before, "changes are redone on the state before them"
        created = changes.count_after - changes.count_before
        assert len(changes.created_keys) == created, "one key per created account"
        self._hashed = None
        if created:
            words = key_words(changes.created_keys)
            self._records.append(self._arena.put("created_keys", words))
        self._write(changes.slots, changes.balances_after, changes.nonces_after)

    # Parts

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
            table.write_values, len(slots), self._records.array, put("written.slots", slots),
            put("written.balances", balances), put("written.nonces", nonces),
        )  # fmt: skip

    def _walked_as(self, walk: Walk, recipients: DeviceArray, lanes: int) -> Walked:
        """Return what a walk left on the device; copied unless it is the last one."""
        if self._walked is not None and self._walked.source is walk.statuses:
            return self._walked
        assert len(walk.sender_balances) == lanes, "a walk that is not the last one is whole"
        put, take = self._arena.put, self._arena.take
        statuses, count = put("given.statuses", walk.statuses), len(walk.statuses)
        numbers = put("given.numbers", np.zeros(walks.NUMBERS, np.uint64))
        flags = take("flags", count, np.uint32)
        self._device.launch(settlement.flag_missing, count, statuses, recipients, flags, numbers)
        missing = int(self._device.fetch(numbers)[walks.MISSING])
        balances = put("given.balances", walk.sender_balances)
        nonces = put("given.nonces", walk.sender_nonces)
        self._walked = Walked(walk.statuses, statuses, balances, nonces, missing)
        return self._walked

    def _create(
        self,
        columns: Columns,
        recipients: DeviceArray,
        walked: Walked,
        keys: DeviceArray,
        fee_recipient: bytes,
        fee_total: int,
        accounts_max: int,
    ) -> DeviceArray | None:
        """Give slots to the keys without account; None and nothing changed where there is no room.

        Returns the recipients' slots. `keys` gets the created ones, as many as `_counts` say;
        `_fee_slot` that of the fee recipient, -1 without fees.
        """
        room, total, missing = accounts_max - self.count, self._none, walked.missing
        if fee_recipient != self._fee_recipient:
            words = key_words(np.frombuffer(fee_recipient, np.uint8).reshape(1, -1))
            self._device.copy_in(words, self._fee_key)
            self._fee_recipient = fee_recipient
        claimed = None
        if missing:
            flags = self._arena.take("flags", recipients.shape, np.uint32)  # those of the walk
            claimed = claim_keys(
                self._device, self._arena, flags, self._uploads.get(columns).recipient, missing,
                self._records.secret,
            )  # fmt: skip
            total = claimed.total
        most = missing + (fee_total > 0)
        is_sure = most <= room and self._records.fits(most)
        created = most
        if not is_sure:  # rare: only how many keys differ says whether there is room
            created = int(self._device.fetch(total)[0])
            if created > room:
                return None
            self._records.reserve(created + 1)
        where, launch = self._records.where, self._device.launch
        if claimed is not None:
            launch(
                settlement.create_accounts, missing, *where, claimed.keys, claimed.flags,
                claimed.ranks, self.count, keys,
            )  # fmt: skip
            slots = self._arena.take("recipients_after", recipients.shape, np.uint32)
            self._device.copy_within(recipients, slots)
            launch(
                settlement.assign_slots, missing, claimed.claims, claimed.places, claimed.ranks,
                claimed.rows, self.count, slots,
            )  # fmt: skip
            recipients = slots
        launch(
            settlement.open_settlement, 1, *where, self._fee_key, np.uint64(fee_total), self.count,
            room, total, keys, self._fee_slot, self._counts, self._sums,
        )  # fmt: skip
        if not is_sure and int(self._device.fetch(self._counts)[settlement.CREATED]) > room:
            self._records.remove(self.count, self.count + created)
            return None
        return recipients

    def _mark_changed(
        self,
        senders: DeviceArray,
        statuses: DeviceArray,
        recipients: DeviceArray,
        count_most: int,
        slots: DeviceArray,
    ) -> None:
        """Write the changed slots to `slots`, ascending, and their number to `_counts`.

        count_most: accounts that exist at most.
        """
        launch = self._device.launch
        items = max(1, len(senders), len(statuses))
        launch(
            settlement.mark_changed, items, senders, statuses, recipients, self._fee_slot,
            self._records.bitmap,
        )  # fmt: skip
        words = max(1, bitmap.words_for(count_most))
        counts = self._arena.take("word_counts", words, np.uint32)
        launch(settlement.count_words, words, self._records.bitmap, counts)
        starts, total = prefix_sums(self._device, self._arena, "words", counts, words)
        launch(
            settlement.take_words, words, self._records.bitmap, starts, total, slots, self._counts
        )

    def _check_conservation(self, sums: U64) -> None:
        """Compare the sums before and after in 128 bits; units only move."""
        low, high, low_after, high_after, greatest = (int(number) for number in sums)
        if low + (high << 32) != low_after + (high_after << 32) or greatest > self.supply:
            raise DeviceDiffers(f"a block on the device changed the supply: {sums.tolist()}")


def _sealed(found: NDArray[Any]) -> NDArray[Any]:
    """Return an array that was just fetched, read-only; C-contiguous and aligned it is already."""
    found.flags.writeable = False
    return found
