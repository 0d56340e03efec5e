"""Lanes on a device: a thread walks a short lane, a block of threads scans a long one.

A short lane is `transfer.walk_lane`, the body of the CPU. A long lane is cut into tiles of a few
transactions per thread, which are first taken to succeed: a prefix sum of what each spends says
where that stops being true, and up to there the statuses are right. From there to the end of the
tile one thread walks on with `transfer.walk_one`, the exact way, and the next tile begins with what
it left. Sums saturate at 2^64 - 1 instead of wrapping, so an amount of 2^64 - 52 cannot fold back
below a balance. Addition that saturates is associative, which a prefix sum needs.
Spec: spec/block.md#execution.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import cuda, types

from kernels.gpu.grid import SIMULATED, THREADS, device_function, kernel
from kernels.gpu.prefix import block_sum
from kernels.integers import ONE, U64_MAX, ZERO, leaf
from kernels.layout import (
    BALANCE_WORD,
    BELOW_ACCOUNT_MINIMUM,
    NO_DEFECT,
    NO_SLOT,
    NONCE_WORD,
    SUCCESS,
)
from kernels.transfer import LaneDefects, Limits, is_other_key, walk_lane, walk_one

FIRST_DEFECT: Final = 0
FEES: Final = 1
NUMBERS: Final = 2
"""Positions in `numbers`, (NUMBERS,) uint64: index << 8 | code of the first refused transaction,
2^64 - 1 if there is none; and the sum of fees."""

# Positions in the shared state of a long lane.
_SPENDABLE: Final = 0
_NONCE: Final = 1
_FAILED: Final = 2
_CODE: Final = 3
_AT: Final = 4

LANE_ITEMS: Final = 2 if SIMULATED else 8
"""Transactions of a long lane that each thread takes at a time."""
_ITEMS = np.uint64(LANE_ITEMS)
_LANE_TILE = np.uint64(LANE_ITEMS * THREADS)
_ABSENT = np.uint32(NO_SLOT)
_NO_LANE = np.uint32(0xFFFF_FFFF)
_CODE_BITS = np.uint64(8)
_SUCCESS = np.uint8(SUCCESS)
_BELOW_MINIMUM = np.uint8(BELOW_ACCOUNT_MINIMUM)
_VERSION = np.uint8(1)
_TRANSFER = np.uint8(0)


class WalkColumns(NamedTuple):
    """The columns that a walk reads; `layout.Columns` has them under the same names."""

    version: Any
    kind: Any
    chain_id: Any
    nonce: Any
    valid_until: Any
    amount: Any
    fee: Any


@leaf
def add_saturating(a: Any, b: Any) -> Any:
    """Return the sum of two uint64, or 2^64 - 1 where it is more."""
    total = a + b
    return U64_MAX if total < a else total


@kernel
def claim_senders(sender_slots: Any, first_lanes: Any) -> None:
    """Note the first lane of each sender. first_lanes: (capacity,) uint32, 2^32 - 1 before."""
    lane = cuda.grid(1)
    if lane < sender_slots.shape[0] and sender_slots[lane] != _ABSENT:
        cuda.atomic.min(first_lanes, np.int64(sender_slots[lane]), np.uint32(lane))


@kernel
def release_senders(sender_slots: Any, first_lanes: Any) -> None:
    """Leave `first_lanes` as it was found."""
    lane = cuda.grid(1)
    if lane < sender_slots.shape[0] and sender_slots[lane] != _ABSENT:
        first_lanes[np.int64(sender_slots[lane])] = _NO_LANE


@kernel
def walk_short(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    senders: Any, lane_offsets: Any, sender_slots: Any, recipient_slots: Any, first_lanes: Any,
    records: Any, chain: Any, height: Any, fee_minimum: Any, account_minimum: Any, long_lane: Any,
    statuses: Any, sender_balances: Any, sender_nonces: Any, numbers: Any,
) -> None:  # fmt: skip
    """Walk every lane of at most `long_lane` transactions; one thread each.

    senders: (n, 4) uint64; chain, height, fee_minimum, account_minimum, long_lane: uint64. Results
    as in `layout.Walk`; numbers: see NUMBERS.
    """
    shared = cuda.shared.array(THREADS, types.uint64)
    lane = cuda.grid(1)
    fee_sum = ZERO
    if lane < sender_slots.shape[0]:
        start, stop = np.uint64(lane_offsets[lane]), np.uint64(lane_offsets[lane + 1])
        if stop - start <= long_lane:
            columns = WalkColumns(version, kind, chain_id, nonce, valid_until, amount, fee)
            limits = Limits(chain, height, fee_minimum, account_minimum)
            is_unknown = sender_slots[lane] == _ABSENT
            row = np.int64(0) if is_unknown else np.int64(sender_slots[lane])
            is_repeated = (not is_unknown) and first_lanes[row] != np.uint32(lane)
            balance, after, fees, index, defect = walk_lane(
                columns, senders, recipient_slots, limits, start, stop,
                records[row, BALANCE_WORD], records[row, NONCE_WORD], is_unknown, is_repeated,
                statuses,
            )  # fmt: skip
            if defect != NO_DEFECT:
                code = (np.uint64(index) << _CODE_BITS) | np.uint64(defect)
                cuda.atomic.min(numbers, FIRST_DEFECT, code)
            sender_balances[lane] = balance
            sender_nonces[lane] = after
            fee_sum = fees
    total = block_sum(shared, fee_sum)
    if cuda.threadIdx.x == 0 and total != ZERO:
        cuda.atomic.add(numbers, FEES, total)


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
def walk_rest(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, start: Any, stop: Any,
    lane_start: Any, is_unknown: Any, is_repeated: Any, state: Any, statuses: Any,
) -> Any:  # fmt: skip
    """Walk transactions [start, stop) of a long lane one by one; returns the sum of their fees."""
    fees = ZERO
    i = start
    while i < stop and state[_CODE] == ZERO:
        is_split = i != lane_start and is_other_key(senders, i, lane_start)
        is_out_of_turn = (columns.nonce[i] != state[_NONCE]) | (state[_NONCE] == U64_MAX)
        defects = LaneDefects(is_split, is_unknown, is_repeated, is_out_of_turn)
        defect, spendable = walk_one(
            columns, recipient_slots, limits, i, defects, state[_SPENDABLE], statuses
        )
        if defect != NO_DEFECT:
            state[_CODE] = np.uint64(defect)
            state[_AT] = i
        else:
            state[_SPENDABLE] = spendable
            state[_NONCE] += ONE
            fees += columns.fee[i]
            i += ONE
    return fees


class Claim(NamedTuple):
    """What a transaction of a long lane comes to if all before it in its tile succeed."""

    spent: Any
    """uint64, leaves the sender: what the prefix sum adds up"""
    charge: Any
    """uint64, of it the fee"""
    full: Any
    """uint64, fee and amount: what the sender must have"""
    is_small: Any
    """below the minimum of a new account"""
    is_bad: Any
    """refused, whatever the sender has"""


@leaf
def claim_of(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, i: Any, start: Any, turn: Any
) -> Any:
    """Return the claim of transaction i of the lane that starts at `start`; turn: its nonce."""
    charge = columns.fee[i]
    full = add_saturating(charge, columns.amount[i])
    is_small = (recipient_slots[i] == _ABSENT) & (columns.amount[i] < limits.account_minimum)
    is_bad = (columns.nonce[i] != turn) | (turn == U64_MAX) | (charge < limits.fee_minimum)
    is_bad |= (columns.version[i] != _VERSION) | (columns.kind[i] != _TRANSFER)
    is_bad |= np.uint64(columns.chain_id[i]) != limits.chain_id
    is_bad |= limits.height > columns.valid_until[i]
    is_bad |= is_other_key(senders, i, start)
    return Claim(charge if is_small else full, charge, full, is_small, is_bad)


@device_function
def sum_spent(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, first: Any, last: Any, start: Any
) -> Any:
    """Return what the transactions [first, last) spend if all succeed, saturating."""
    total = ZERO
    for i in range(first, last):
        claim = claim_of(columns, senders, recipient_slots, limits, i, start, ZERO)
        total = add_saturating(total, claim.spent)
    return total


@device_function
def count_good(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, first: Any, last: Any,
    start: Any, turn: Any, before: Any, spendable: Any,
) -> Any:  # fmt: skip
    """Return how many of [first, last) can be paid, one after the other, and are not refused.

    turn: the nonce of the first one; before: what the tile spends before it.
    """
    i = first
    while i < last:
        claim = claim_of(
            columns, senders, recipient_slots, limits, i, start, add_saturating(turn, i - first)
        )
        if claim.is_bad or add_saturating(before, claim.full) > spendable:
            break
        before = add_saturating(before, claim.spent)
        i += ONE
    return i - first


@device_function
def take_good(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, first: Any, last: Any,
    start: Any, before: Any, statuses: Any,
) -> Any:  # fmt: skip
    """Write the statuses of [first, last), which are good; returns (fees, spent up to the last)."""
    fees = ZERO
    for i in range(first, last):
        claim = claim_of(columns, senders, recipient_slots, limits, i, start, ZERO)
        statuses[i] = _BELOW_MINIMUM if claim.is_small else _SUCCESS
        fees += claim.charge
        before += claim.spent
    return fees, before


@device_function
def walk_tile(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, base: Any, start: Any, stop: Any,
    is_unknown: Any, is_repeated: Any, costs: Any, state: Any, statuses: Any,
) -> Any:  # fmt: skip
    """Walk the tile at `base` of the lane [start, stop); returns this thread's sum of fees."""
    thread = cuda.threadIdx.x
    offset = np.uint64(thread) * _ITEMS
    first, last = min(base + offset, stop), min(base + offset + _ITEMS, stop)
    common = (columns, senders, recipient_slots, limits)
    scan_saturating(costs, sum_spent(*common, first, last, start))
    before = costs[thread - 1] if thread > 0 else ZERO
    turn = add_saturating(state[_NONCE], offset)
    good = ZERO
    if not (is_unknown or is_repeated):
        good = count_good(*common, first, last, start, turn, before, state[_SPENDABLE])
    if thread == 0:
        state[_FAILED] = min(_LANE_TILE, stop - base)
    cuda.syncthreads()
    if good < last - first:
        cuda.atomic.min(state, _FAILED, offset + good)
    cuda.syncthreads()
    failed = base + state[_FAILED]
    last = min(last, failed)
    fees = ZERO
    if first < last:
        fees, spent = take_good(*common, first, last, start, before, statuses)
        if last == failed:
            state[_SPENDABLE] -= spent
            state[_NONCE] += failed - base
    cuda.syncthreads()
    if thread == 0:
        end = min(base + _LANE_TILE, stop)
        fees += walk_rest(*common, failed, end, start, is_unknown, is_repeated, state, statuses)
    cuda.syncthreads()
    return fees


