"""Transactions that wait, in rows of arrays: chains by sender and nonce, found by hash.

Every sender with a row has a chain: its rows linked in order of nonce. The chain begins with the
account's next nonce as far as no nonce is missing (these rows can be included), then come the
parked ones, which wait for a gap to be closed. Three tables lead to rows and senders: by
transaction hash, by (sender, nonce) and by sender key; they are those of `accounts`, with
the same secret, so strangers who choose keys, nonces and hashes cannot aim at an entry.

`rank` and `age` put all rows into one order, which never puts a nonce before the one that it
needs: rank falls along a chain and age rises. A parked row has rank 1, a free row 0, any other
the least fee in its chain up to it, plus 2. Read `pending_order` for what uses them.
"""

from typing import Any, NamedTuple

import numpy as np

from kernels import accounts
from kernels.accounts import lookup_scalar, row_hash
from kernels.integers import ONE, U64_MAX, ZERO, leaf
from kernels.jit import njit
from kernels.layout import NO_SLOT, U8, U32, U64
from kernels.memory import zeros
from kernels.prefetch import prefetch, prefetch_write

RECORD_WORDS = 24
"""64-bit words of a transaction record; a row keeps all of them."""
NONCE, UNTIL, AMOUNT, FEE = 1, 2, 3, 4
"""Words of a record."""
AGE_STEP = 8_192
"""Arrivals are this far apart, so that the rows of a chain have room between two of them."""
CHAIN_MAX = 4_096
"""Nonces from the account's next on that a sender's rows may have."""
PARKED_MAX = 64
"""Rows of a sender beyond a gap."""

# Why a row was refused or left; `engine.pool_rules.PoolReason` gives these numbers their meaning.
ACCEPTED = 0
DUPLICATE = 1
NONCE_USED = 20
NONCE_TOO_FAR = 21
INSUFFICIENT = 22
PARKED_FULL = 23
FEE_BUMP = 24
NO_ACCOUNT = 25

# Places in `counts`.
ROWS, FREE_ROWS, SENDERS, FREE_SENDERS, COUNT, PARKED, TOUCHED, LEFT, ARRIVAL, REPLACED = range(10)

kernel: Any = njit(_nrt=False)
"""Compile without counting references: of a tuple of arrays each use would count all of them."""

_ABSENT = np.uint32(NO_SLOT)
_TAG_MASK = np.uint64(0xFFFF_FFFF_0000_0000)
_PARKED_RANK = np.uint64(1)
_RANK_BASE = np.uint64(2)
_NINE, _TEN = np.uint64(9), np.uint64(10)
_CHAIN_END = np.uint64(CHAIN_MAX)
_GROUP = 64

assert AGE_STEP > CHAIN_MAX + PARKED_MAX


class Pending(NamedTuple):
    """All arrays: r rows (and as many senders), capacity fixed. NO_SLOT stands for no row."""

    words: U64
    """(r, 24) uint64: the 192-byte records"""
    hashes: U64
    """(r, 4) uint64: transaction hashes"""
    pairs: U64
    """(r, 4) uint64: sender, nonce, 0, 0"""
    until: U64
    """(r,) uint64: last height, 2^64 - 1 for a free row"""
    rank: U64
    """(r,) uint64"""
    age: U64
    """(r,) uint64: unequal for all rows"""
    arrival: U64
    """(r,) uint64: multiples of AGE_STEP, in the order of arrival"""
    owner: U32
    """(r,) uint32: sender, NO_SLOT for a free row"""
    after: U32
    """(r,) uint32: next row of the chain"""
    before: U32
    """(r,) uint32"""
    free: U32
    """(r,) uint32: free rows below ROWS, a stack of FREE_ROWS"""
    keys: U64
    """(r, 4) uint64: senders' public keys"""
    nonce: U64
    """(r,) uint64: next nonce of the sender's account"""
    spendable: U64
    """(r,) uint64, base units"""
    cost: U64
    """(r,) uint64, base units: amounts and fees of the whole chain"""
    end: U64
    """(r,) uint64: first nonce that is missing"""
    first: U32
    """(r,) uint32: first row of the chain"""
    last: U32
    """(r,) uint32"""
    tail: U32
    """(r,) uint32: last row before the first gap"""
    length: U32
    """(r,) uint32: rows of the chain"""
    parked: U32
    """(r,) uint32: rows of it beyond a gap"""
    is_touched: U8
    """(r,) uint8: whether the sender is in `touched`"""
    touched: U32
    """(r,) uint32: senders whose chain must be put right, TOUCHED of them"""
    free_senders: U32
    """(r,) uint32: a stack of FREE_SENDERS"""
    left_rows: U32
    """(r,) uint32: rows that were freed since LEFT was set to 0"""
    left_codes: U8
    """(r,) uint8: why"""
    by_hash: U64
    by_pair: U64
    by_key: U64
    """(2^k,) uint64 each: entries of `accounts`"""
    counts: Any
    """(10,) int64: see the places above"""
    secret: U64
    """(8,) uint64, read-only"""


