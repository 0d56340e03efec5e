"""The account table: from 32-byte keys to account slots, in open addressing.

An entry is 8 bytes: the upper 32 bits of the key's hash as a tag, and slot + 1 below; zero is
empty. The table has a power of two of entries, at most 3/5 of them used, and is probed linearly
from `hash & mask`. Keys themselves stand only in the account records, and every hit compares all
32 bytes with them. Keys are chosen by strangers, so the hash is keyed by 64 secret bytes of the
process, and nothing of the table's order ever leaves it.

Cost is cache misses: one for the entry, one for the record. `lookup_range` therefore takes 64 keys
at a time through three passes (hash, probe, compare), each asking for what the next one reads.
Arrays: entries (2^k,) uint64; records (capacity, 8) uint64; secret (8,) uint64; keys (m, 4) uint64.
"""

from typing import Any

import numpy as np

from kernels.integers import ONE, ZERO, leaf, multiply_high
from kernels.jit import njit
from kernels.layout import NO_SLOT
from kernels.prefetch import prefetch, prefetch_write

GROUP = 64
"""Keys that go through a pass together: as many misses as a core keeps under way, and then some."""
ENTRIES_MIN = 64
SECRET_WORDS = 8

_ABSENT = np.uint32(NO_SLOT)
_SLOT_MASK = np.uint64(0xFFFF_FFFF)
_TAG_MASK = np.uint64(0xFFFF_FFFF_0000_0000)


def entries_for(count: int) -> int:
    """Return the least number of entries for `count` accounts: a power of two, load <= 3/5."""
    entries = ENTRIES_MIN
    while count_limit(entries) < count:
        entries *= 2
    return entries


def count_limit(entries: int) -> int:
    """Return how many accounts a table of that many entries may hold."""
    return entries * 3 // 5


@leaf
def key_hash(k0: Any, k1: Any, k2: Any, k3: Any, secret: Any) -> Any:
    """Return a uint64 that depends on all bits of the key (four uint64) and of the secret.

    The 128-bit sum of two keyed products (NH: two chosen keys meet with a chance of 2^-64), then
    one more product that spreads it over 64 bits.
    """
    a, b = k0 + secret[0], k1 + secret[1]
    c, d = k2 + secret[2], k3 + secret[3]
    first = a * b
    low = first + c * d
    high = multiply_high(a, b) + multiply_high(c, d) + np.uint64(low < first)
    low ^= secret[4]
    high ^= secret[5]
    return (low * high) ^ multiply_high(low, high) ^ secret[6]


@leaf
def row_hash(words: Any, row: Any, secret: Any) -> Any:
    """Return the hash of the key in the first four words of a row of keys or of records."""
    return key_hash(words[row, 0], words[row, 1], words[row, 2], words[row, 3], secret)


@leaf
def is_key(records: Any, slot: Any, keys: Any, row: Any) -> Any:
    """Say whether the record at `slot` has the key at `row`: all 32 bytes.

    A slot beyond the array is no match: a reader may hold records from before they grew.
    """
    if slot >= records.shape[0]:
        return False
    difference = (records[slot, 0] ^ keys[row, 0]) | (records[slot, 1] ^ keys[row, 1])
    difference |= (records[slot, 2] ^ keys[row, 2]) | (records[slot, 3] ^ keys[row, 3])
    return difference == ZERO


@leaf
def probe(entries: Any, records: Any, keys: Any, row: Any, hashed: Any, position: Any) -> Any:
    """Return (position, slot) of a key, or (position of the first empty entry, NO_SLOT).

    hashed: the key's hash, uint64; position: where to start, uint64. Ends because at least two
    fifths of the entries are empty.
    """
    mask = np.uint64(entries.shape[0]) - ONE
    while True:
        entry = entries[np.int64(position)]
        if entry == ZERO:
            return position, _ABSENT
        if ((entry ^ hashed) & _TAG_MASK) == ZERO:
            slot = np.int64((entry & _SLOT_MASK) - ONE)
            if is_key(records, slot, keys, row):
                return position, np.uint32(slot)
        position = (position + ONE) & mask


@leaf
def lookup_scalar(entries: Any, records: Any, secret: Any, keys: Any, row: Any) -> Any:
    """Return the slot of the key at `row` as uint32, or NO_SLOT: one key, no batching."""
    hashed = row_hash(keys, row, secret)
    home = hashed & (np.uint64(entries.shape[0]) - ONE)
    return probe(entries, records, keys, row, hashed, home)[1]


@njit
def lookup_each(
    entries: Any, records: Any, secret: Any, keys: Any, rows: Any, found: Any, start: Any, stop: Any
) -> None:
    """Do what `lookup_range` does, one key after the other: the serial arm."""
    indirect = rows.shape[0] > 0
    for i in range(start, stop):
        row = np.int64(rows[i]) if indirect else np.int64(i)
        found[i] = lookup_scalar(entries, records, secret, keys, row)