@kernel
def walk_long(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    senders: Any, lane_offsets: Any, sender_slots: Any, recipient_slots: Any, first_lanes: Any,
    records: Any, chain: Any, height: Any, fee_minimum: Any, account_minimum: Any, long_lanes: Any,
    statuses: Any, sender_balances: Any, sender_nonces: Any, numbers: Any,
) -> None:  # fmt: skip
    """Walk each of `long_lanes`, (k,) int32, with one block of threads; otherwise `walk_short`."""
    costs = cuda.shared.array(THREADS, types.uint64)
    state = cuda.shared.array(5, types.uint64)
    lane = np.int64(long_lanes[cuda.blockIdx.x])
    start, stop = np.uint64(lane_offsets[lane]), np.uint64(lane_offsets[lane + 1])
    columns = WalkColumns(version, kind, chain_id, nonce, valid_until, amount, fee)
    limits = Limits(chain, height, fee_minimum, account_minimum)
    is_unknown = sender_slots[lane] == _ABSENT
    row = np.int64(0) if is_unknown else np.int64(sender_slots[lane])
    is_repeated = (not is_unknown) and first_lanes[row] != np.uint32(lane)
    balance = records[row, BALANCE_WORD]
    reserve = min(balance, account_minimum)
    if cuda.threadIdx.x == 0:
        state[_SPENDABLE] = balance - reserve
        state[_NONCE] = records[row, NONCE_WORD]
        state[_CODE] = ZERO
    cuda.syncthreads()
    fees = ZERO
    base = start
    while base < stop and state[_CODE] == ZERO:
        fees += walk_tile(
            columns, senders, recipient_slots, limits, base, start, stop, is_unknown, is_repeated,
            costs, state, statuses,
        )  # fmt: skip
        base += _LANE_TILE
    total = block_sum(costs, fees)
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(numbers, FEES, total)
        if state[_CODE] != ZERO:
            cuda.atomic.min(numbers, FIRST_DEFECT, (state[_AT] << _CODE_BITS) | state[_CODE])
        sender_balances[lane] = reserve + state[_SPENDABLE]
        sender_nonces[lane] = state[_NONCE]
