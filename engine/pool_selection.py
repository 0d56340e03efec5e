"""Choose from the pool what goes into a payload: the best paid, and only what will succeed.

The best rows of the pool's order are judged on the parent's state, which may stand ahead of the
pool's head or beside it; as long as limits leave room and rows are left, more are judged, up to so
many as `JUDGED_SHARE` payloads have. Once there are as many lanes as objects may be written, only
rows of the senders that have a lane are looked at: no other can go in. Lanes come in the order of
their best row. The same pool and state give the same payload. Spec: spec/lanes.md,
spec/block.md#checks.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from engine.codec import PayloadLimits, encode_payload
from engine.columns import COLUMN_TABLE, from_records
from engine.lanes import I64
from engine.mempool import Mempool
from engine.pool_accounts import read_accounts
from engine.pool_rules import room_for_accounts
from engine.state import State
from kernels import pending_order
from kernels.host_accounts import read_only
from kernels.layout import I32, NO_SLOT, U8
from kernels.pending_rows import AGE, LENGTH, RECORD_WORDS, ROWS
from kernels.sorting import argsort

BATCH_MIN = 1_024
"""Rows that are judged at first at least: some may be of no use."""
LANE_ROWS = 4
"""Rows that are judged at first for each lane that there may be."""
GROWTH = 4
"""How many times as many are judged next, up to what fits a payload."""
JUDGED_SHARE = 8
"""Rows that are judged at last at most, in payloads: so many may stand between the pool's head and
the parent, all of them used."""
_WIDTHS = read_only(np.array([column.width for column in COLUMN_TABLE], np.int64))
_FIRST_RANK = np.uint64(2)
"""Of a row that is not parked."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """What was chosen."""

    records: U8
    """(n, 192) uint8, in the order of the payload"""
    lane_offsets: I32
    """(lane_count + 1,) int32"""
    judged_count: int
    """rows that were looked at"""
    is_cut: bool = False
    """whether there was room for more, and rows that nobody looked at"""

    def payload(self) -> bytes:
        """Return the canonical bytes."""
        return encode_payload(from_records(self.records), self.lane_offsets)


def select(pool: Mempool, state: State, *, height: int, limits: PayloadLimits) -> Selection:
    """Choose what goes into the payload at `height` on a state, that of the parent."""
    room = min(limits.transactions, limits.bytes // int(_WIDTHS.sum()))
    most = JUDGED_SHARE * max(room, BATCH_MIN)
    count = max(min(room, LANE_ROWS * limits.objects), BATCH_MIN)
    among: I64 | None = None
    with pool.lock:
        pool.settle()
        waiting = pool.ready_count
        while True:
            count = min(count, most, waiting)
            judged = _judge(pool, state, best_rows(pool, count, among), height, limits)
            if judged.is_full or count == waiting:
                return judged.selection
            if count == most:
                return replace(judged.selection, is_cut=True)
            if among is None and len(judged.senders) == limits.objects:
                among = _ready_rows(pool, judged.senders)
                waiting, count = len(among), max(room, BATCH_MIN)
            else:
                count = min(GROWTH * count, room) if count < room else 2 * count


def best_rows(pool: Mempool, count: int, among: I64 | None = None) -> I64:
    """Return up to `count` rows that are not parked, best first, (n,) int64; chains settled.

    among: (m,) int64, these rows alone; otherwise all.
    """
    rank, age = pool.rows.rank[: int(pool.rows.counts[ROWS])], pool.rows.links[:, AGE]
    rows = np.flatnonzero(rank >= _FIRST_RANK) if among is None else among
    if count < len(rows):
        ranks = rank[rows]
        place = len(rows) - count
        least = np.partition(ranks, place)[place] if count else np.uint64(2**64 - 1)
        best, ties = rows[ranks > least], rows[ranks == least]
        wanted = count - len(best)
        if wanted < len(ties):
            ties = ties[np.argpartition(age[ties], wanted)[:wanted]]
        rows = np.concatenate([best, ties])
    rows = rows[argsort(age[rows])]
    return rows[argsort(~rank[rows])]


def _ready_rows(pool: Mempool, senders: I64) -> I64:
    """Return all rows of some senders that are not parked; chains settled."""
    rows = np.empty(int(pool.rows.senders[senders, LENGTH].sum()), np.int64)
    return rows[: int(pending_order.list_ready(pool.rows, senders, rows))]


class _Judged(NamedTuple):
    """What rows came to."""

    selection: Selection
    senders: I64
    """of its lanes"""
    is_full: bool
    """whether a limit was met so that no other row could go in"""


def _judge(pool: Mempool, state: State, rows: I64, height: int, limits: PayloadLimits) -> _Judged:
    """Judge rows in their order."""
    count = len(rows)
    words = np.empty((count, RECORD_WORDS), np.uint64)
    pending_order.gather(pool.rows, rows, words, 0, count)
    lane_of, lane_senders = np.empty(count, np.int32), np.empty(count, np.int64)
    lanes = int(pending_order.find_lanes(pool.rows, rows, lane_of, lane_senders, pool.marks))
    keys = np.ascontiguousarray(pool.rows.senders[lane_senders[:lanes], :4]).view(np.uint8)
    read = read_accounts(state.accounts, keys)
    minimum = np.uint64(pool.rules.account_minimum)
    spendable = read.balances - np.minimum(read.balances, minimum)
    recipients = np.ascontiguousarray(words[:, 12:16]).view(np.uint8)
    is_new = (state.accounts.lookup(recipients) == NO_SLOT).view(np.uint8)
    is_kept = np.zeros(count, np.uint8)
    room = room_for_accounts(pool.rules.accounts_max, state.count)
    numbers = (limits.bytes, limits.transactions, limits.objects, room, height, minimum)
    kept, opened, is_full = pending_order.judge(
        *(words, lane_of, read.nonces, spendable, read.exists.view(np.uint8), is_new),
        *(np.array(numbers, np.uint64), _WIDTHS, is_kept),
    )
    order, offsets = np.empty(int(kept), np.int64), np.zeros(int(opened) + 1, np.int32)
    pending_order.arrange(lane_of, lanes, is_kept, order, offsets)
    records = words[order].view(np.uint8)
    selection = Selection(records=records, lane_offsets=offsets, judged_count=count)
    has_lane = np.zeros(lanes, np.bool_)
    has_lane[lane_of[is_kept != 0]] = True
    return _Judged(selection, lane_senders[:lanes][has_lane], bool(is_full))
