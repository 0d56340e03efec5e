"""Execution of transfers: from a lane of transactions to statuses and the sender's account after.

`walk_lane` is the body: one lane, serial, reading the sender's balance and nonce and nothing else
of the state. Credits settle when all lanes are done (`settle`), so lanes never see each other and
the outcome does not depend on who walks them, or in which order.
Spec: spec/block.md#execution, spec/block.md#checks.
"""

from typing import Any, NamedTuple

import numpy as np

from kernels.integers import ONE, U64_MAX, ZERO, leaf
from kernels.jit import njit
from kernels.layout import (
    BALANCE_WORD,
    BELOW_ACCOUNT_MINIMUM,
    CHAIN_ID,
    EXPIRED,
    FEE_ABOVE_SPENDABLE,
    FEE_BELOW_MINIMUM,
    INSUFFICIENT_BALANCE,
    LANE_MERGEABLE,
    LANE_SPLITTABLE,
    NO_DEFECT,
    NO_SLOT,
    NONCE,
    NONCE_WORD,
    TRANSACTION_KIND,
    TRANSACTION_VERSION,
    UNKNOWN_SENDER,
)
from kernels.prefetch import prefetch

LANES_AHEAD = np.uint64(64)
"""How many lanes ahead the sender's record is asked for."""

_ABSENT = np.uint32(NO_SLOT)
_VERSION = np.uint8(1)
_TRANSFER = np.uint8(0)
_INSUFFICIENT = np.uint8(INSUFFICIENT_BALANCE)
_BELOW_MINIMUM = np.uint8(BELOW_ACCOUNT_MINIMUM)


@leaf
def is_other_key(keys: Any, row: Any, other: Any) -> Any:
    """Say whether two rows of `keys`, (n, 4) uint64, differ."""
    difference = (keys[row, 0] ^ keys[other, 0]) | (keys[row, 1] ^ keys[other, 1])
    difference |= (keys[row, 2] ^ keys[other, 2]) | (keys[row, 3] ^ keys[other, 3])
    return difference != ZERO


class Limits(NamedTuple):
    """What transactions are checked against, uint64 each."""

    chain_id: np.uint64
    height: np.uint64
    fee_minimum: np.uint64
    """base units"""
    account_minimum: np.uint64
    """base units"""


class LaneDefects(NamedTuple):
    """What is wrong with a lane, or with one transaction's place in it."""

    is_split: bool
    """another sender than the lane's first transaction"""
    is_unknown: bool
    """the sender has no account"""
    is_repeated: bool
    """an earlier lane has the same sender"""
    is_out_of_turn: bool
    """not the sender's next nonce"""


@leaf
def first_defect(columns: Any, i: Any, defects: Any, limits: Any) -> Any:
    """Return the code of refused transaction i's first defect, in the order of the codes.

    Signatures are judged elsewhere; what none of the other checks refuses, its fee does.
    """
    if columns.version[i] != _VERSION:
        code = TRANSACTION_VERSION
    elif columns.kind[i] != _TRANSFER:
        code = TRANSACTION_KIND
    elif np.uint64(columns.chain_id[i]) != limits.chain_id:
        code = CHAIN_ID
    elif limits.height > columns.valid_until[i]:
        code = EXPIRED
    elif defects.is_split:
        code = LANE_SPLITTABLE
    elif defects.is_unknown:
        code = UNKNOWN_SENDER
    elif defects.is_repeated:
        code = LANE_MERGEABLE
    elif defects.is_out_of_turn:
        code = NONCE
    elif columns.fee[i] < limits.fee_minimum:
        code = FEE_BELOW_MINIMUM
    else:
        code = FEE_ABOVE_SPENDABLE
    return code


