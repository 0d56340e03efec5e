"""Settlement on a device: slots of new accounts, debits, credits, and the write set.

New accounts: the rows that pay to keys without account are listed in payload order, each key finds
the least row that names it, and a prefix sum over those rows is the order of slots. The fee
recipient is looked up behind them. Credits are atomic additions, which commute; a changed slot is a
bit set by an atomic or, and the bits are read out ascending by another prefix sum. How many
accounts were created and changed is known on the device: arrays are as long as the host knows that
they need to be at most, and kernels read where they end.
Spec: spec/block.md#settlement.
"""

from typing import Any, Final

import numpy as np
from numba import cuda, types

from kernels.accounts import lookup_scalar
from kernels.bitmap import count_marked, take_marked
from kernels.gpu.grid import THREADS, device_function, kernel
from kernels.gpu.prefix import add_halves, block_maximum, block_sum
from kernels.gpu.table import enter
from kernels.gpu.walks import MISSING
from kernels.integers import ONE, ZERO
from kernels.layout import BALANCE_WORD, NO_SLOT, NONCE_WORD, SUCCESS

BEFORE_LOW: Final = 0
BEFORE_HIGH: Final = 1
AFTER_LOW: Final = 2
AFTER_HIGH: Final = 3
BALANCE_MAX: Final = 4
SUMS: Final = 5
"""Positions in `sums`, (SUMS,) uint64: sums of lower and of upper halves, and the greatest."""
CREATED: Final = 0
CHANGED: Final = 1
COUNTS: Final = 2
"""Positions in `counts`, (COUNTS,) uint64: how many accounts a block created, and changed."""
PARTS: Final = 4
"""What `values` hold of each changed slot, (PARTS * m,) uint64 one after the other: m balances and
m nonces before the block, at BEFORE_LOW, and as many after it, at AFTER_LOW."""

_ABSENT = np.uint32(NO_SLOT)
_SUCCESS = np.uint8(SUCCESS)
_NONE = np.uint32(0)
_SET = np.uint32(1)
_SHIFT = np.uint64(6)
_BIT_MASK = np.uint64(63)


@kernel
def flag_missing(statuses: Any, recipient_slots: Any, flags: Any, numbers: Any) -> None:
    """Set flags, (n,) uint32, to 1 for each success that pays to a key without account.

    Adds how many there are to numbers[MISSING], see `walks`.
    """
    shared = cuda.shared.array(THREADS, types.uint64)
    i = cuda.grid(1)
    flag = _NONE
    if i < flags.shape[0]:
        if (statuses[i] == _SUCCESS) & (recipient_slots[i] == _ABSENT):
            flag = _SET
        flags[i] = flag
    total = block_sum(shared, np.uint64(flag))
    if cuda.threadIdx.x == 0 and total != ZERO:
        cuda.atomic.add(numbers, MISSING, total)


@kernel
def list_missing(flags: Any, positions: Any, recipients: Any, rows: Any, keys: Any) -> None:
    """Write flagged rows and their recipients' keys to rows, (m,) int32, and keys, (m, 4)."""
    i = cuda.grid(1)
    if i < flags.shape[0] and flags[i] == _SET:
        place = np.int64(positions[i])
        rows[place] = np.int32(i)
        for word in range(4):
            keys[place, word] = recipients[i, word]


@kernel
def flag_first(claims: Any, places: Any, flags: Any) -> None:
    """Set flags, (m,) uint32, to 1 for the least row of each key; see `table.claim_keys`."""
    row = cuda.grid(1)
    if row < flags.shape[0]:
        flags[row] = _SET if claims[np.int64(places[row])] == np.uint32(row) else _NONE


@kernel
def create_accounts(
    entries: Any, records: Any, secret: Any, keys: Any, flags: Any, ranks: Any, count: Any,
    created_keys: Any,
) -> None:  # fmt: skip
    """Give each flagged row's key the slot count + rank, with balance and nonce zero.

    created_keys: (at least as many as are flagged, 4) uint64, the keys in the order of slots.
    """
    row = cuda.grid(1)
    if row < flags.shape[0] and flags[row] == _SET:
        rank = np.int64(ranks[row])
        put_key(entries, records, secret, keys, row, count + rank, created_keys, rank)


@device_function
def put_key(
    entries: Any, records: Any, secret: Any, keys: Any, row: Any, slot: Any, created_keys: Any,
    rank: Any,
) -> None:  # fmt: skip
    """Create an account of keys[row] at a slot, and note its key."""
    for word in range(4):
        records[slot, word] = keys[row, word]
        created_keys[rank, word] = keys[row, word]
    enter(entries, records, secret, slot)


@kernel
def assign_slots(claims: Any, places: Any, ranks: Any, rows: Any, count: Any, slots: Any) -> None:
    """Write the new slot of each listed row to slots[rows[row]]; slots: (n,) uint32."""
    row = cuda.grid(1)
    if row < rows.shape[0]:
        rank = ranks[np.int64(claims[np.int64(places[row])])]
        slots[np.int64(rows[row])] = np.uint32(count + np.int64(rank))


