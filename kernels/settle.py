"""Settlement: what the walked lanes owe is written into the account records, once per block.

Senders get the balance and nonce of their lane, then every recipient of a successful transfer is
credited, the fee recipient last. Work is cut into parts by *slot*, not by transaction: each thread
owns the records and bitmap words of its part, so a recipient that everybody pays needs no lock and
costs an addition in the cache. First `select_part` finds the changed slots of each part, then,
when all sizes are known, `apply_part` writes each part's piece of the write set.
Spec: spec/block.md#settlement.
"""

from typing import Any

import numpy as np

from kernels.bitmap import WORD_BITS, count_marked, mark, take_marked
from kernels.integers import ZERO, add_wide, leaf
from kernels.jit import njit
from kernels.layout import BALANCE_WORD, NO_SLOT, NONCE_WORD, SUCCESS
from kernels.prefetch import prefetch, prefetch_write

RECORDS_AHEAD = 24
"""How many records ahead are asked for."""

# Positions in a row of `sizes`, (parts, 3) int64.
LANES = 0
CREDITS = 1
CHANGED = 2

# Positions in a row of `sums`, (parts, 5) uint64: 128-bit sums over the part's changed slots.
BEFORE_HIGH = 0
BEFORE_LOW = 1
AFTER_HIGH = 2
AFTER_LOW = 3
BALANCE_MAX = 4

_ABSENT = np.uint32(NO_SLOT)
_SUCCESS = np.uint8(SUCCESS)


@njit
def rows_to_create(statuses: Any, recipient_slots: Any, rows: Any) -> Any:
    """Write the rows of successful transfers to keys without account to `rows`, (n,) int32.

    Returns how many there are; they are in payload order, and keys may repeat.
    """
    found = 0
    for i in range(statuses.shape[0]):
        rows[found] = np.int32(i)
        found += np.int64((statuses[i] == _SUCCESS) & (recipient_slots[i] == _ABSENT))
    return found


@njit
def select_part(
    cuts: Any,
    sender_slots: Any,
    statuses: Any,
    recipient_slots: Any,
    fee_slot: Any,
    bitmap: Any,
    lanes: Any,
    credit_rows: Any,
    sizes: Any,
    start: Any,
    stop: Any,
) -> None:
    """Mark the changed slots of the parts [start, stop), and list who changes them.

    cuts: (parts + 1,) int64, part p owns the slots [cuts[p], cuts[p + 1]), multiples of 64.
    lanes: (parts, lane_count) int32 and credit_rows: (parts, n) int32 get the lanes whose sender
    and the transactions whose recipient the part owns; sizes: (parts, 3) int64 how many of each,
    and how many slots change. fee_slot: int64, or -1.
    """
    for part in range(start, stop):
        low, span = cuts[part], np.uint64(cuts[part + 1] - cuts[part])
        lane_count = 0
        for lane in range(sender_slots.shape[0]):
            lanes[part, lane_count] = np.int32(lane)
            lane_count += np.int64(np.uint64(np.int64(sender_slots[lane]) - low) < span)
        credit_count = 0
        for i in range(statuses.shape[0]):
            credit_rows[part, credit_count] = np.int32(i)
            owned = np.uint64(np.int64(recipient_slots[i]) - low) < span
            credit_count += np.int64(owned & (statuses[i] == _SUCCESS))
        for k in range(lane_count):
            mark(bitmap, sender_slots[lanes[part, k]])
        for k in range(credit_count):
            mark(bitmap, recipient_slots[credit_rows[part, k]])
        if cuts[part] <= fee_slot < cuts[part + 1]:
            mark(bitmap, fee_slot)
        sizes[part, LANES] = lane_count
        sizes[part, CREDITS] = credit_count
        sizes[part, CHANGED] = count_marked(
            bitmap, cuts[part] // WORD_BITS, cuts[part + 1] // WORD_BITS
        )


@leaf
def read_values(records: Any, slots: Any, balances: Any, nonces: Any, start: Any, stop: Any) -> Any:
    """Copy balances and nonces of the records at slots[start:stop] to the same places.

    Returns (upper half, lower half of the 128-bit sum of the balances, their maximum).
    """
    high, low, greatest = ZERO, ZERO, ZERO
    for k in range(start, stop):
        prefetch(records, np.int64(slots[min(k + RECORDS_AHEAD, stop - 1)]))
        slot = np.int64(slots[k])
        balance = records[slot, BALANCE_WORD]
        balances[k] = balance
        nonces[k] = records[slot, NONCE_WORD]
        high, low = add_wide(high, low, balance)
        greatest = max(greatest, balance)
    return high, low, greatest


@njit
def apply_part(
    cuts: Any,
    positions: Any,
    sender_slots: Any,
    sender_balances: Any,
    sender_nonces: Any,
    recipient_slots: Any,
    amounts: Any,
    fee_slot: Any,
    fee_total: Any,
    lanes: Any,
    credit_rows: Any,
    sizes: Any,
    bitmap: Any,
    records: Any,
    slots: Any,
    balances_before: Any,
    balances_after: Any,
    nonces_before: Any,
    nonces_after: Any,
    sums: Any,
    start: Any,
    stop: Any,
) -> None:
    """Settle the parts [start, stop) and write their piece of the write set.

    positions: (parts,) int64, where each part's piece starts in the arrays of `layout.Changes`.
    The bitmap is zero afterwards. sums: (parts, 5) uint64, see above.
    """
    for part in range(start, stop):
        first = positions[part]
        end = take_marked(
            bitmap, cuts[part] // WORD_BITS, cuts[part + 1] // WORD_BITS, slots, first
        )
        high, low, _ = read_values(records, slots, balances_before, nonces_before, first, end)
        sums[part, BEFORE_HIGH], sums[part, BEFORE_LOW] = high, low

        count = sizes[part, LANES]
        for k in range(count):
            ahead = lanes[part, min(k + RECORDS_AHEAD, count - 1)]
            prefetch_write(records, np.int64(sender_slots[ahead]))
            lane = lanes[part, k]
            slot = np.int64(sender_slots[lane])
            records[slot, BALANCE_WORD] = sender_balances[lane]
            records[slot, NONCE_WORD] = sender_nonces[lane]

        count = sizes[part, CREDITS]
        for k in range(count):
            ahead = credit_rows[part, min(k + RECORDS_AHEAD, count - 1)]
            prefetch_write(records, np.int64(recipient_slots[ahead]))
            row = credit_rows[part, k]
            records[np.int64(recipient_slots[row]), BALANCE_WORD] += amounts[row]
        if cuts[part] <= fee_slot < cuts[part + 1]:
            records[fee_slot, BALANCE_WORD] += fee_total

        high, low, greatest = read_values(records, slots, balances_after, nonces_after, first, end)
        sums[part, AFTER_HIGH], sums[part, AFTER_LOW] = high, low
        sums[part, BALANCE_MAX] = greatest