@njit
def lookup_range(
    entries: Any, records: Any, secret: Any, keys: Any, rows: Any, found: Any, start: Any, stop: Any
) -> None:
    """Write slots (or NO_SLOT) to found[start:stop], (m,) uint32, in groups of 64.

    The i-th key is keys[rows[i]], rows (m,) int32, or keys[i] when `rows` is empty.
    """
    mask = np.uint64(entries.shape[0]) - ONE
    indirect = rows.shape[0] > 0
    hashes = np.empty(GROUP, np.uint64)
    positions = np.empty(GROUP, np.uint64)
    for base in range(start, stop, GROUP):
        size = min(GROUP, stop - base)
        for j in range(size):
            row = np.int64(rows[base + j]) if indirect else np.int64(base + j)
            hashed = row_hash(keys, row, secret)
            hashes[j] = hashed
            prefetch(entries, np.int64(hashed & mask))
        for j in range(size):
            hashed = hashes[j]
            position = hashed & mask
            entry = entries[np.int64(position)]
            while entry != ZERO and ((entry ^ hashed) & _TAG_MASK) != ZERO:
                position = (position + ONE) & mask
                entry = entries[np.int64(position)]
            positions[j] = position
            # Of an empty entry this asks for a record that nobody needs, without a branch.
            prefetch(records, np.int64((entry & _SLOT_MASK) - np.uint64(entry != ZERO)))
        for j in range(size):
            row = np.int64(rows[base + j]) if indirect else np.int64(base + j)
            found[base + j] = probe(entries, records, keys, row, hashes[j], positions[j])[1]


@njit
def fill(entries: Any, records: Any, secret: Any, count: Any) -> Any:
    """Enter the keys of records [0, count) into an empty table.

    Returns `count`, or the slot of the first key that stands at a lesser slot too.
    """
    mask = np.uint64(entries.shape[0]) - ONE
    hashes = np.empty(GROUP, np.uint64)
    for base in range(0, count, GROUP):
        size = min(GROUP, count - base)
        for j in range(size):
            hashes[j] = row_hash(records, base + j, secret)
            prefetch_write(entries, np.int64(hashes[j] & mask))
        for j in range(size):
            hashed = hashes[j]
            place, slot = probe(entries, records, records, base + j, hashed, hashed & mask)
            if slot != _ABSENT:
                return base + j
            entries[np.int64(place)] = (hashed & _TAG_MASK) | (np.uint64(base + j) + ONE)
    return count


@njit
def create_accounts(
    entries: Any,
    records: Any,
    secret: Any,
    keys: Any,
    rows: Any,
    slots: Any,
    first: Any,
    count: Any,
    limit: Any,
) -> Any:
    """Find or create the accounts of keys[rows[first:]] and write each row's slot to slots[row].

    keys: (n, 4) uint64; rows: (m,) int32; slots: (n,) uint32. New accounts take the slots from
    `count` on, up to `limit`, in the order of the rows; their balances stay zero. Returns
    (position in rows of the first key that found no room, or m; count afterwards).
    """
    mask = np.uint64(entries.shape[0]) - ONE
    hashes = np.empty(GROUP, np.uint64)
    end = rows.shape[0]
    for base in range(first, end, GROUP):
        size = min(GROUP, end - base)
        for j in range(size):
            hashes[j] = row_hash(keys, np.int64(rows[base + j]), secret)
            prefetch_write(entries, np.int64(hashes[j] & mask))
        for j in range(size):
            row = np.int64(rows[base + j])
            hashed = hashes[j]
            place, slot = probe(entries, records, keys, row, hashed, hashed & mask)
            if slot == _ABSENT:
                if count >= limit:
                    return base + j, count
                for word in range(4):
                    records[count, word] = keys[row, word]
                slot = np.uint32(count)
                count += 1
                entries[np.int64(place)] = (hashed & _TAG_MASK) | np.uint64(count)
            slots[row] = slot
    return end, count


@njit
def remove(entries: Any, records: Any, secret: Any, slot: Any) -> None:
    """Take the key of the record at `slot` out of the table; the record must be in it.

    Later entries of the same run move back over the gap, so that probing needs no tombstones.
    """
    mask = np.uint64(entries.shape[0]) - ONE
    wanted = np.uint64(slot) + ONE
    gap = row_hash(records, slot, secret) & mask
    while (entries[np.int64(gap)] & _SLOT_MASK) != wanted:
        gap = (gap + ONE) & mask
    position = gap
    while True:
        position = (position + ONE) & mask
        entry = entries[np.int64(position)]
        if entry == ZERO:
            break
        home = row_hash(records, np.int64((entry & _SLOT_MASK) - ONE), secret) & mask
        # Not before its home: it may move when its home is not between the gap and itself.
        if ((position - home) & mask) >= ((position - gap) & mask):
            entries[np.int64(gap)] = entry
            gap = position
    entries[np.int64(gap)] = ZERO


@njit
def remove_accounts(entries: Any, records: Any, secret: Any, count: Any, count_after: Any) -> None:
    """Remove the accounts at slots [count, count_after) and zero their records."""
    for slot in range(count_after - 1, count - 1, -1):
        remove(entries, records, secret, slot)
        for word in range(records.shape[1]):
            records[slot, word] = ZERO


@njit
def write_values(
    records: Any, slots: Any, balances: Any, nonces: Any, start: Any, stop: Any
) -> None:
    """Set balances and nonces, (m,) uint64, of the records at slots[start:stop], (m,) uint32."""
    for i in range(start, stop):
        ahead = slots[min(i + 16, stop - 1)]
        prefetch_write(records, np.int64(ahead))
        slot = np.int64(slots[i])
        records[slot, 4] = balances[i]
        records[slot, 5] = nonces[i]
