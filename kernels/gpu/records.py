"""Records of accounts on a device with their key table: what grows, and what is taken back.

Records stand in dense slots [0, count), zero behind them; balances and nonces are the business of
those who settle. A table that fills up, with tombstones of keys that went, is filled anew.
Spec: spec/state_hash.md#records. Read `resident` next.
"""

from typing import Final

import numpy as np

from kernels import accounts, bitmap
from kernels.gpu import prefix, table
from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Device
from kernels.host_accounts import even
from kernels.layout import ACCOUNT_WORDS, U64

ROWS_PER_COPY: Final = 1 << 20
"""Records that are copied to the device at once when accounts are opened."""

_FREE = np.uint32(0xFFFF_FFFF)


class DeviceRecords:
    """Records, table, and what else has an entry per slot."""

    def __init__(
        self, device: Device, records: U64, count: int, *, secret: bytes, capacity: int
    ) -> None:
        """Copy the first `count` of (count or more, 8) uint64 records, all of different keys."""
        self._device = device
        self.count = count
        self.capacity = capacity
        """slots; even, and at least `count`"""
        self.secret = device.put(np.frombuffer(secret, np.uint64))
        """(8,) uint64, of the hashes by which keys are found"""
        self.array = device.array((capacity, ACCOUNT_WORDS), np.uint64)
        """(capacity, 8) uint64"""
        for start in range(0, count, ROWS_PER_COPY):
            rows = records[start : min(count, start + ROWS_PER_COPY)]
            device.copy_in(rows, self.array[start : start + len(rows)])
        self._make_slot_arrays()
        self._entries = device.empty(0, np.uint64)
        self._fill_table(accounts.entries_for(capacity))

    @property
    def where(self) -> tuple[DeviceArray, DeviceArray, DeviceArray]:
        """Return what finds a key: table, records, and the secret of its hashes."""
        return self._entries, self.array, self.secret

    def fits(self, created: int) -> bool:
        """Say whether there is room for so many more accounts."""
        wanted = self.count + created
        limit = accounts.count_limit(len(self._entries))
        return wanted <= self.capacity and wanted + self._tombstones <= limit

    def reserve(self, created: int) -> None:
        """Make room for so many more accounts."""
        wanted = self.count + created
        if wanted > self.capacity:
            self.capacity = even(2 * wanted)
            grown = self._device.array((self.capacity, ACCOUNT_WORDS), np.uint64)
            self._device.copy_within(self.array[: self.count], grown[: self.count])
            self.array = grown
            self._make_slot_arrays()
        size = len(self._entries)
        if wanted + self._tombstones > accounts.count_limit(size):
            self._fill_table(max(size, accounts.entries_for(2 * wanted)))

    def append(self, keys: DeviceArray) -> None:
        """Create accounts of (m >= 1, 4) uint64 keys that have none, in the order of slots."""
        first, stop = self.count, self.count + len(keys)
        self.reserve(len(keys))
        self._device.launch(table.write_keys, len(keys), self.array, keys, first)
        self._device.launch(table.enter_slots, len(keys), *self.where, first, stop)
        self.count = stop

    def remove(self, first: int, stop: int) -> None:
        """Take the accounts [first, stop) out of table and records."""
        self._device.launch(table.forget_slots, stop - first, *self.where, first, stop)
        self._device.launch(table.clear_records, stop - first, self.array, first, stop)
        self._tombstones += stop - first

    # Parts

    def _make_slot_arrays(self) -> None:
        """Make what has an entry per slot besides records and tree."""
        words = bitmap.words_for(self.capacity)
        self.bitmap = self._device.array(words, np.uint64)
        """(words,) uint64: a set of slots, empty between uses"""
        self.first_lanes = self._device.empty(self.capacity, np.uint32)
        """(capacity,) uint32, 2^32 - 1 between uses; see `walks.claim_senders`"""
        self._device.launch(prefix.fill_u32, self.capacity, self.first_lanes, _FREE)

    def _fill_table(self, size: int) -> None:
        """Make a table of `size` entries with all present accounts and no tombstones."""
        del self._entries  # the old one goes before there is a new one
        self._entries = self._device.array(size, np.uint64)
        self._device.launch(table.enter_slots, self.count, *self.where, 0, self.count)
        self._tombstones = 0
