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

from typing import Any

import numpy as np

from kernels import accounts
from kernels.accounts import lookup_scalar, row_hash
from kernels.integers import ONE, U64_MAX, ZERO, kernel, leaf
from kernels.layout import NO_SLOT
from kernels.pending_rows import (
    AFTER,
    AGE,
    AMOUNT,
    ARRIVAL,
    ARRIVED,
    BEFORE,
    COST,
    COUNT,
    END,
    FEE,
    FIRST,
    FREE_ROWS,
    FREE_SENDERS,
    IS_TOUCHED,
    LAST,
    LEFT,
    LENGTH,
    LINK_NONCE,
    NEXT_NONCE,
    NONCE,
    OWNER,
    PARKED,
    RECORD_WORDS,
    REPLACED,
    ROWS,
    SENDER_WORDS,
    SENDERS,
    SPENDABLE,
    TAIL,
    TOUCHED,
    UNTIL,
    WAITING,
)
from kernels.prefetch import prefetch, prefetch_write

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

_ABSENT = np.uint32(NO_SLOT)
_TAG_MASK = np.uint64(0xFFFF_FFFF_0000_0000)
_PARKED_RANK = np.uint64(1)
_RANK_BASE = np.uint64(2)
_NINE, _TEN = np.uint64(9), np.uint64(10)
_CHAIN_END, _PARKED_END = np.uint64(CHAIN_MAX), np.uint64(PARKED_MAX)
_SLOT_MASK = np.uint64(0xFFFF_FFFF)
_GROUP, _AHEAD = 64, 16
NONE = np.uint64(NO_SLOT)
ONE_ROW = np.int64(1)

assert AGE_STEP > CHAIN_MAX + PARKED_MAX


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
    if p.senders[sender, IS_TOUCHED] == ZERO:
        p.senders[sender, IS_TOUCHED] = ONE
        p.touched[p.counts[TOUCHED]] = sender
        p.counts[TOUCHED] += 1


@leaf
def join(p: Any, sender: Any, previous: Any, following: Any) -> None:
    """Let two rows of a chain follow each other; NONE is its beginning or its end."""
    if previous == NONE:
        p.senders[sender, FIRST] = following
    else:
        p.links[np.int64(previous), AFTER] = following
    if following == NONE:
        p.senders[sender, LAST] = previous
    else:
        p.links[np.int64(following), BEFORE] = previous


@leaf
def drop(p: Any, row: Any, code: Any) -> None:
    """Free a row and touch its sender; the hash stays readable until the row is taken again."""
    sender = np.int64(p.links[row, OWNER])
    join(p, sender, p.links[row, BEFORE], p.links[row, AFTER])
    accounts.remove(p.by_hash, p.hashes, p.secret, row)
    accounts.remove(p.by_pair, p.links, p.secret, row)
    p.senders[sender, COST] -= p.words[row, AMOUNT] + p.words[row, FEE]
    p.senders[sender, LENGTH] -= ONE
    if p.rank[row] == _PARKED_RANK:
        count_parked(p, sender, -1)
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
def count_parked(p: Any, sender: Any, change: Any) -> None:
    """Add `change`, 1 or -1, to the parked rows."""
    p.senders[sender, WAITING] += np.uint64(np.int64(change))
    p.counts[PARKED] += change


@leaf
def extend(p: Any, sender: Any, row: Any, end: Any, least: Any, age: Any) -> None:
    """Rank rows from `row` on as long as no nonce is missing, and set where the chain ends.

    end: the nonce that is looked for first; least: the least fee before it; age: that of the row
    before it. A row that was parked is parked no more.
    """
    while row != NONE and p.links[np.int64(row), LINK_NONCE] == end:
        at = np.int64(row)
        if p.rank[at] == _PARKED_RANK:
            count_parked(p, sender, -1)
        least = min(least, p.words[at, FEE])
        age = max(p.links[at, ARRIVED], age + ONE)
        p.rank[at] = least + _RANK_BASE
        p.links[at, AGE] = age
        p.senders[sender, TAIL] = row
        end += ONE
        row = p.links[at, AFTER]
    p.senders[sender, END] = end


