"""A tile of a long lane: consecutive transactions that a block of threads takes at once.

They are first taken to succeed: a prefix sum of what each spends says where that stops being true,
and up to there, or to the first one that is refused, statuses are right. Sums saturate at 2^64 - 1
instead of wrapping, so an amount of 2^64 - 52 cannot fold back below a balance. Addition that
saturates is associative and commutes, which lets any thread add any part.

What is checked whatever the sender has is read in rows, neighbours by neighbouring threads; what
depends on the money before it is taken by each thread in order. Read `long_lanes` next.
Spec: spec/block.md#execution.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import cuda

from kernels.gpu.grid import SIMULATED, THREADS, device_function
from kernels.integers import ONE, U64_MAX, ZERO, leaf
from kernels.layout import BELOW_ACCOUNT_MINIMUM, NO_DEFECT, NO_SLOT, SUCCESS
from kernels.transfer import LaneDefects, is_other_key, walk_one

SPENDABLE: Final = 0
NONCE: Final = 1
GOOD: Final = 2
SPENT: Final = 3
CODE: Final = 4
AT: Final = 5
STATE: Final = 6
"""Positions in the `state` of a block of threads, (STATE,) uint64 in shared memory: the sender's
money and nonce before the tile; how many transactions of the tile are good, one after the other
from its first; what the lane has spent when those are paid; code and index of the lane's first
refused transaction, the code 0 while there is none."""

LANE_ITEMS: Final = 2 if SIMULATED else 8
"""Transactions of a tile that each thread takes."""
LANE_TILE: Final = LANE_ITEMS * THREADS
"""Transactions of a tile."""

TILE = np.uint64(LANE_TILE)
_ITEMS = np.uint64(LANE_ITEMS)
_ROW = np.uint64(THREADS)
_ABSENT = np.uint32(NO_SLOT)
_SUCCESS = np.uint8(SUCCESS)
_BELOW_MINIMUM = np.uint8(BELOW_ACCOUNT_MINIMUM)
_VERSION = np.uint8(1)
_TRANSFER = np.uint8(0)


class Cost(NamedTuple):
    """What a transaction takes from its sender if it is good."""

    spent: Any
    """uint64, leaves the sender: what the prefix sum adds up"""
    charge: Any
    """uint64, of it the fee"""
    full: Any
    """uint64, fee and amount: what the sender must have"""
    is_small: Any
    """below the minimum of a new account"""


@leaf
def add_saturating(a: Any, b: Any) -> Any:
    """Return the sum of two uint64, or 2^64 - 1 where it is more."""
    total = a + b
    return U64_MAX if total < a else total


@leaf
def cost_of(columns: Any, recipient_slots: Any, limits: Any, i: Any) -> Any:
    """Return the cost of transaction i."""
    charge = columns.fee[i]
    full = add_saturating(charge, columns.amount[i])
    is_small = (recipient_slots[i] == _ABSENT) & (columns.amount[i] < limits.account_minimum)
    return Cost(charge if is_small else full, charge, full, is_small)


@leaf
def is_refused(columns: Any, senders: Any, limits: Any, i: Any, start: Any, turn: Any) -> Any:
    """Say whether transaction i of the lane from `start` is refused whatever its sender has.

    turn: the sender's nonce if all before it in the lane succeed, saturating.
    """
    refused = (columns.nonce[i] != turn) | (turn == U64_MAX)
    refused |= columns.fee[i] < limits.fee_minimum
    refused |= (columns.version[i] != _VERSION) | (columns.kind[i] != _TRANSFER)
    refused |= np.uint64(columns.chain_id[i]) != limits.chain_id
    refused |= limits.height > columns.valid_until[i]
    return refused | is_other_key(senders, i, start)


@device_function
def scan_saturating(costs: Any, own: Any) -> None:
    """Make costs, (THREADS,) uint64 in shared memory, the inclusive prefix sums of every `own`."""
    thread = cuda.threadIdx.x
    costs[thread] = own
    cuda.syncthreads()
    reach = 1
    while reach < THREADS:
        before = costs[thread - reach] if thread >= reach else ZERO
        cuda.syncthreads()
        costs[thread] = add_saturating(costs[thread], before)
        cuda.syncthreads()
        reach *= 2


@device_function
def sum_costs(
    columns: Any, recipient_slots: Any, limits: Any, first: Any, end: Any, step: Any
) -> Any:
    """Return what transactions first, first + step, ... below `end` spend if all are good.

    They are at most LANE_ITEMS; the one before `end` is of the same tile.
    """
    total = ZERO
    # As often for any number of them and without a branch: reads need not wait for each other.
    for item in range(LANE_ITEMS):
        i = first + np.uint64(item) * step
        spent = cost_of(columns, recipient_slots, limits, min(i, end - ONE)).spent
        total = add_saturating(total, spent if i < end else ZERO)
    return total


@device_function
def sum_row_costs(columns: Any, recipient_slots: Any, limits: Any, base: Any, end: Any) -> Any:
    """Return this thread's part of what the tile [base, end) spends if all of it is good."""
    first = base + np.uint64(cuda.threadIdx.x)
    return sum_costs(columns, recipient_slots, limits, first, end, _ROW)


