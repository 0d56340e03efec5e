"""Choose transactions for a payload: only what will succeed on the parent's state.

Each sender's transactions are put in order of nonce and cut before the first that could not be
included or would fail; lanes come in the order in which their first transaction arrived, and as
many are taken as the limits allow. Everything is decided by the order of arrival and the state, so
the same queue on the same state gives the same payload. Spec: spec/lanes.md, spec/block.md#checks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.codec import PayloadLimits, encode_payload, payload_bytes
from engine.columns import take
from engine.lanes import I64, group
from engine.state import State
from engine.transition import LedgerRules
from kernels.layout import I32, NO_SLOT, U8, U64, Columns

CANDIDATES_PER_PLACE = 2
"""Records that are looked at for each transaction that may be taken."""
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFF_FFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was chosen from candidates."""

    rows: I64
    """(n,) in the order of the payload"""
    lane_offsets: I32
    """(lane_count + 1,)"""
    is_useless: NDArray[np.bool_]
    """per candidate: could not be included on this state, or would fail"""


def build(columns: Columns, selection: Selection) -> bytes:
    """Return the payload of a selection."""
    return encode_payload(take(columns, selection.rows), selection.lane_offsets)


def select(
    columns: Columns, state: State, *, height: int, rules: LedgerRules, limits: PayloadLimits
) -> Selection:
    """Choose from candidates, in order of arrival, what goes into the payload at `height`.

    The state is that of the parent. Signatures, chain, version and kind were judged before.
    """
    count = len(columns.nonce)
    senders = state.accounts.lookup(columns.sender)
    exists = senders != NO_SLOT
    is_fit = exists & (columns.valid_until >= np.uint64(height))
    is_fit &= columns.fee >= np.uint64(rules.fee_minimum)
    is_fit &= columns.nonce != np.uint64(2**64 - 1)
    rows = np.flatnonzero(is_fit)
    rows = rows[_by_nonce(columns.nonce[rows], senders[rows])]
    rows, spendable, rank = _with_next_nonces(rows, columns, senders, state, rules)
    rows = rows[_is_paid(columns.amount[rows], columns.fee[rows], spendable, rank)]
    is_new, rows = _recipients(rows, columns, senders, state, rules)
    is_useless = np.ones(count, np.bool_)
    is_useless[rows] = False
    lanes = _in_order_of_arrival(rows, senders)
    rows, is_new = rows[lanes], is_new[lanes]
    offsets = _offsets(senders[rows])
    end = _cut(offsets, is_new, rules.accounts_max - state.count - 1, limits)
    rows = rows[:end]
    return Selection(rows=rows, lane_offsets=_offsets(senders[rows]), is_useless=is_useless)


def _by_nonce(nonces: U64, senders: NDArray[np.uint32]) -> I64:
    """Return positions grouped by sender, each in order of nonce, equal ones as they arrived."""
    order, offsets = group(senders.astype(np.uint64))
    ordered = nonces[order]
    falls = ordered[1:] < ordered[:-1]
    falls[offsets[1:-1] - 1] = False
    # Mostly a sender's transactions arrive in order, and then nothing has to be sorted.
    return np.lexsort((nonces, senders)) if falls.any() else order


def _with_next_nonces(
    rows: I64, columns: Columns, senders: NDArray[np.uint32], state: State, rules: LedgerRules
) -> tuple[I64, U64, I64]:
    """Keep of each lane, rows grouped by sender, what follows on its account's nonce.

    Returns rows, what each row's sender may spend at the start of the block, and each row's rank
    in its lane.
    """
    slots = senders[rows]
    nonces = columns.nonce[rows]
    is_again = np.zeros(len(rows), np.bool_)
    is_again[1:] = (slots[1:] == slots[:-1]) & (nonces[1:] == nonces[:-1])
    _, balances, next_nonces = state.accounts.read(slots)
    is_fit = ~is_again & (nonces >= next_nonces)
    rows, slots, nonces = rows[is_fit], slots[is_fit], nonces[is_fit]
    balances, next_nonces = balances[is_fit], next_nonces[is_fit]
    rank = _ranks(slots)
    # Nonces rise within a lane: after a gap every difference is too large as well.
    is_fit = nonces - next_nonces == rank.astype(np.uint64)
    reserve = np.minimum(balances, np.uint64(rules.account_minimum))
    return rows[is_fit], (balances - reserve)[is_fit], rank[is_fit]


