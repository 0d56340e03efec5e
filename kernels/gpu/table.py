"""The account table on a device: the layout and the probing of `kernels.accounts`, many at a time.

Threads enter keys by compare-and-swap, so the order of a run of entries depends on chance; where a
key stands never reaches a result. A key is taken out by a tombstone: a slot beyond every record,
which no key equals, so that `accounts.probe` walks over it. Tombstones go when the table is filled
anew. Arrays: as in `kernels.accounts`. Account slots are given by `settlement`, never here.
"""

from typing import Any, Final

import numpy as np
from numba import cuda

from kernels.accounts import lookup_scalar, probe, row_hash
from kernels.gpu.grid import device_function, kernel
from kernels.integers import ONE, ZERO
from kernels.layout import ACCOUNT_WORDS, BALANCE_WORD, NO_SLOT, NONCE_WORD

_ABSENT = np.uint32(NO_SLOT)
_SLOT_MASK: Final = np.uint64(0xFFFF_FFFF)
_TAG_MASK: Final = np.uint64(0xFFFF_FFFF_0000_0000)
_TOMBSTONE: Final = np.uint64(0xFFFF_FFFF)
"""Slot 2^32 - 2, which no account has (`accounts_max` is at most that), and no tag."""
_FREE: Final = np.uint32(0xFFFF_FFFF)


@kernel
def find_keys(entries: Any, records: Any, secret: Any, keys: Any, found: Any) -> None:
    """Write the slot of each of (m, 4) uint64 keys, or NO_SLOT, to found, (m,) uint32."""
    i = cuda.grid(1)
    if i < found.shape[0]:
        found[i] = lookup_scalar(entries, records, secret, keys, i)


@kernel
def find_rows(entries: Any, records: Any, secret: Any, keys: Any, rows: Any, found: Any) -> None:
    """Do `find_keys` for keys[rows[i]]; rows: (at least m,) int32."""
    i = cuda.grid(1)
    if i < found.shape[0]:
        found[i] = lookup_scalar(entries, records, secret, keys, np.int64(rows[i]))


@device_function
def enter(entries: Any, records: Any, secret: Any, slot: Any) -> None:
    """Enter the key of a record that is not in the table; others may enter theirs meanwhile."""
    mask = np.uint64(entries.shape[0]) - ONE
    hashed = row_hash(records, slot, secret)
    entry = (hashed & _TAG_MASK) | (np.uint64(slot) + ONE)
    position = hashed & mask
    # Ends because at least two fifths of the entries are empty.
    while cuda.atomic.cas(entries, np.int64(position), ZERO, entry) != ZERO:
        position = (position + ONE) & mask


@kernel
def enter_slots(entries: Any, records: Any, secret: Any, first: Any, stop: Any) -> None:
    """Enter the keys of the records [first, stop), all different and none of them there."""
    slot = first + cuda.grid(1)
    if slot < stop:
        enter(entries, records, secret, slot)


@kernel
def forget_slots(entries: Any, records: Any, secret: Any, first: Any, stop: Any) -> None:
    """Put tombstones where the keys of the records [first, stop) stand; all are in the table."""
    slot = first + cuda.grid(1)
    if slot < stop:
        mask = np.uint64(entries.shape[0]) - ONE
        hashed = row_hash(records, slot, secret)
        place = probe(entries, records, records, slot, hashed, hashed & mask)[0]
        entries[np.int64(place)] = _TOMBSTONE


@kernel
def clear_records(records: Any, first: Any, stop: Any) -> None:
    """Zero the records [first, stop)."""
    slot = first + cuda.grid(1)
    if slot < stop:
        for word in range(ACCOUNT_WORDS):
            records[slot, word] = ZERO


@kernel
def write_keys(records: Any, keys: Any, first: Any) -> None:
    """Write (m, 4) uint64 keys into the records from slot `first` on."""
    i = cuda.grid(1)
    if i < keys.shape[0]:
        for word in range(4):
            records[first + i, word] = keys[i, word]


@kernel
def write_values(records: Any, slots: Any, balances: Any, nonces: Any) -> None:
    """Set balances and nonces, (m,) uint64, of the records at `slots`, (m,) uint32."""
    i = cuda.grid(1)
    if i < slots.shape[0]:
        slot = np.int64(slots[i])
        records[slot, BALANCE_WORD] = balances[i]
        records[slot, NONCE_WORD] = nonces[i]


@device_function
def is_same_key(keys: Any, row: Any, other: Any) -> Any:
    """Say whether two rows of `keys`, (m, 4) uint64, are equal."""
    difference = (keys[row, 0] ^ keys[other, 0]) | (keys[row, 1] ^ keys[other, 1])
    difference |= (keys[row, 2] ^ keys[other, 2]) | (keys[row, 3] ^ keys[other, 3])
    return difference == ZERO


@kernel
def claim_keys(keys: Any, secret: Any, claims: Any, places: Any) -> None:
    """Give each distinct key of `keys`, (m, 4) uint64, one place, and each place its least row.

    claims: (2^k > m,) uint32, all 2^32 - 1 before; places: (m,) uint32, each row's place. A place
    is taken by whoever comes first, yet belongs to one key for good; the least row is a minimum, so
    chance decides nothing but where a key stands.
    """
    row = cuda.grid(1)
    if row < keys.shape[0]:
        mask = np.uint64(claims.shape[0]) - ONE
        position = row_hash(keys, row, secret) & mask
        mine = np.uint32(row)
        while True:
            holder = cuda.atomic.cas(claims, np.int64(position), _FREE, mine)
            if holder == _FREE:
                break
            if is_same_key(keys, row, np.int64(holder)):
                cuda.atomic.min(claims, np.int64(position), mine)
                break
            position = (position + ONE) & mask
        places[row] = np.uint32(position)