@device_function
def find_refused(
    columns: Any, senders: Any, limits: Any, base: Any, end: Any, start: Any, turn: Any, state: Any
) -> None:
    """Lower state[GOOD], that all threads see, to the first of [base, end) that `is_refused`.

    turn: the nonce of the first one. The result counts after the next barrier.
    """
    good = end - base
    first = base + np.uint64(cuda.threadIdx.x)
    # Without a branch, as in `sum_costs`; the last transaction may be looked at again.
    for row in range(LANE_ITEMS):
        i = min(first + np.uint64(row) * _ROW, end - ONE)
        if is_refused(columns, senders, limits, i, start, add_saturating(turn, i - base)):
            good = min(good, i - base)
    if good < end - base:
        cuda.atomic.min(state, GOOD, good)


@device_function
def count_paid(
    columns: Any, recipient_slots: Any, limits: Any, first: Any, last: Any, before: Any,
    spendable: Any,
) -> Any:  # fmt: skip
    """Return how many of [first, last) can be paid, one after the other.

    before: what is spent before them, of `spendable`.
    """
    i = first
    while i < last:
        cost = cost_of(columns, recipient_slots, limits, i)
        if add_saturating(before, cost.full) > spendable:
            break
        before = add_saturating(before, cost.spent)
        i += ONE
    return i - first


@device_function
def take_good(
    columns: Any, recipient_slots: Any, limits: Any, first: Any, last: Any, before: Any,
    statuses: Any,
) -> Any:  # fmt: skip
    """Write the statuses of [first, last), which are good; returns (fees, spent up to the last)."""
    fees = ZERO
    i = first
    while i < last:
        cost = cost_of(columns, recipient_slots, limits, i)
        statuses[i] = _BELOW_MINIMUM if cost.is_small else _SUCCESS
        fees += cost.charge
        before += cost.spent
        i += ONE
    return fees, before


@device_function
def pay_tile(
    columns: Any, recipient_slots: Any, limits: Any, base: Any, end: Any, before: Any,
    spendable: Any, costs: Any, state: Any, statuses: Any,
) -> Any:  # fmt: skip
    """Pay what is good of the tile [base, end); returns this thread's sum of fees.

    before: what the lane spends before it, of `spendable`. Lowers state[GOOD], see `find_refused`,
    to the first one that cannot be paid, and sets state[SPENT]. The result counts on return.
    """
    thread = cuda.threadIdx.x
    first = min(base + np.uint64(thread) * _ITEMS, end)
    last = min(first + _ITEMS, end)
    common = (columns, recipient_slots, limits)
    scan_saturating(costs, sum_costs(*common, first, last, ONE))
    if thread > 0:
        before = add_saturating(before, costs[thread - 1])
    else:
        state[SPENT] = before
    paid = count_paid(*common, first, last, before, spendable)
    if paid < last - first:
        cuda.atomic.min(state, GOOD, first + paid - base)
    cuda.syncthreads()
    stop = base + state[GOOD]
    last = min(last, stop)
    fees = ZERO
    if first < last:
        fees, spent = take_good(*common, first, last, before, statuses)
        if last == stop:
            state[SPENT] = spent
    cuda.syncthreads()
    return fees


@device_function
def walk_rest(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, first: Any, end: Any, start: Any,
    sender: Any, state: Any, statuses: Any,
) -> Any:  # fmt: skip
    """Walk [first, end) of the lane from `start` one by one; returns the sum of their fees."""
    fees = ZERO
    i = first
    while i < end and state[CODE] == ZERO:
        is_split = i != start and is_other_key(senders, i, start)
        is_out_of_turn = (columns.nonce[i] != state[NONCE]) | (state[NONCE] == U64_MAX)
        defects = LaneDefects(is_split, sender.is_unknown, sender.is_repeated, is_out_of_turn)
        defect, spendable = walk_one(
            columns, recipient_slots, limits, i, defects, state[SPENDABLE], statuses
        )
        if defect != NO_DEFECT:
            state[CODE] = np.uint64(defect)
            state[AT] = i
        else:
            state[SPENDABLE] = spendable
            state[NONCE] += ONE
            fees += columns.fee[i]
            i += ONE
    return fees


@device_function
def walk_tile(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, base: Any, end: Any, start: Any,
    sender: Any, costs: Any, state: Any, statuses: Any,
) -> Any:  # fmt: skip
    """Walk the tile [base, end) of the lane from `start`; returns this thread's sum of fees.

    What is good is paid by all threads, the rest walked by one of them.
    """
    thread = cuda.threadIdx.x
    if thread == 0:
        state[GOOD] = ZERO if sender.is_unknown or sender.is_repeated else end - base
    cuda.syncthreads()
    find_refused(columns, senders, limits, base, end, start, state[NONCE], state)
    fees = pay_tile(
        columns, recipient_slots, limits, base, end, ZERO, state[SPENDABLE], costs, state, statuses
    )
    if thread == 0:
        state[SPENDABLE] -= state[SPENT]
        state[NONCE] += state[GOOD]
        fees += walk_rest(
            columns, senders, recipient_slots, limits, base + state[GOOD], end, start, sender,
            state, statuses,
        )  # fmt: skip
    cuda.syncthreads()
    return fees