PER_ROW_BYTES = 8 * (RECORD_WORDS + 4 + 4 + 4 + 4 + 4) + 4 * (4 + 4 + 1 + 1 + 1 + 1) + 2
"""Of the arrays without the tables."""


def open_pending(rows: int, secret: U64) -> Pending:
    """Return empty arrays for `rows` rows; pages are taken when they are first written.

    secret: (8,) uint64, read-only.
    """
    table = accounts.entries_for(rows)

    def wide(*shape: int) -> U64:
        return zeros((rows, *shape), np.uint64)

    def narrow() -> U32:
        return zeros(rows, np.uint32)

    return Pending(
        wide(RECORD_WORDS), wide(4), wide(4), wide(), wide(), wide(), wide(),
        narrow(), narrow(), narrow(), narrow(),
        wide(4), wide(), wide(), wide(), wide(),
        narrow(), narrow(), narrow(), narrow(), narrow(),
        zeros(rows, np.uint8), narrow(), narrow(), narrow(), zeros(rows, np.uint8),
        zeros(table, np.uint64), zeros(table, np.uint64), zeros(table, np.uint64),
        np.zeros(10, np.int64), secret,
    )  # fmt: skip


def resident_bytes(pending: Pending) -> int:
    """Return the memory of all arrays when every page of them has been written."""
    return sum(int(array.nbytes) for array in pending)


@leaf
def enter(entries: Any, table_keys: Any, secret: Any, row: Any) -> None:
    """Enter a row whose key (four words of `table_keys`) is not in the table."""
    mask = np.uint64(entries.shape[0]) - ONE
    hashed = row_hash(table_keys, row, secret)
    position = hashed & mask
    while entries[np.int64(position)] != ZERO:
        position = (position + ONE) & mask
    entries[np.int64(position)] = (hashed & _TAG_MASK) | (np.uint64(row) + ONE)


@leaf
def touch(p: Any, sender: Any) -> None:
    """Remember that a sender's chain is to be put right."""
    if p.is_touched[sender] == np.uint8(0):
        p.is_touched[sender] = np.uint8(1)
        p.touched[p.counts[TOUCHED]] = sender
        p.counts[TOUCHED] += 1


@leaf
def drop(p: Any, row: Any, code: Any) -> None:
    """Free a row and touch its sender; the hash stays readable until the row is taken again."""
    sender = np.int64(p.owner[row])
    previous, following = p.before[row], p.after[row]
    if previous == _ABSENT:
        p.first[sender] = following
    else:
        p.after[np.int64(previous)] = following
    if following == _ABSENT:
        p.last[sender] = previous
    else:
        p.before[np.int64(following)] = previous
    accounts.remove(p.by_hash, p.hashes, p.secret, row)
    accounts.remove(p.by_pair, p.pairs, p.secret, row)
    p.cost[sender] -= p.words[row, AMOUNT] + p.words[row, FEE]
    p.length[sender] -= np.uint32(1)
    if p.rank[row] == _PARKED_RANK:
        p.parked[sender] -= np.uint32(1)
        p.counts[PARKED] -= 1
    p.owner[row] = _ABSENT
    p.until[row] = U64_MAX
    p.rank[row] = ZERO
    p.free[p.counts[FREE_ROWS]] = row
    p.counts[FREE_ROWS] += 1
    p.counts[COUNT] -= 1
    p.left_rows[p.counts[LEFT]] = row
    p.left_codes[p.counts[LEFT]] = code
    p.counts[LEFT] += 1
    touch(p, sender)