def _is_paid(amounts: U64, fees: U64, spendable: U64, rank: I64) -> NDArray[np.bool_]:
    """Say which rows, lanes being whole, are covered together with those before in their lane."""
    count = len(rank)
    starts = np.arange(count) - rank
    sums = []
    for column in (amounts, fees):
        for half in (column & _LOW, column >> _HALF):
            total = np.cumsum(half, dtype=np.uint64)
            sums.append(total - (total - half)[starts] if count else total)
    low = sums[0] + sums[2]
    high = sums[1] + sums[3] + (low >> _HALF)
    limit_high, limit_low = spendable >> _HALF, spendable & _LOW
    return np.asarray(
        (high < limit_high) | ((high == limit_high) & ((low & _LOW) <= limit_low)), np.bool_
    )


def _recipients(
    rows: I64, columns: Columns, senders: NDArray[np.uint32], state: State, rules: LedgerRules
) -> tuple[NDArray[np.bool_], I64]:
    """Cut lanes before the first that pays too little to a new account.

    Returns which rows pay to a new account, and the rows.
    """
    is_new = state.accounts.lookup(np.ascontiguousarray(columns.recipient[rows])) == NO_SLOT
    fails = is_new & (columns.amount[rows] < np.uint64(rules.account_minimum))
    if fails.any():
        rank = _ranks(senders[rows])
        before = np.cumsum(fails) - fails
        starts = np.arange(len(rows)) - rank
        is_fit = ~fails & (before == before[starts])
        return is_new[is_fit], rows[is_fit]
    return is_new, rows


def _in_order_of_arrival(rows: I64, senders: NDArray[np.uint32]) -> I64:
    """Return positions with lanes in the order of their first arrival, whole and in order."""
    offsets = _offsets(senders[rows]).astype(np.int64)
    if len(offsets) == 1:
        return np.empty(0, np.int64)
    first = np.minimum.reduceat(rows, offsets[:-1])
    by_first = np.sort((first.astype(np.uint64) << _HALF) | np.arange(len(first), dtype=np.uint64))
    lanes = (by_first & _LOW).astype(np.int64)
    sizes = np.diff(offsets)[lanes]
    ends = np.cumsum(sizes)
    return np.repeat(offsets[:-1][lanes] - (ends - sizes), sizes) + np.arange(len(rows))


def _cut(offsets: I32, is_new: NDArray[np.bool_], room: int, limits: PayloadLimits) -> int:
    """Return how many rows from the first on fit the limits and the room for new accounts."""
    end = min(int(offsets[-1]), limits.transactions)
    lane_count = min(len(offsets) - 1, limits.objects)
    end = min(end, int(offsets[lane_count]))
    end = int(np.searchsorted(np.cumsum(is_new[:end]), max(room, 0), side="right"))
    low, high = 0, end
    while low < high:
        middle = (low + high + 1) // 2
        lanes = int(np.searchsorted(offsets, middle, side="left"))
        if payload_bytes(lanes, middle) <= limits.bytes:
            low = middle
        else:
            high = middle - 1
    return low


def _ranks(slots: U8 | NDArray[np.uint32]) -> I64:
    """Return each row's position within its run of equal slots."""
    places = np.arange(len(slots))
    is_first = np.ones(len(slots), np.bool_)
    np.not_equal(slots[1:], slots[:-1], out=is_first[1:])
    return places - np.maximum.accumulate(np.where(is_first, places, 0))


def _offsets(slots: NDArray[np.uint32]) -> I32:
    """Return the offsets of runs of equal slots, (runs + 1,) int32."""
    is_first = np.ones(len(slots), np.bool_)
    np.not_equal(slots[1:], slots[:-1], out=is_first[1:])
    return np.append(np.flatnonzero(is_first), len(slots)).astype(np.int32)