@kernel
def open_settlement(
    entries: Any, records: Any, secret: Any, key: Any, fee_total: Any, count: Any, room: Any,
    created: Any, created_keys: Any, fee_slot: Any, counts: Any, sums: Any,
) -> None:  # fmt: skip
    """Find the fee recipient, or create it behind the `created` ones, and set sums to zero.

    For one thread. key: (1, 4) uint64; created: (1,) uint32. fee_slot: (1,) int64 gets its slot, -1
    without fees. counts[CREATED] gets how many accounts there are more; where those are more than
    `room` (int64) allows nothing is created here, and nothing else counts.
    """
    if cuda.grid(1) == 0:
        made = np.int64(created[0])
        slot = np.int64(-1)
        if fee_total != ZERO:
            slot = np.int64(lookup_scalar(entries, records, secret, key, 0))
            if slot == NO_SLOT:
                slot = count + made
                if made < room:
                    put_key(entries, records, secret, key, 0, slot, created_keys, made)
                made += 1
        fee_slot[0] = slot
        counts[CREATED] = np.uint64(made)
        for i in range(SUMS):
            sums[i] = ZERO


@device_function
def mark(bitmap: Any, slot: Any) -> None:
    """Put a slot into the set; others may put theirs meanwhile."""
    wide = np.uint64(slot)
    cuda.atomic.or_(bitmap, np.int64(wide >> _SHIFT), ONE << (wide & _BIT_MASK))


@kernel
def mark_changed(
    sender_slots: Any, statuses: Any, recipient_slots: Any, fee_slot: Any, bitmap: Any
) -> None:
    """Put senders, recipients of successes and the fee recipient into the set.

    fee_slot: (1,) int64, -1 without fees.
    """
    i = cuda.grid(1)
    if i < sender_slots.shape[0]:
        mark(bitmap, sender_slots[i])
    if i < statuses.shape[0] and statuses[i] == _SUCCESS:
        mark(bitmap, recipient_slots[i])
    if i == 0 and fee_slot[0] >= 0:
        mark(bitmap, fee_slot[0])


@kernel
def count_words(bitmap: Any, counts: Any) -> None:
    """Write how many slots each of the first words holds to counts, (w,) uint32."""
    i = cuda.grid(1)
    if i < counts.shape[0]:
        counts[i] = np.uint32(count_marked(bitmap, i, i + 1))


@kernel
def take_words(bitmap: Any, starts: Any, total: Any, slots: Any, counts: Any) -> None:
    """Move the set's slots to `slots`, ascending, and their number to counts[CHANGED].

    starts: (w,) uint32, total: (1,) uint32: prefix sums of what `count_words` counted; slots: (at
    least as many,) uint32.
    """
    i = cuda.grid(1)
    if i < starts.shape[0]:
        take_marked(bitmap, i, i + 1, slots, np.int64(starts[i]))
    if i == 0:
        counts[CHANGED] = np.uint64(total[0])


@kernel
def read_changed(records: Any, slots: Any, counts: Any, values: Any, part: Any, sums: Any) -> None:
    """Copy balances and nonces of the records at the changed `slots`, and add up the balances.

    values: (at least PARTS * counts[CHANGED],) uint64; part: int64, BEFORE_LOW or AFTER_LOW, the
    first of two in `values` and of two `sums`, whose greatest balance is raised as well.
    """
    shared = cuda.shared.array(THREADS, types.uint64)
    changed = np.int64(counts[CHANGED])
    if cuda.blockIdx.x * THREADS < changed:
        i = cuda.grid(1)
        balance = ZERO
        if i < changed:
            slot = np.int64(slots[i])
            balance = records[slot, BALANCE_WORD]
            values[part * changed + i] = balance
            values[(part + 1) * changed + i] = records[slot, NONCE_WORD]
        add_halves(shared, balance, sums, part, part + 1)
        greatest = block_maximum(shared, balance)
        if cuda.threadIdx.x == 0:
            cuda.atomic.max(sums, BALANCE_MAX, greatest)


@kernel
def debit_senders(
    records: Any, sender_slots: Any, sender_balances: Any, sender_nonces: Any
) -> None:
    """Give each lane's sender the balance and nonce of its lane; no sender has two lanes."""
    lane = cuda.grid(1)
    if lane < sender_slots.shape[0]:
        slot = np.int64(sender_slots[lane])
        records[slot, BALANCE_WORD] = sender_balances[lane]
        records[slot, NONCE_WORD] = sender_nonces[lane]


@kernel
def credit_recipients(
    records: Any, statuses: Any, recipient_slots: Any, amounts: Any, fee_slot: Any, fee_total: Any
) -> None:
    """Add the amount of each success to its recipient, and the fees to the fee recipient.

    fee_slot: (1,) int64, -1 without fees.
    """
    i = cuda.grid(1)
    if i < statuses.shape[0] and statuses[i] == _SUCCESS:
        place = (np.int64(recipient_slots[i]), BALANCE_WORD)
        cuda.atomic.add(records, place, amounts[i])
    if i == 0 and fee_slot[0] >= 0:
        cuda.atomic.add(records, (fee_slot[0], BALANCE_WORD), fee_total)