@leaf
def put_in_order(p: Any, sender: Any) -> None:
    """Find a chain's first gap again, drop used nonces, and rank all its rows."""
    row = p.first[sender]
    while row != _ABSENT and p.words[np.int64(row), NONCE] < p.nonce[sender]:
        following = p.after[np.int64(row)]
        drop(p, np.int64(row), np.uint8(NONCE_USED))
        row = following
    end, least, age = p.nonce[sender], U64_MAX, ZERO
    tail = _ABSENT
    while row != _ABSENT and p.words[np.int64(row), NONCE] == end:
        at = np.int64(row)
        if p.rank[at] == _PARKED_RANK:
            p.parked[sender] -= np.uint32(1)
            p.counts[PARKED] -= 1
        least = min(least, p.words[at, FEE])
        age = max(p.arrival[at], age + ONE)
        p.rank[at] = least + _RANK_BASE
        p.age[at] = age
        end += ONE
        tail = row
        row = p.after[at]
    p.end[sender] = end
    p.tail[sender] = tail
    while row != _ABSENT:
        at = np.int64(row)
        if p.rank[at] != _PARKED_RANK:
            p.rank[at] = _PARKED_RANK
            p.age[at] = p.arrival[at]
            p.parked[sender] += np.uint32(1)
            p.counts[PARKED] += 1
        row = p.after[at]


@kernel
def settle_touched(p: Any, is_strict: Any) -> None:
    """Put the chains of all touched senders in order.

    is_strict: also drop, from the greatest nonce on, what exceeds PARKED_MAX or cannot be paid,
    forget senders without rows, and begin a new list of touched ones. Otherwise more is to come.
    """
    for i in range(p.counts[TOUCHED]):
        sender = np.int64(p.touched[i])
        put_in_order(p, sender)
        if not is_strict:
            continue
        while p.parked[sender] > np.uint32(PARKED_MAX):
            drop(p, np.int64(p.last[sender]), np.uint8(PARKED_FULL))
        was_cut = False
        while p.cost[sender] > p.spendable[sender]:
            drop(p, np.int64(p.last[sender]), np.uint8(INSUFFICIENT))
            was_cut = True
        if was_cut:
            put_in_order(p, sender)
        p.is_touched[sender] = np.uint8(0)
        if p.length[sender] == np.uint32(0):
            accounts.remove(p.by_key, p.keys, p.secret, sender)
            p.free_senders[p.counts[FREE_SENDERS]] = sender
            p.counts[FREE_SENDERS] += 1
    if is_strict:
        p.counts[TOUCHED] = 0


@leaf
def take_sender(p: Any, senders: Any, i: Any, nonce: Any, spendable: Any) -> Any:
    """Begin an empty chain for the key senders[i]; return its number."""
    if p.counts[FREE_SENDERS] > 0:
        p.counts[FREE_SENDERS] -= 1
        sender = np.int64(p.free_senders[p.counts[FREE_SENDERS]])
    else:
        sender = p.counts[SENDERS]
        p.counts[SENDERS] += 1
    for word in range(4):
        p.keys[sender, word] = senders[i, word]
    p.nonce[sender] = nonce
    p.spendable[sender] = spendable
    p.cost[sender] = ZERO
    p.end[sender] = nonce
    p.first[sender] = p.last[sender] = p.tail[sender] = _ABSENT
    p.length[sender] = p.parked[sender] = np.uint32(0)
    enter(p.by_key, p.keys, p.secret, sender)
    return sender


@leaf
def take_row(p: Any, sender: Any, words: Any, hashes: Any, i: Any) -> Any:
    """Fill a free row with record i, in no chain yet; return it."""
    if p.counts[FREE_ROWS] > 0:
        p.counts[FREE_ROWS] -= 1
        row = np.int64(p.free[p.counts[FREE_ROWS]])
    else:
        row = p.counts[ROWS]
        p.counts[ROWS] += 1
    for word in range(RECORD_WORDS):
        p.words[row, word] = words[i, word]
    for word in range(4):
        p.hashes[row, word] = hashes[i, word]
    p.pairs[row, 0] = np.uint64(sender)
    p.pairs[row, 1] = words[i, NONCE]
    p.until[row] = words[i, UNTIL]
    p.owner[row] = np.uint32(sender)
    p.counts[ARRIVAL] += AGE_STEP
    p.arrival[row] = p.age[row] = np.uint64(p.counts[ARRIVAL])
    p.rank[row] = _PARKED_RANK
    p.length[sender] += np.uint32(1)
    p.cost[sender] += words[i, AMOUNT] + words[i, FEE]
    p.counts[COUNT] += 1
    enter(p.by_hash, p.hashes, p.secret, row)
    enter(p.by_pair, p.pairs, p.secret, row)
    return row


