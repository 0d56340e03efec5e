"""Execution of transfers: from a lane of transactions to statuses and the sender's account after.

`walk_lane` is the body: one lane, serial, reading the sender's balance and nonce and nothing else
of the state. Credits settle when all lanes are done (`settle`), so lanes never see each other and
the outcome does not depend on who walks them, or in which order.
Spec: spec/block.md#execution, spec/block.md#checks.
"""

from typing import Any

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

LANES_AHEAD = np.uint64(16)
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


@leaf
def first_defect(
    version: Any,
    kind: Any,
    chain_id: Any,
    valid_until: Any,
    fee: Any,
    is_split: Any,
    is_unknown: Any,
    is_repeated: Any,
    is_out_of_turn: Any,
    chain_id_wanted: Any,
    height: Any,
    fee_minimum: Any,
) -> Any:
    """Return the code of a refused transaction's first defect, in the order of the codes.

    Signatures are judged elsewhere; what none of the other checks refuses, its fee does.
    """
    if version != _VERSION:
        code = TRANSACTION_VERSION
    elif kind != _TRANSFER:
        code = TRANSACTION_KIND
    elif np.uint64(chain_id) != chain_id_wanted:
        code = CHAIN_ID
    elif height > valid_until:
        code = EXPIRED
    elif is_split:
        code = LANE_SPLITTABLE
    elif is_unknown:
        code = UNKNOWN_SENDER
    elif is_repeated:
        code = LANE_MERGEABLE
    elif is_out_of_turn:
        code = NONCE
    elif fee < fee_minimum:
        code = FEE_BELOW_MINIMUM
    else:
        code = FEE_ABOVE_SPENDABLE
    return code


@leaf
def walk_one(
    versions: Any,
    kinds: Any,
    chain_ids: Any,
    nonces: Any,
    valid_untils: Any,
    amounts: Any,
    fees: Any,
    recipient_slots: Any,
    chain_id: Any,
    height: Any,
    fee_minimum: Any,
    account_minimum: Any,
    i: Any,
    spendable: Any,
    nonce: Any,
    is_split: Any,
    is_unknown: Any,
    is_repeated: Any,
    statuses: Any,
) -> Any:
    """Check transaction i and, if it may be included, execute it.

    spendable, nonce: the sender's at this point of its lane. Returns (defect, spendable after);
    the fee of a transaction without defect has been charged, whatever its status.
    """
    fee = fees[i]
    is_out_of_turn = (nonces[i] != nonce) | (nonce == U64_MAX)
    refused = is_split | is_unknown | is_repeated | is_out_of_turn
    refused |= (versions[i] != _VERSION) | (kinds[i] != _TRANSFER)
    refused |= (np.uint64(chain_ids[i]) != chain_id) | (height > valid_untils[i])
    refused |= (fee < fee_minimum) | (fee > spendable)
    if refused:
        code = first_defect(
            versions[i],
            kinds[i],
            chain_ids[i],
            valid_untils[i],
            fee,
            is_split,
            is_unknown,
            is_repeated,
            is_out_of_turn,
            chain_id,
            height,
            fee_minimum,
        )
        return np.int64(code), spendable
    spendable -= fee
    amount = amounts[i]
    # Compared, never added: an amount of 2^64 - 1 must not wrap.
    is_short = amount > spendable
    is_small = (not is_short) & (recipient_slots[i] == _ABSENT) & (amount < account_minimum)
    statuses[i] = np.uint8(is_short) * _INSUFFICIENT + np.uint8(is_small) * _BELOW_MINIMUM
    return np.int64(NO_DEFECT), spendable - (ZERO if (is_short | is_small) else amount)


@leaf
def walk_lane(
    versions: Any,
    kinds: Any,
    chain_ids: Any,
    nonces: Any,
    valid_untils: Any,
    amounts: Any,
    fees: Any,
    senders: Any,
    recipient_slots: Any,
    chain_id: Any,
    height: Any,
    fee_minimum: Any,
    account_minimum: Any,
    start: Any,
    stop: Any,
    balance: Any,
    nonce: Any,
    is_unknown: Any,
    is_repeated: Any,
    statuses: Any,
) -> Any:
    """Walk the lane of transactions [start, stop), at least one, and write their statuses.

    balance, nonce: the sender's before the lane, uint64. is_unknown: it has no account;
    is_repeated: an earlier lane has the same sender. Columns are as in `layout.Columns`, `senders`
    as (n, 4) uint64; start and stop are uint64. Returns (balance after, nonce after, sum of fees,
    index of the first refused transaction or `stop`, its defect or NO_DEFECT); after a defect the
    rest means nothing.
    """
    # What is spent never exceeds it, so the reserve has to be taken off only once.
    spendable = balance - min(balance, account_minimum)
    reserve = balance - spendable
    fee_sum = ZERO
    i = start
    defect = np.int64(NO_DEFECT)
    # A loop with its test at the end: most lanes have one transaction.
    while True:
        is_split = i != start and is_other_key(senders, i, start)
        defect, spendable = walk_one(
            versions,
            kinds,
            chain_ids,
            nonces,
            valid_untils,
            amounts,
            fees,
            recipient_slots,
            chain_id,
            height,
            fee_minimum,
            account_minimum,
            i,
            spendable,
            nonce,
            is_split,
            is_unknown,
            is_repeated,
            statuses,
        )
        if defect != NO_DEFECT:
            break
        fee_sum += fees[i]
        nonce += ONE
        i += ONE
        if i == stop:
            break
    return reserve + spendable, nonce, fee_sum, i, defect


@njit(_nrt=False)
def walk_range(
    versions: Any,
    kinds: Any,
    chain_ids: Any,
    nonces: Any,
    valid_untils: Any,
    amounts: Any,
    fees: Any,
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

    limits: (4,) uint64, chain id, height, least fee, account minimum. repeated_lane: the first
    lane whose sender has an earlier one; none later is ever reached. Returns (sum of fees, index
    of the first refused transaction, its defect or NO_DEFECT).
    """
    chain_id, height, fee_minimum, account_minimum = limits[0], limits[1], limits[2], limits[3]
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
            versions,
            kinds,
            chain_ids,
            nonces,
            valid_untils,
            amounts,
            fees,
            senders,
            recipient_slots,
            chain_id,
            height,
            fee_minimum,
            account_minimum,
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
