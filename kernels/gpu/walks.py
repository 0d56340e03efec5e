"""Lanes on a device: a thread walks a short lane, a block of threads scans a long one.

A short lane is `transfer.walk_lane`, the body of the CPU. A long lane is cut into tiles of one
transaction per thread, which are first taken to succeed: a prefix sum of what each spends says
where that stops being true, and up to there the statuses are right. From there to the end of the
tile one thread walks on with `transfer.walk_one`, the exact way, and the next tile begins with what
it left. Sums saturate at 2^64 - 1 instead of wrapping, so an amount of 2^64 - 52 cannot fold back
below a balance. Addition that saturates is associative, which a prefix sum needs.
Spec: spec/block.md#execution.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import cuda, types

from kernels.gpu.grid import THREADS, device_function, kernel
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
def settle_tile(state: Any, costs: Any, is_bad: Any, size: Any) -> Any:
    """Take the first transactions of a tile that are all good; returns how many, uint64."""
    if cuda.threadIdx.x == 0:
        state[_FAILED] = size
    cuda.syncthreads()
    if is_bad:
        cuda.atomic.min(state, _FAILED, np.uint64(cuda.threadIdx.x))
    cuda.syncthreads()
    good = state[_FAILED]
    if cuda.threadIdx.x == 0 and good > ZERO:
        state[_SPENDABLE] -= costs[np.int64(good) - 1]
        state[_NONCE] += good
    return good


@device_function
def walk_tile(
    columns: Any, senders: Any, recipient_slots: Any, limits: Any, base: Any, start: Any, stop: Any,
    is_unknown: Any, is_repeated: Any, costs: Any, state: Any, statuses: Any,
) -> Any:  # fmt: skip
    """Walk the tile at `base` of the lane [start, stop); returns this thread's sum of fees."""
    thread = cuda.threadIdx.x
    i = base + np.uint64(thread)
    claim = Claim(ZERO, ZERO, ZERO, False, False)
    if i < stop:
        turn = add_saturating(state[_NONCE], np.uint64(thread))
        claim = claim_of(columns, senders, recipient_slots, limits, i, start, turn)
    scan_saturating(costs, claim.spent)
    before = costs[thread - 1] if thread > 0 else ZERO
    is_short = add_saturating(before, claim.full) > state[_SPENDABLE]
    is_bad = (i < stop) & (claim.is_bad | is_short | is_unknown | is_repeated)
    good = settle_tile(state, costs, is_bad, min(np.uint64(THREADS), stop - base))
    fees = ZERO
    if np.uint64(thread) < good:
        statuses[i] = _BELOW_MINIMUM if claim.is_small else _SUCCESS
        fees = claim.charge
    if thread == 0:
        end = min(base + np.uint64(THREADS), stop)
        fees += walk_rest(
            columns, senders, recipient_slots, limits, base + good, end, start, is_unknown,
            is_repeated, state, statuses,
        )  # fmt: skip
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
        base += np.uint64(THREADS)
    total = block_sum(costs, fees)
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(numbers, FEES, total)
        if state[_CODE] != ZERO:
            cuda.atomic.min(numbers, FIRST_DEFECT, (state[_AT] << _CODE_BITS) | state[_CODE])
        sender_balances[lane] = reserve + state[_SPENDABLE]
        sender_nonces[lane] = state[_NONCE]