@leaf
def put_in_order(p: Any, sender: Any) -> None:
    """Find a chain's first gap again, drop used nonces, and rank all its rows."""
    row = p.senders[sender, FIRST]
    base = p.senders[sender, NEXT_NONCE]
    while row != NONE and p.links[np.int64(row), LINK_NONCE] < base:
        following = p.links[np.int64(row), AFTER]
        drop(p, np.int64(row), np.uint8(NONCE_USED))
        row = following
    p.senders[sender, TAIL] = NONE
    extend(p, sender, row, base, U64_MAX, ZERO)
    tail = p.senders[sender, TAIL]
    if tail != NONE:
        row = p.links[np.int64(tail), AFTER]
    while row != NONE:
        at = np.int64(row)
        if p.rank[at] != _PARKED_RANK:
            p.rank[at] = _PARKED_RANK
            p.links[at, AGE] = p.links[at, ARRIVED]
            count_parked(p, sender, 1)
        row = p.links[at, AFTER]


@kernel
def settle_touched(p: Any, is_strict: Any) -> None:
    """Put the chains of all touched senders in order.

    is_strict: also drop, from the greatest nonce on, what exceeds PARKED_MAX or cannot be paid,
    forget senders without rows, and begin a new list of touched ones. Otherwise more is to come.
    """
    for i in range(p.counts[TOUCHED]):
        ahead = min(i + _AHEAD, p.counts[TOUCHED] - 1)
        prefetch_write(p.senders, np.int64(p.touched[ahead]))
        ahead = min(i + _AHEAD // 2, p.counts[TOUCHED] - 1)
        first = p.senders[np.int64(p.touched[ahead]), FIRST]
        if first != NONE:
            prefetch_write(p.links, np.int64(first))
            prefetch(p.words, np.int64(first))
            prefetch_write(p.rank, np.int64(first))
        sender = np.int64(p.touched[i])
        put_in_order(p, sender)
        if not is_strict:
            continue
        was_cut = False
        while p.senders[sender, WAITING] > _PARKED_END:
            drop(p, np.int64(p.senders[sender, LAST]), np.uint8(PARKED_FULL))
        while p.senders[sender, COST] > p.senders[sender, SPENDABLE]:
            drop(p, np.int64(p.senders[sender, LAST]), np.uint8(INSUFFICIENT))
            was_cut = True
        if was_cut:
            put_in_order(p, sender)
        p.senders[sender, IS_TOUCHED] = ZERO
        if p.senders[sender, LENGTH] == ZERO:
            accounts.remove(p.by_key, p.senders, p.secret, sender)
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
    for word in range(SENDER_WORDS):
        p.senders[sender, word] = ZERO
    for word in range(4):
        p.senders[sender, word] = senders[i, word]
    p.senders[sender, NEXT_NONCE] = nonce
    p.senders[sender, END] = nonce
    p.senders[sender, SPENDABLE] = spendable
    p.senders[sender, FIRST] = NONE
    p.senders[sender, LAST] = NONE
    p.senders[sender, TAIL] = NONE
    enter(p.by_key, p.senders, p.secret, sender)
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
    p.counts[ARRIVAL] += AGE_STEP
    p.links[row, OWNER] = np.uint64(sender)
    p.links[row, LINK_NONCE] = words[i, NONCE]
    p.links[row, 2] = ZERO
    p.links[row, 3] = ZERO
    p.links[row, ARRIVED] = np.uint64(p.counts[ARRIVAL])
    p.links[row, AGE] = np.uint64(p.counts[ARRIVAL])
    p.until[row] = words[i, UNTIL]
    p.rank[row] = _PARKED_RANK
    p.senders[sender, LENGTH] += ONE
    p.senders[sender, COST] += words[i, AMOUNT] + words[i, FEE]
    p.counts[COUNT] += 1
    enter(p.by_hash, p.hashes, p.secret, row)
    enter(p.by_pair, p.links, p.secret, row)
    return row


@leaf
def link(p: Any, sender: Any, row: Any) -> None:
    """Put a filled row into its chain, and close the gap if it stood there.

    A row beyond the gap is looked for from the end on, over at most PARKED_MAX rows.
    """
    nonce = p.links[row, LINK_NONCE]
    is_next = nonce == p.senders[sender, END]
    tail = p.senders[sender, TAIL]
    previous = tail
    if not is_next:
        previous = p.senders[sender, LAST]
        while previous != NONE and p.links[np.int64(previous), LINK_NONCE] > nonce:
            previous = p.links[np.int64(previous), BEFORE]
    following = p.senders[sender, FIRST] if previous == NONE else p.links[np.int64(previous), AFTER]
    p.links[row, BEFORE] = previous
    p.links[row, AFTER] = following
    join(p, sender, previous, np.uint64(row))
    join(p, sender, np.uint64(row), following)
    count_parked(p, sender, 1)
    if is_next:
        least, age = U64_MAX, ZERO
        if tail != NONE:
            least = p.rank[np.int64(tail)] - _RANK_BASE
            age = p.links[np.int64(tail), AGE]
        extend(p, sender, np.uint64(row), nonce, least, age)


@leaf
def replace(p: Any, row: Any, words: Any, hashes: Any, i: Any, replaced: Any) -> None:
    """Put record i in the place of the one of the same sender and nonce; it keeps its arrival."""
    sender = np.int64(p.links[row, OWNER])
    accounts.remove(p.by_hash, p.hashes, p.secret, row)
    p.senders[sender, COST] -= p.words[row, AMOUNT] + p.words[row, FEE]
    for word in range(4):
        replaced[p.counts[REPLACED], word] = p.hashes[row, word]
        p.hashes[row, word] = hashes[i, word]
    p.counts[REPLACED] += 1
    for word in range(RECORD_WORDS):
        p.words[row, word] = words[i, word]
    p.until[row] = words[i, UNTIL]
    p.senders[sender, COST] += words[i, AMOUNT] + words[i, FEE]
    enter(p.by_hash, p.hashes, p.secret, row)
    touch(p, sender)


@leaf
def admit_known(
    p: Any, sender: Any, words: Any, hashes: Any, left: Any, is_forced: Any, pair: Any,
    replaced: Any, i: Any,
) -> Any:  # fmt: skip
    """Judge record i, whose sender has a chain; return (code, whether it is in a row already).

    left: what the account could still pay if it had nothing here.
    """
    if words[i, NONCE] != p.senders[sender, END]:
        pair[0, 0] = np.uint64(sender)
        pair[0, 1] = words[i, NONCE]
        found = lookup_scalar(p.by_pair, p.links, p.secret, pair, np.int64(0))
        if found != _ABSENT:
            row = np.int64(found)
            fee, old_fee = words[i, FEE], p.words[row, FEE]
            if fee < old_fee + max((old_fee + _NINE) // _TEN, ONE):
                return FEE_BUMP, True
            others = p.senders[sender, COST] - (p.words[row, AMOUNT] + old_fee)
            if others > left and not is_forced:
                return INSUFFICIENT, True
            replace(p, row, words, hashes, i, replaced)
            return ACCEPTED, True
        if p.senders[sender, WAITING] >= _PARKED_END:
            return PARKED_FULL, True
    if p.senders[sender, COST] > left and not is_forced:
        return INSUFFICIENT, True
    return ACCEPTED, False


@leaf
def admit_one(
    p: Any, words: Any, hashes: Any, senders: Any, spendable: Any, nonces: Any, is_forced: Any,
    pair: Any, replaced: Any, i: Any,
) -> Any:  # fmt: skip
    """Take record i in, or return why not."""
    if lookup_scalar(p.by_hash, p.hashes, p.secret, hashes, i) != _ABSENT:
        return DUPLICATE
    found = lookup_scalar(p.by_key, p.senders, p.secret, senders, i)
    base, can = nonces[i], spendable[i]
    if found != _ABSENT:
        base = p.senders[np.int64(found), NEXT_NONCE]
        can = p.senders[np.int64(found), SPENDABLE]
    nonce, amount, fee = words[i, NONCE], words[i, AMOUNT], words[i, FEE]
    if nonce < base:
        return NONCE_USED
    if nonce - base >= _CHAIN_END or nonce == U64_MAX:
        return NONCE_TOO_FAR
    if amount > can or fee > can - amount:
        return INSUFFICIENT
    if found == _ABSENT:
        sender = take_sender(p, senders, i, base, can)
    else:
        sender = np.int64(found)
        left = can - (amount + fee)
        code, is_done = admit_known(p, sender, words, hashes, left, is_forced, pair, replaced, i)
        if is_done:
            return code
    link(p, sender, take_row(p, sender, words, hashes, i))
    if is_forced:
        touch(p, sender)
    return ACCEPTED


@leaf
def ask_ahead(p: Any, hashes: Any, senders: Any, base: Any, stop: Any) -> None:
    """Ask for the memory that records [base, stop) will need, each pass for that of the next."""
    mask = np.uint64(p.by_hash.shape[0]) - ONE
    free = p.counts[FREE_ROWS] - ONE_ROW
    for i in range(base, stop):
        prefetch_write(p.by_hash, np.int64(row_hash(hashes, i, p.secret) & mask))
        prefetch(p.by_key, np.int64(row_hash(senders, i, p.secret) & mask))
        if free >= 0:
            prefetch_write(p.links, np.int64(p.free[free]))
            prefetch_write(p.words, np.int64(p.free[free]))
            prefetch_write(p.hashes, np.int64(p.free[free]))
            free -= ONE_ROW
    for i in range(base, stop):
        entry = p.by_key[np.int64(row_hash(senders, i, p.secret) & mask)]
        if entry != ZERO:
            prefetch_write(p.senders, np.int64((entry & _SLOT_MASK) - ONE))


@kernel
def admit(
    p: Any, words: Any, hashes: Any, senders: Any, spendable: Any, nonces: Any, is_forced: Any,
    pair: Any, codes: Any, replaced: Any,
) -> None:  # fmt: skip
    """Take in all records whose code is ACCEPTED, in their order; the code says what became of it.

    words: (n, 24), hashes and senders: (n, 4), spendable and nonces, of the sender's account: (n,)
    uint64; codes: (n,) uint8; pair: (1, 4) uint64 of zeros; replaced: (n, 4) uint64 for the hashes
    of what was replaced. is_forced: do not ask whether the whole chain can be paid;
    `settle_touched` will. Whatever was in the rows must be settled but for ranks, and n rows more
    must be free.
    """
    p.counts[REPLACED] = 0
    for base in range(0, codes.shape[0], _GROUP):
        stop = min(base + _GROUP, codes.shape[0])
        ask_ahead(p, hashes, senders, base, stop)
        for i in range(base, stop):
            if codes[i] == np.uint8(ACCEPTED):
                codes[i] = np.uint8(
                    admit_one(
                        p, words, hashes, senders, spendable, nonces, is_forced, pair, replaced, i
                    )
                )


@kernel
def drop_rows(p: Any, rows: Any, code: Any) -> None:
    """Free rows, (n,) uint32, NO_SLOT among them being skipped; none of them twice."""
    mask = np.uint64(p.by_hash.shape[0]) - ONE
    for base in range(0, rows.shape[0], _GROUP):
        stop = min(base + _GROUP, rows.shape[0])
        for i in range(base, stop):
            if rows[i] != _ABSENT:
                row = np.int64(rows[i])
                prefetch_write(p.links, row)
                prefetch(p.hashes, row)
                prefetch(p.words, row)
                prefetch_write(p.rank, row)
        for i in range(base, stop):
            if rows[i] != _ABSENT:
                row = np.int64(rows[i])
                prefetch_write(p.by_hash, np.int64(row_hash(p.hashes, row, p.secret) & mask))
                prefetch_write(p.by_pair, np.int64(row_hash(p.links, row, p.secret) & mask))
                prefetch_write(p.senders, np.int64(p.links[row, OWNER]))
        for i in range(base, stop):
            if rows[i] != _ABSENT:
                drop(p, np.int64(rows[i]), code)


@kernel
def update_accounts(p: Any, keys: Any, exists: Any, spendable: Any, nonces: Any) -> None:
    """Let senders among `keys`, (n, 4) uint64, have the accounts of the rows.

    Those are touched whose chain does not fit its account any more.

    exists: (n,) uint8; a sender without an account loses all its rows.
    """
    mask = np.uint64(p.by_key.shape[0]) - ONE
    for base in range(0, keys.shape[0], _GROUP):
        stop = min(base + _GROUP, keys.shape[0])
        for i in range(base, stop):
            prefetch(p.by_key, np.int64(row_hash(keys, i, p.secret) & mask))
        for i in range(base, stop):
            entry = p.by_key[np.int64(row_hash(keys, i, p.secret) & mask)]
            if entry != ZERO:
                prefetch_write(p.senders, np.int64((entry & _SLOT_MASK) - ONE))
        for i in range(base, stop):
            found = lookup_scalar(p.by_key, p.senders, p.secret, keys, i)
            if found == _ABSENT:
                continue
            sender = np.int64(found)
            # Most only received something: their chains stay as they are.
            is_same = p.senders[sender, NEXT_NONCE] == nonces[i]
            p.senders[sender, SPENDABLE] = spendable[i]
            p.senders[sender, NEXT_NONCE] = nonces[i]
            if not is_same or p.senders[sender, COST] > spendable[i]:
                touch(p, sender)
            if exists[i] == np.uint8(0):
                while p.senders[sender, FIRST] != NONE:
                    drop(p, np.int64(p.senders[sender, FIRST]), np.uint8(NO_ACCOUNT))
