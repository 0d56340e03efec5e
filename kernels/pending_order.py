"""Which of the waiting transactions come first, and which of them a payload can take.

All rows stand in one order: greatest rank first, then least age (see `pending`). Its beginning is
what pays best with nonces in order, its end is what goes when there is no room.
"""

from typing import Any

import numpy as np

from kernels.integers import ONE, ZERO, kernel
from kernels.jit import njit
from kernels.layout import NO_SLOT
from kernels.pending_rows import (
    AFTER,
    AMOUNT,
    FEE,
    FIRST,
    NONCE,
    OWNER,
    RECORD_WORDS,
    UNTIL,
)
from kernels.prefetch import prefetch

AHEAD = 16
"""Rows that are asked for before they are read."""
_ABSENT = np.uint32(NO_SLOT)
_NONE = np.uint64(NO_SLOT)
_FIRST_RANK = np.uint64(2)
"""Of a row that is not parked."""
_HEAD_BYTES = 64
_ALIGNMENT = 64
_OFFSET_BYTES = 4

# Places in `limits`.
BYTES, TRANSACTIONS, OBJECTS, ACCOUNTS, HEIGHT, ACCOUNT_MINIMUM = range(6)


@kernel
def find_lanes(p: Any, rows: Any, lane_of: Any, lane_senders: Any, marks: Any) -> Any:
    """Number the senders of rows in the order of their first row; return how many there are.

    rows: (n,) int64; lane_of: (n,) int32; lane_senders: (n,) int64; marks: (r,) int32 of zeros,
    which are zeros again afterwards.
    """
    lanes = np.int32(0)
    for i in range(rows.shape[0]):
        prefetch(p.links, rows[min(i + AHEAD, rows.shape[0] - 1)])
        sender = np.int64(p.links[rows[i], OWNER])
        if marks[sender] == np.int32(0):
            lane_senders[lanes] = sender
            lanes += np.int32(1)
            marks[sender] = lanes
        lane_of[i] = marks[sender] - np.int32(1)
    for lane in range(lanes):
        marks[lane_senders[lane]] = np.int32(0)
    return lanes


@kernel
def list_ready(p: Any, senders: Any, rows: Any) -> Any:
    """Write the rows of some senders that are not parked; return how many there are.

    senders: (m,) int64; rows: int64, of at least as many as their chains have. Chains are settled.
    """
    count = np.int64(0)
    for i in range(senders.shape[0]):
        row = p.senders[senders[i], FIRST]
        while row != _NONE and p.rank[np.int64(row)] >= _FIRST_RANK:
            rows[count] = np.int64(row)
            count += 1
            row = p.links[np.int64(row), AFTER]
    return count


@kernel
def gather(p: Any, rows: Any, words: Any, start: Any, stop: Any) -> None:
    """Copy the records of rows[start:stop], (n,) int64, to words, (n, 24) uint64."""
    for i in range(start, stop):
        ahead = rows[min(i + AHEAD, stop - 1)]
        prefetch(p.words, ahead)
        for word in range(RECORD_WORDS):
            words[i, word] = p.words[rows[i], word]


@njit
def payload_length(widths: Any, lanes: Any, count: Any) -> Any:
    """Return the bytes of a payload; widths: (c,) int64, bytes per transaction of its columns."""
    offsets = _OFFSET_BYTES * (lanes + 1)
    total = _HEAD_BYTES + (offsets + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    for column in range(widths.shape[0]):
        size = widths[column] * count
        total += (size + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    return total


@njit
def judge(
    words: Any, lane_of: Any, lane_nonces: Any, lane_spendable: Any, is_open: Any, is_new: Any,
    limits: Any, widths: Any, is_kept: Any,
) -> Any:  # fmt: skip
    """Say which rows, in their order, go into a payload: only what will succeed on the state.

    words: (n, 24) uint64; lane_of: (n,) int32; per lane, changed here: lane_nonces, lane_spendable
    uint64 and is_open uint8 (0: no account). is_new: (n,) uint8, the recipient has no account.
    limits: (6,) uint64; widths: (c,) int64; is_kept: (n,) uint8 of zeros.
    Returns (rows kept, lanes kept, whether a limit was met so that no other row could go in).
    """
    count, lanes, created = np.int64(0), np.int64(0), ZERO
    has_lane = np.zeros(is_open.shape[0], np.uint8)
    for i in range(words.shape[0]):
        lane = lane_of[i]
        nonce = words[i, NONCE]
        if is_open[lane] == np.uint8(0) or nonce < lane_nonces[lane]:
            continue
        if np.uint64(count) >= limits[TRANSACTIONS]:
            return count, lanes, True
        cost = words[i, AMOUNT] + words[i, FEE]
        is_fit = nonce == lane_nonces[lane] and words[i, UNTIL] >= limits[HEIGHT]
        is_fit = is_fit and cost <= lane_spendable[lane]
        if is_new[i] != np.uint8(0):
            is_fit = is_fit and words[i, AMOUNT] >= limits[ACCOUNT_MINIMUM]
            is_fit = is_fit and created < limits[ACCOUNTS]
        opens = np.int64(has_lane[lane] == np.uint8(0))
        is_fit = is_fit and np.uint64(lanes + opens) <= limits[OBJECTS]
        if not is_fit:
            is_open[lane] = np.uint8(0)
            continue
        if np.uint64(payload_length(widths, lanes + opens, count + 1)) > limits[BYTES]:
            return count, lanes, True
        has_lane[lane] = np.uint8(1)
        lanes += opens
        count += 1
        created += np.uint64(is_new[i])
        lane_nonces[lane] += ONE
        lane_spendable[lane] -= cost
        is_kept[i] = np.uint8(1)
    return count, lanes, np.uint64(count) >= limits[TRANSACTIONS]


@njit
def arrange(lane_of: Any, lane_count: Any, is_kept: Any, order: Any, offsets: Any) -> None:
    """Group kept rows by lane, lanes in the order of their first row that is kept.

    order: (kept,) int64, positions of rows; offsets: (lanes kept + 1,) int32.
    """
    place = np.full(lane_count, -1, np.int64)
    lanes = np.int64(0)
    for i in range(lane_of.shape[0]):
        if is_kept[i] != np.uint8(0):
            lane = lane_of[i]
            if place[lane] < 0:
                place[lane] = lanes
                lanes += 1
            offsets[place[lane] + 1] += np.int32(1)
    for lane in range(1, offsets.shape[0]):
        offsets[lane] += offsets[lane - 1]
    following = offsets[:-1].astype(np.int64)
    for i in range(lane_of.shape[0]):
        if is_kept[i] != np.uint8(0):
            at = place[lane_of[i]]
            order[following[at]] = i
            following[at] += 1