@leaf
def link(p: Any, sender: Any, row: Any) -> None:
    """Put a filled row into its chain, and close the gap if it stood there.

    A row beyond the gap is looked for from the end on, over at most PARKED_MAX rows.
    """
    nonce = p.words[row, NONCE]
    is_next = nonce == p.end[sender]
    previous = p.tail[sender]
    if not is_next:
        previous = p.last[sender]
        while previous != _ABSENT and p.words[np.int64(previous), NONCE] > nonce:
            previous = p.before[np.int64(previous)]
    following = p.first[sender] if previous == _ABSENT else p.after[np.int64(previous)]
    p.before[row] = previous
    p.after[row] = following
    if previous == _ABSENT:
        p.first[sender] = np.uint32(row)
    else:
        p.after[np.int64(previous)] = np.uint32(row)
    if following == _ABSENT:
        p.last[sender] = np.uint32(row)
    else:
        p.before[np.int64(following)] = np.uint32(row)
    p.parked[sender] += np.uint32(1)
    p.counts[PARKED] += 1
    if not is_next:
        return
    end, least, age = nonce, U64_MAX, ZERO
    if p.tail[sender] != _ABSENT:
        tail = np.int64(p.tail[sender])
        least = p.rank[tail] - _RANK_BASE
        age = p.age[tail]
    here = np.uint32(row)
    while here != _ABSENT and p.words[np.int64(here), NONCE] == end:
        at = np.int64(here)
        least = min(least, p.words[at, FEE])
        age = max(p.arrival[at], age + ONE)
        p.rank[at] = least + _RANK_BASE
        p.age[at] = age
        p.parked[sender] -= np.uint32(1)
        p.counts[PARKED] -= 1
        p.tail[sender] = here
        end += ONE
        here = p.after[at]
    p.end[sender] = end


@leaf
def replace(p: Any, row: Any, words: Any, hashes: Any, i: Any, replaced: Any) -> None:
    """Put record i in the place of the one of the same sender and nonce; it keeps its arrival."""
    sender = np.int64(p.owner[row])
    accounts.remove(p.by_hash, p.hashes, p.secret, row)
    p.cost[sender] -= p.words[row, AMOUNT] + p.words[row, FEE]
    for word in range(4):
        replaced[p.counts[REPLACED], word] = p.hashes[row, word]
        p.hashes[row, word] = hashes[i, word]
    p.counts[REPLACED] += 1
    for word in range(RECORD_WORDS):
        p.words[row, word] = words[i, word]
    p.until[row] = words[i, UNTIL]
    p.cost[sender] += words[i, AMOUNT] + words[i, FEE]
    enter(p.by_hash, p.hashes, p.secret, row)
    touch(p, sender)


