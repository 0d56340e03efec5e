"""Resident accounts on the host: records, key table and state tree, and what a block does to them.

A block goes through `find_parties`, `walk` (decides everything, writes nothing), `settle` (writes)
and `update_tree`. What `settle` returns is enough to undo and redo it, so the same arrays move
between branches. One thread at a time may write; others may read meanwhile if they ask again when
the owner says that something changed: a read never leaves the arrays, but may mix two states.
Bodies are in `accounts`, `transfer` and `settle`. Spec: spec/block.md, spec/state_hash.md#records.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels import accounts, bitmap, settle, transfer
from kernels.integers import sum_exact, wide_to_int
from kernels.layout import (
    ACCOUNT_WORDS,
    BALANCE_WORD,
    I32,
    KEY_WORDS,
    NO_DEFECT,
    NO_SLOT,
    NONCE_WORD,
    U8,
    U32,
    U64,
    Changes,
    Columns,
    Rules,
    Walk,
)
from kernels.memory import HUGE_PAGE_BYTES, zeros
from kernels.pool import Pool

CAPACITY_MIN = 1024
"""Slots of the smallest arrays."""
SUPPLY_END = 1 << 63
"""Balances sum up to less, so no sum over accounts wraps in 64 bits."""
LOOKUP_GRAIN = 4096
LANE_GRAIN = 4096
SETTLE_GRAIN = 8192
WRITE_GRAIN = 16384
"""Items below which another thread costs more than it brings."""

_NO_ROWS = np.empty(0, np.int32)
_NO_ROWS.flags.writeable = False


class StateTree(Protocol):
    """What the accounts need of the tree over their records (`merkle.MerkleTree`)."""

    @property
    def resident_bytes(self) -> int:
        """Memory of the tree."""

    def build(self, records: U64, count: int) -> None:
        """Hash everything: the first `count` records."""

    def update(self, records: U64, slots: U32, count_before: int, count_after: int) -> None:
        """Hash again what lies above `slots`, ascending, and grow or shrink to `count_after`."""

    def root(self) -> bytes:
        """Return the root, 32 bytes."""

    def path(self, leaf_index: int) -> list[bytes]:
        """Return the siblings of a leaf and of its ancestors, 32 bytes each, the leaf's first."""


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a C-contiguous, aligned read-only view: kernels are compiled for that alone.

    Without a copy where the array is so already.
    """
    view = np.require(array, requirements=["C", "A"]).view()
    view.flags.writeable = False
    return view


def key_words(keys: U8) -> U64:
    """Return (n, 32) uint8 keys as (n, 4) uint64 words, read-only."""
    if keys.ndim != 2 or keys.shape[1] != 8 * KEY_WORDS or keys.dtype != np.uint8:
        raise ValueError(f"keys must be (n, 32) uint8, not {keys.shape} {keys.dtype}")
    return read_only(np.ascontiguousarray(keys).view(np.uint64))


def even(slots: int) -> int:
    """Return the next even number: a leaf of the tree holds the records of two slots."""
    return slots + (slots & 1)


class HostAccounts:
    """Accounts in dense slots with their key table and their tree."""

    def __init__(
        self,
        keys: U8,
        balances: U64,
        nonces: U64,
        *,
        tree: StateTree,
        pool: Pool,
        wide: bool,
        secret: bytes,
        capacity: int = 0,
    ) -> None:
        """Make accounts resident: slot i holds keys[i], balances[i], nonces[i].

        keys: (n, 32) uint8, all different, else ValueError; balances and nonces: (n,) uint64, the
        balances summing to less than 2^63. secret: 64 random bytes of this process. wide: batched
        lookups over all threads; otherwise scalar ones on one thread (the serial arm). capacity:
        slots to hold from the start.
        """
        count = len(keys)
        if len(balances) != count or len(nonces) != count:
            raise ValueError(f"{count} keys, {len(balances)} balances, {len(nonces)} nonces")
        if len(secret) != 8 * accounts.SECRET_WORDS:
            raise ValueError(f"the secret must have 64 bytes, not {len(secret)}")
        self.supply = sum_exact(balances)
        """Sum of all balances, base units; blocks move it and never change it."""
        if self.supply >= SUPPLY_END:
            raise ValueError(f"balances sum to {self.supply}, 2^63 or more")
        self.count = count
        self._count_peak = count
        self._tree = tree
        self._pool = pool
        self._wide = wide
        self._secret = read_only(np.frombuffer(secret, np.uint64).copy())
        slots = even(max(count, capacity, CAPACITY_MIN))
        self.records: U64 = zeros((slots, ACCOUNT_WORDS), np.uint64)
        """(capacity, 8) uint64: the records; all zero from `count` on."""
        self.records[:count, :KEY_WORDS] = key_words(keys)
        self.records[:count, BALANCE_WORD] = balances
        self.records[:count, NONCE_WORD] = nonces
        self._bitmap: U64 = zeros(bitmap.words_for(slots), np.uint64)
        self._entries: U64 = self._filled_entries(accounts.entries_for(slots))
        tree.build(self.records, count)

    @property
    def resident_bytes(self) -> int:
        """Memory of records, table, bitmap and tree; of records, the pages ever written."""
        touched = -(-self._count_peak * 8 * ACCOUNT_WORDS // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        records = min(self.records.nbytes, touched)
        return records + self._entries.nbytes + self._bitmap.nbytes + self._tree.resident_bytes

    def lookup(self, keys: U8) -> U32:
        """Return the slots of (m, 32) uint8 keys as (m,) uint32, NO_SLOT for those without."""
        return self._lookup_words(key_words(keys), _NO_ROWS, len(keys))

    def find_parties(self, columns: Columns, lane_offsets: I32) -> tuple[U32, U32]:
        """Return the slots of each lane's sender (lanes,) and of each recipient (n,), uint32.

        A lane's sender is that of its first transaction. lane_offsets: (lanes + 1,) int32, from 0
        up to n, strictly ascending.
        """
        check_lanes(lane_offsets, len(columns.amount))
        starts = read_only(lane_offsets[:-1])
        senders = self._lookup_words(key_words(columns.sender), starts, len(starts))
        recipients = key_words(columns.recipient)
        return senders, self._lookup_words(recipients, _NO_ROWS, len(recipients))

    def walk(
        self,
        columns: Columns,
        lane_offsets: I32,
        sender_slots: U32,
        recipient_slots: U32,
        rules: Rules,
    ) -> Walk:
        """Execute the lanes against the present state without changing it.

        Slots are those of `find_parties`. All checks of spec/block.md#checks are made except that
        of the signature.
        """
        count, lanes = len(columns.amount), len(sender_slots)
        check_lanes(lane_offsets, count)
        assert len(lane_offsets) == lanes + 1, "one sender per lane"
        assert len(recipient_slots) == count, "one recipient per transaction"
        limits = transfer.Limits(
            np.uint64(rules.chain_id),
            np.uint64(rules.height),
            np.uint64(rules.fee_minimum),
            np.uint64(rules.account_minimum),
        )
        sender_slots = read_only(sender_slots)
        statuses = np.zeros(count, np.uint8)
        sender_balances = np.zeros(lanes, np.uint64)
        sender_nonces = np.zeros(lanes, np.uint64)
        columns = Columns(*(read_only(column) for column in columns))
        parts = self._pool.run(
            transfer.walk_range,
            self._ranges(lanes, grain=LANE_GRAIN),
            columns,
            key_words(columns.sender),
            read_only(lane_offsets),
            sender_slots,
            read_only(recipient_slots),
            limits,
            bitmap.first_repeat(self._bitmap, sender_slots),
            self.records,
            statuses,
            sender_balances,
            sender_nonces,
        )
        defects = [(int(index), int(defect)) for _, index, defect in parts if defect != NO_DEFECT]
        defect_index, defect = min(defects, default=(count, NO_DEFECT))
        return Walk(
            statuses=statuses,
            sender_balances=sender_balances,
            sender_nonces=sender_nonces,
            fee_total=sum(int(fees) for fees, _, _ in parts),
            defect_index=defect_index,
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
        """Write what a walk without defect came to; the tree is left as it is.

        Returns the write set, or None, and nothing has changed, when more than
        `rules.accounts_max` accounts would exist. Spec: spec/block.md#settlement.
        """
        assert walk.defect == NO_DEFECT, "a batch with a defect settles nothing"
        assert len(lane_offsets) == len(sender_slots) + 1, "one sender per lane"
        count_before = self.count
        slots = self._create_recipients(columns, recipient_slots, walk, rules)
        fee_slot = self._fee_slot(fee_recipient, walk, rules) if slots is not None else None
        if slots is None or fee_slot is None:
            self._remove_from(count_before)
            return None
        created = self.records[count_before : self.count, :KEY_WORDS].copy()
        return self._apply(columns, sender_slots, slots, walk, fee_slot, count_before, created)

    def update_tree(self, changes: Changes) -> None:
        """Bring the tree to the state after `changes`, from the one before."""
        self.update_tree_slots(changes.slots, changes.count_before, changes.count_after)

    def update_tree_slots(self, slots: U32, count_before: int, count_after: int) -> None:
        """Hash again what lies above `slots`: (m,) uint32, ascending, without repetition.

        count_before: the count that the tree stands at; count_after: the present one.
        """
        assert count_after == self.count, "the tree follows the records"
        self._tree.update(self.records, slots, count_before, count_after)

    def root(self) -> bytes:
        """Return the tree's root, 32 bytes; as old as the last update of the tree."""
        return self._tree.root()

    def proof(self, slot: int) -> tuple[bytes, list[bytes]]:
        """Return the 128 bytes of the leaf that holds a slot, and the siblings up to the root.

        For the thread that writes: the tree is as old as its last update.
        """
        assert 0 <= slot < self.count, slot
        leaf = slot >> 1
        return self.records[2 * leaf : 2 * leaf + 2].tobytes(), self._tree.path(leaf)

    def undo(self, changes: Changes) -> None:
        """Go back to the state before `changes`, the last that was settled or redone."""
        assert self.count == changes.count_after, "changes are undone in reverse order"
        self._write(changes.slots, changes.balances_before, changes.nonces_before)
        self._remove_from(changes.count_before)

    def redo(self, changes: Changes) -> None:
        """Go forward to the state after `changes`; the present one is that before them."""
        assert self.count == changes.count_before, "changes are redone on the state before them"
        created = changes.count_after - changes.count_before
        assert len(changes.created_keys) == created, "one key per created account"
        rows = np.arange(created, dtype=np.int32)
        slots = np.empty(created, np.uint32)
        words = key_words(changes.created_keys)
        complete = self._create(words, rows, slots, changes.count_after)
        assert complete, "created accounts had room before"
        assert self.count == changes.count_after, "created keys are new ones"
        self._write(changes.slots, changes.balances_after, changes.nonces_after)

    def read(self, slots: U32) -> tuple[U8, U64, U64]:
        """Return keys (m, 32) uint8, balances and nonces (m,) uint64 of (m,) slots below count."""
        rows = self.records[slots]
        keys = np.ascontiguousarray(rows[:, :KEY_WORDS]).view(np.uint8)
        return keys, rows[:, BALANCE_WORD].copy(), rows[:, NONCE_WORD].copy()

    def _ranges(self, count: int, *, grain: int) -> list[tuple[int, int]]:
        """Cut work over the pool's threads; the serial arm has one."""
        return self._pool.ranges(count, grain=grain) if self._wide else [(0, count)]

    def _lookup_words(self, words: U64, rows: I32, count: int) -> U32:
        """Look up words[rows], or all `words` when there are no rows."""
        found = np.empty(count, np.uint32)
        kernel = accounts.lookup_range if self._wide else accounts.lookup_each
        # The table first: a reader then never holds a table that is newer than its records.
        entries = self._entries
        arguments = (entries, self.records, self._secret, words, rows, found)
        self._pool.run(kernel, self._ranges(count, grain=LOOKUP_GRAIN), *arguments)
        return found

    def _filled_entries(self, size: int) -> U64:
        """Return a table of `size` entries with all present accounts."""
        entries: U64 = zeros(size, np.uint64)
        filled = accounts.fill(entries, self.records, self._secret, self.count)
        if filled != self.count:
            raise ValueError(f"account {filled} has the key of an account before it")
        return entries

    def _grow(self, slots_max: int) -> None:
        """Make room for at least one more account, of at most `slots_max`."""
        if self.count == len(self.records):
            capacity = even(min(2 * self.count, slots_max))
            records: U64 = zeros((capacity, ACCOUNT_WORDS), np.uint64)
            records[: self.count] = self.records
            self._bitmap = zeros(bitmap.words_for(capacity), np.uint64)
            self.records = records
        if self.count == accounts.count_limit(len(self._entries)):
            self._entries = self._filled_entries(2 * len(self._entries))

    def _create(self, words: U64, rows: I32, slots: U32, accounts_max: int) -> bool:
        """Find or create accounts for words[rows] and write slots[rows]; say if all had room."""
        position = 0
        rows = read_only(rows)
        while True:
            room = min(len(self.records), accounts.count_limit(len(self._entries)))
            position, count = accounts.create_accounts(
                self._entries,
                self.records,
                self._secret,
                words,
                rows,
                slots,
                position,
                self.count,
                min(room, accounts_max),
            )
            self.count = int(count)
            self._count_peak = max(self._count_peak, self.count)
            if position == len(rows):
                return True
            if self.count >= accounts_max:
                return False
            self._grow(accounts_max)

    def _create_recipients(
        self, columns: Columns, recipient_slots: U32, walk: Walk, rules: Rules
    ) -> U32 | None:
        """Return recipients' slots with those of new accounts filled in, or None without room."""
        rows = np.empty(len(recipient_slots), np.int32)
        missing = settle.rows_to_create(read_only(walk.statuses), read_only(recipient_slots), rows)
        if not missing:
            return recipient_slots
        slots = recipient_slots.copy()
        words = key_words(columns.recipient)
        return slots if self._create(words, rows[:missing], slots, rules.accounts_max) else None

    def _fee_slot(self, fee_recipient: bytes, walk: Walk, rules: Rules) -> int | None:
        """Return the fee recipient's slot, -1 when there are no fees, None without room for it."""
        if not walk.fee_total:
            return -1
        words = key_words(np.frombuffer(fee_recipient, np.uint8).reshape(1, -1))
        slots = np.full(1, NO_SLOT, np.uint32)
        created = self._create(words, np.zeros(1, np.int32), slots, rules.accounts_max)
        return int(slots[0]) if created else None

    def _remove_from(self, count: int) -> None:
        """Remove the accounts from slot `count` on."""
        accounts.remove_accounts(self._entries, self.records, self._secret, count, self.count)
        self.count = count

    def _write(self, slots: U32, balances: U64, nonces: U64) -> None:
        """Set balances and nonces of the records at `slots`."""
        assert not len(slots) or int(slots[-1]) < self.count, "slots of accounts that exist"
        self._pool.run(
            accounts.write_values,
            self._ranges(len(slots), grain=WRITE_GRAIN),
            self.records,
            *(read_only(array) for array in (slots, balances, nonces)),
        )

    def _apply(
        self,
        columns: Columns,
        sender_slots: U32,
        recipient_slots: U32,
        walk: Walk,
        fee_slot: int,
        count_before: int,
        created: U64,
    ) -> Changes:
        """Write debits and credits, and collect the write set."""
        parts = len(self._ranges(len(recipient_slots), grain=SETTLE_GRAIN))
        words = bitmap.words_for(self.count)
        cuts = np.array([bitmap.WORD_BITS * (words * p // parts) for p in range(parts + 1)])
        each = [(part, part + 1) for part in range(parts)]
        lanes = np.empty((parts, len(sender_slots)), np.int32)
        credit_rows = np.empty((parts, len(recipient_slots)), np.int32)
        sizes = np.zeros((parts, 3), np.int64)
        senders, recipients = read_only(sender_slots), read_only(recipient_slots)
        statuses = read_only(walk.statuses)
        self._pool.run(
            settle.select_part,
            each,
            *(cuts, senders, statuses, recipients, fee_slot),
            *(self._bitmap, lanes, credit_rows, sizes),
        )
        ends = np.cumsum(sizes[:, settle.CHANGED])
        positions, changed = ends - sizes[:, settle.CHANGED], int(ends[-1])
        slots = np.empty(changed, np.uint32)
        before, after = np.empty(changed, np.uint64), np.empty(changed, np.uint64)
        nonces_before, nonces_after = np.empty(changed, np.uint64), np.empty(changed, np.uint64)
        sums = np.zeros((parts, 5), np.uint64)
        self._pool.run(
            settle.apply_part,
            each,
            *(cuts, positions, senders, read_only(walk.sender_balances)),
            *(read_only(walk.sender_nonces), recipients, read_only(columns.amount)),
            *(fee_slot, np.uint64(walk.fee_total), lanes, credit_rows, sizes),
            *(self._bitmap, self.records, slots, before, after, nonces_before, nonces_after, sums),
        )
        self._check_conservation(sums)
        return Changes(
            slots=slots,
            balances_before=before,
            balances_after=after,
            nonces_before=nonces_before,
            nonces_after=nonces_after,
            created_keys=created.view(np.uint8).reshape(-1, 8 * KEY_WORDS),
            count_before=count_before,
            count_after=self.count,
        )

    def _check_conservation(self, sums: U64) -> None:
        """Assert that units only moved, in 128 bits, and that no balance exceeds the supply."""
        before = sum(wide_to_int(row[settle.BEFORE_HIGH], row[settle.BEFORE_LOW]) for row in sums)
        after = sum(wide_to_int(row[settle.AFTER_HIGH], row[settle.AFTER_LOW]) for row in sums)
        assert before == after, f"balances summed to {before} before the block, {after} after it"
        greatest = int(sums[:, settle.BALANCE_MAX].max())
        assert greatest <= self.supply, f"a balance of {greatest} exceeds the supply"


def check_lanes(lane_offsets: I32, count: int) -> None:
    """Assert that offsets cut [0, count) into lanes, none of them empty."""
    assert lane_offsets[0] == 0, "lanes start at the first transaction"
    assert lane_offsets[-1] == count, "lanes end at the last transaction"
    assert bool((lane_offsets[1:] > lane_offsets[:-1]).all()), "no lane is empty"