@leaf
def walk_one(
    columns: Any,
    recipient_slots: Any,
    limits: Any,
    i: Any,
    defects: Any,
    spendable: Any,
    statuses: Any,
) -> Any:
    """Check transaction i and, if it may be included, execute it.

    spendable: the sender's at this point of its lane, uint64. Returns (defect, spendable after);
    the fee of a transaction without defect has been charged, whatever its status.
    """
    fee = columns.fee[i]
    refused = defects.is_split | defects.is_unknown | defects.is_repeated | defects.is_out_of_turn
    refused |= (columns.version[i] != _VERSION) | (columns.kind[i] != _TRANSFER)
    refused |= np.uint64(columns.chain_id[i]) != limits.chain_id
    refused |= limits.height > columns.valid_until[i]
    refused |= (fee < limits.fee_minimum) | (fee > spendable)
    if refused:
        return np.int64(first_defect(columns, i, defects, limits)), spendable
    spendable -= fee
    amount = columns.amount[i]
    # Compared, never added: an amount of 2^64 - 1 must not wrap.
    is_short = amount > spendable
    is_new = recipient_slots[i] == _ABSENT
    is_small = (not is_short) & is_new & (amount < limits.account_minimum)
    statuses[i] = np.uint8(is_short) * _INSUFFICIENT + np.uint8(is_small) * _BELOW_MINIMUM
    return np.int64(NO_DEFECT), spendable - (ZERO if (is_short | is_small) else amount)


@leaf
def walk_lane(
    columns: Any,
    senders: Any,
    recipient_slots: Any,
    limits: Any,
    start: Any,
    stop: Any,
    balance: Any,
    nonce: Any,
    is_unknown: Any,
    is_repeated: Any,
    statuses: Any,
) -> Any:
    """Walk the lane of transactions [start, stop), at least one, and write their statuses.

    balance, nonce: the sender's before the lane, uint64. columns: `layout.Columns`; senders: its
    senders as (n, 4) uint64; start and stop are uint64. Returns (balance after, nonce after, sum of
    fees, index of the first refused transaction or `stop`, its defect or NO_DEFECT); after a defect
    the rest means nothing.
    """
    # What is spent never exceeds it, so the reserve has to be taken off only once.
    spendable = balance - min(balance, limits.account_minimum)
    reserve = balance - spendable
    fee_sum = ZERO
    i = start
    defect = np.int64(NO_DEFECT)
    # A loop with its test at the end: most lanes have one transaction.
    while True:
        is_split = i != start and is_other_key(senders, i, start)
        is_out_of_turn = (columns.nonce[i] != nonce) | (nonce == U64_MAX)
        defects = LaneDefects(is_split, is_unknown, is_repeated, is_out_of_turn)
        defect, spendable = walk_one(
            columns, recipient_slots, limits, i, defects, spendable, statuses
        )
        if defect != NO_DEFECT:
            break
        fee_sum += columns.fee[i]
        nonce += ONE
        i += ONE
        if i == stop:
            break
    return reserve + spendable, nonce, fee_sum, i, defect


@njit(_nrt=False)
def walk_range(
    columns: Any,
    senders: Any,
    lane_offsets: Any,
    sender_slots: Any,
    recipient_slots: Any,
    limits: Any,
    repeated_lane: Any,
    records: Any,
    statuses: Any,
    sender_balances: Any,
    sender_nonces: Any,
    start: Any,
    stop: Any,
) -> Any:
    """Walk the lanes [start, stop) up to the first defect.

    repeated_lane: the first lane whose sender has an earlier one; none later is ever reached.
    Returns (sum of fees, index of the first refused transaction, its defect or NO_DEFECT).
    """
    fee_sum = ZERO
    # Unsigned, as everything that indexes here: a signed index may count from the end of an array,
    # and to find out takes as long as the access.
    last = np.uint64(stop) - ONE
    for lane in range(np.uint64(start), np.uint64(stop)):
        # An unknown sender asks for an address that is not there, which is harmless.
        prefetch(records, np.uint64(sender_slots[min(lane + LANES_AHEAD, last)]))
        slot = sender_slots[lane]
        is_unknown = slot == _ABSENT
        row = ZERO if is_unknown else np.uint64(slot)
        balance, nonce, fee, index, defect = walk_lane(
            columns,
            senders,
            recipient_slots,
            limits,
            np.uint64(lane_offsets[lane]),
            np.uint64(lane_offsets[lane + ONE]),
            records[row, BALANCE_WORD],
            records[row, NONCE_WORD],
            is_unknown,
            lane == np.uint64(repeated_lane),
            statuses,
        )
        if defect != NO_DEFECT:
            return fee_sum, index, defect
        sender_balances[lane] = balance
        sender_nonces[lane] = nonce
        fee_sum += fee
    return fee_sum, ZERO, np.int64(NO_DEFECT)
