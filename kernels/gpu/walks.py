"""Short lanes on a device, a thread for each; and what is known of the sender of any lane.

A short lane is `transfer.walk_lane`, the body of the CPU. Read `long_lanes` next.
Spec: spec/block.md#execution.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import cuda, types

from kernels.gpu.grid import THREADS, kernel
from kernels.gpu.prefix import block_sum
from kernels.integers import ZERO, leaf
from kernels.layout import BALANCE_WORD, NO_DEFECT, NO_SLOT, NONCE_WORD
from kernels.transfer import Limits, walk_lane

FIRST_DEFECT: Final = 0
FEES: Final = 1
MISSING: Final = 2
NUMBERS: Final = 3
"""Positions in `numbers`, (NUMBERS,) uint64: index << 8 | code of the first refused transaction,
2^64 - 1 if there is none; the sum of fees; and how many successes pay to a key without account."""
NO_REFUSAL: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

_ABSENT = np.uint32(NO_SLOT)
_NO_LANE = np.uint32(0xFFFF_FFFF)
CODE_BITS: Final = np.uint64(8)


class WalkColumns(NamedTuple):
    """The columns that a walk reads; `layout.Columns` has them under the same names."""

    version: Any
    kind: Any
    chain_id: Any
    nonce: Any
    valid_until: Any
    amount: Any
    fee: Any


class Sender(NamedTuple):
    """The sender of a lane before it."""

    balance: Any
    """uint64"""
    nonce: Any
    """uint64"""
    is_unknown: Any
    """has no account: balance and nonce are somebody else's"""
    is_repeated: Any
    """an earlier lane has the same sender"""


@leaf
def sender_of(lane: Any, sender_slots: Any, first_lanes: Any, records: Any) -> Any:
    """Return the sender of a lane, int64, after `claim_senders`."""
    is_unknown = sender_slots[lane] == _ABSENT
    row = np.int64(0) if is_unknown else np.int64(sender_slots[lane])
    is_repeated = (not is_unknown) and first_lanes[row] != np.uint32(lane)
    return Sender(records[row, BALANCE_WORD], records[row, NONCE_WORD], is_unknown, is_repeated)


@kernel
def claim_senders(sender_slots: Any, first_lanes: Any, numbers: Any) -> None:
    """Note the first lane of each sender, and that nothing is refused yet.

    first_lanes: (capacity,) uint32, 2^32 - 1 before; numbers: zero before.
    """
    lane = cuda.grid(1)
    if lane == 0:
        numbers[FIRST_DEFECT] = NO_REFUSAL
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
            sender = sender_of(lane, sender_slots, first_lanes, records)
            balance, after, fees, index, defect = walk_lane(
                columns, senders, recipient_slots, limits, start, stop, sender.balance,
                sender.nonce, sender.is_unknown, sender.is_repeated, statuses,
            )  # fmt: skip
            if defect != NO_DEFECT:
                code = (np.uint64(index) << CODE_BITS) | np.uint64(defect)
                cuda.atomic.min(numbers, FIRST_DEFECT, code)
            sender_balances[lane] = balance
            sender_nonces[lane] = after
            fee_sum = fees
    total = block_sum(shared, fee_sum)
    if cuda.threadIdx.x == 0 and total != ZERO:
        cuda.atomic.add(numbers, FEES, total)