@leaf
def admit_one(
    p: Any, words: Any, hashes: Any, senders: Any, spendable: Any, nonces: Any, is_forced: Any,
    pair: Any, replaced: Any, i: Any,
) -> Any:  # fmt: skip
    """Take record i in, or return why not."""
    if lookup_scalar(p.by_hash, p.hashes, p.secret, hashes, i) != _ABSENT:
        return DUPLICATE
    found = lookup_scalar(p.by_key, p.keys, p.secret, senders, i)
    is_new = found == _ABSENT
    sender = np.int64(0) if is_new else np.int64(found)
    nonce, amount, fee = words[i, NONCE], words[i, AMOUNT], words[i, FEE]
    base = nonces[i] if is_new else p.nonce[sender]
    can = spendable[i] if is_new else p.spendable[sender]
    if nonce < base:
        return NONCE_USED
    if nonce - base >= _CHAIN_END or nonce == U64_MAX:
        return NONCE_TOO_FAR
    if amount > can or fee > can - amount:
        return INSUFFICIENT
    left = can - (amount + fee)
    if not is_new:
        if nonce != p.end[sender]:
            pair[0, 0] = np.uint64(sender)
            pair[0, 1] = nonce
            row = lookup_scalar(p.by_pair, p.pairs, p.secret, pair, np.int64(0))
            if row != _ABSENT:
                at = np.int64(row)
                old_fee = p.words[at, FEE]
                if fee < old_fee + max((old_fee + _NINE) // _TEN, ONE):
                    return FEE_BUMP
                if p.cost[sender] - (p.words[at, AMOUNT] + old_fee) > left and not is_forced:
                    return INSUFFICIENT
                replace(p, at, words, hashes, i, replaced)
                return ACCEPTED
            if p.parked[sender] >= np.uint32(PARKED_MAX):
                return PARKED_FULL
        if p.cost[sender] > left and not is_forced:
            return INSUFFICIENT
    else:
        sender = take_sender(p, senders, i, base, can)
    row = take_row(p, sender, words, hashes, i)
    link(p, sender, row)
    if p.is_touched[sender] == np.uint8(0) and is_forced:
        touch(p, sender)
    return ACCEPTED


@kernel
def admit(
    p: Any, words: Any, hashes: Any, senders: Any, spendable: Any, nonces: Any, is_forced: Any,
    pair: Any, codes: Any, replaced: Any,
) -> None:  # fmt: skip
    """Take in all records whose code is ACCEPTED, in their order; the code says what became of it.

    words: (n, 24), hashes and senders: (n, 4), spendable and nonces, of the sender's account: (n,)
    uint64; codes: (n,) uint8; pair: (1, 4) uint64 of zeros; replaced: (n, 4) uint64 for the hashes of what was replaced.
    is_forced: do not ask whether the whole chain can be paid; `settle_touched` will. Whatever
    was in the rows must be settled, and n rows more must be free.
    """
    mask = np.uint64(p.by_hash.shape[0]) - ONE
    p.counts[REPLACED] = 0
    for base in range(0, codes.shape[0], _GROUP):
        stop = min(base + _GROUP, codes.shape[0])
        for i in range(base, stop):
            prefetch_write(p.by_hash, np.int64(row_hash(hashes, i, p.secret) & mask))
            prefetch(p.by_key, np.int64(row_hash(senders, i, p.secret) & mask))
        for i in range(base, stop):
            if codes[i] == np.uint8(ACCEPTED):
                codes[i] = np.uint8(
                    admit_one(
                        p, words, hashes, senders, spendable, nonces, is_forced, pair, replaced, i
                    )
                )


@kernel
def find_rows(p: Any, hashes: Any, rows: Any) -> None:
    """Write the row of each hash, (n, 4) uint64, to rows, (n,) uint32; NO_SLOT without one."""
    mask = np.uint64(p.by_hash.shape[0]) - ONE
    for base in range(0, rows.shape[0], _GROUP):
        stop = min(base + _GROUP, rows.shape[0])
        for i in range(base, stop):
            prefetch(p.by_hash, np.int64(row_hash(hashes, i, p.secret) & mask))
        for i in range(base, stop):
            rows[i] = lookup_scalar(p.by_hash, p.hashes, p.secret, hashes, i)


@kernel
def drop_rows(p: Any, rows: Any, code: Any) -> None:
    """Free rows, (n,) uint32, NO_SLOT among them being skipped; none of them twice."""
    for i in range(rows.shape[0]):
        if rows[i] != _ABSENT:
            drop(p, np.int64(rows[i]), code)


@kernel
def update_accounts(p: Any, keys: Any, exists: Any, spendable: Any, nonces: Any) -> None:
    """Let senders among `keys`, (n, 4) uint64, have the accounts of the rows; touch them.

    exists: (n,) uint8; a sender without an account loses all its rows.
    """
    mask = np.uint64(p.by_key.shape[0]) - ONE
    for base in range(0, keys.shape[0], _GROUP):
        stop = min(base + _GROUP, keys.shape[0])
        for i in range(base, stop):
            prefetch(p.by_key, np.int64(row_hash(keys, i, p.secret) & mask))
        for i in range(base, stop):
            found = lookup_scalar(p.by_key, p.keys, p.secret, keys, i)
            if found == _ABSENT:
                continue
            sender = np.int64(found)
            p.spendable[sender] = spendable[i]
            p.nonce[sender] = nonces[i]
            touch(p, sender)
            if exists[i] == np.uint8(0):
                while p.first[sender] != _ABSENT:
                    drop(p, np.int64(p.first[sender]), np.uint8(NO_ACCOUNT))
