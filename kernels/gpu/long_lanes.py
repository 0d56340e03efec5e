"""Long lanes on a device: tiles side by side while all is good, then one block of threads.

The tiles of a lane are judged side by side: what each spends if all of it is good, and where it is
refused whatever the sender has. Prefix sums of that say what each tile begins with, if all before
it is good; so every tile finds how much of it can be paid, and pays that. Up to the first tile of a
lane that is not good to its end all this is right, and what lies behind it counts for nothing. From
there on one block of threads goes through the lane tile after tile (`lane_tiles.walk_tile`), as it
does with all of a lane that has few tiles.
Spec: spec/block.md#execution.
"""

from typing import Any, Final

import numpy as np
from numba import cuda, types

from kernels.gpu.device import Arena, Device
from kernels.gpu.grid import SIMULATED, THREADS, device_function, kernel
from kernels.gpu.lane_tiles import (
    AT,
    CODE,
    GOOD,
    LANE_TILE,
    NONCE,
    SPENDABLE,
    SPENT,
    STATE,
    TILE,
    add_saturating,
    find_refused,
    pay_tile,
    scan_saturating,
    sum_row_costs,
    walk_rest,
    walk_tile,
)
from kernels.gpu.prefix import block_sum
from kernels.gpu.walks import CODE_BITS, FEES, FIRST_DEFECT, WalkColumns, sender_of
from kernels.integers import ONE, ZERO, leaf
from kernels.layout import I32
from kernels.transfer import Limits

FEW_TILES: Final = 1 if SIMULATED else 8
"""A lane of at most so many tiles is walked by one block of threads from its beginning: its tiles
side by side take as long as three or four tiles one after the other, and are lost if it fails."""

_COST: Final = 0
_BEFORE: Final = 1
_GOOD: Final = 2
_SPENT: Final = 3
_FEES: Final = 4
_RESULTS: Final = 5
"""Positions in a row of `results`, (tiles, _RESULTS) uint64, of a tile of a lane of many: what it
spends if all of it is good; what the lane spends before it, likewise; as GOOD and SPENT of a state;
the fees of what is good. All sums but the fees saturate."""


@leaf
def tile_at(lane_start: Any, number: Any, stop: Any) -> Any:
    """Return the transactions [base, end) of a lane's tile; number: int64, in the lane."""
    base = lane_start + np.uint64(number) * TILE
    return base, min(base + TILE, stop)


@kernel
def judge_tiles(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    senders: Any, lane_offsets: Any, sender_slots: Any, recipient_slots: Any, first_lanes: Any,
    records: Any, chain: Any, height: Any, fee_minimum: Any, account_minimum: Any, lanes: Any,
    first_tiles: Any, owners: Any, results: Any,
) -> None:  # fmt: skip
    """Find what each tile spends if all of it is good, and its first refused transaction.

    A block of threads for each tile. lanes: (k,) int32; first_tiles: (k + 1,) int32, where the rows
    of each begin in `results`, and how many there are; owners: (tiles,) int32, whose tile it is, a
    position in `lanes`. Otherwise as `walks.walk_short`.
    """
    costs = cuda.shared.array(THREADS, types.uint64)
    state = cuda.shared.array(STATE, types.uint64)
    thread, tile = cuda.threadIdx.x, np.int64(cuda.blockIdx.x)
    owner = np.int64(owners[tile])
    lane = np.int64(lanes[owner])
    start, stop = np.uint64(lane_offsets[lane]), np.uint64(lane_offsets[lane + 1])
    base, end = tile_at(start, tile - np.int64(first_tiles[owner]), stop)
    columns = WalkColumns(version, kind, chain_id, nonce, valid_until, amount, fee)
    limits = Limits(chain, height, fee_minimum, account_minimum)
    sender = sender_of(lane, sender_slots, first_lanes, records)
    if thread == 0:
        state[GOOD] = ZERO if sender.is_unknown or sender.is_repeated else end - base
    cuda.syncthreads()
    turn = add_saturating(sender.nonce, base - start)
    find_refused(columns, senders, limits, base, end, start, turn, state)
    scan_saturating(costs, sum_row_costs(columns, recipient_slots, limits, base, end))
    if thread == THREADS - 1:
        results[tile, _COST] = costs[thread]
        results[tile, _GOOD] = state[GOOD]


@kernel
def add_costs(first_tiles: Any, results: Any) -> None:
    """Find what each tile's lane spends before it; a block of threads for each lane."""
    costs = cuda.shared.array(THREADS, types.uint64)
    thread = cuda.threadIdx.x
    row = np.int64(first_tiles[cuda.blockIdx.x])
    stop = np.int64(first_tiles[cuda.blockIdx.x + 1])
    carried = ZERO
    while row < stop:
        tile = row + thread
        scan_saturating(costs, results[tile, _COST] if tile < stop else ZERO)
        if tile < stop:
            before = costs[thread - 1] if thread > 0 else ZERO
            results[tile, _BEFORE] = add_saturating(carried, before)
        carried = add_saturating(carried, costs[THREADS - 1])
        cuda.syncthreads()
        row += THREADS


@kernel
def pay_tiles(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    senders: Any, lane_offsets: Any, sender_slots: Any, recipient_slots: Any, first_lanes: Any,
    records: Any, chain: Any, height: Any, fee_minimum: Any, account_minimum: Any, lanes: Any,
    first_tiles: Any, owners: Any, results: Any, statuses: Any,
) -> None:  # fmt: skip
    """Find how much of each tile is good, and pay it; as `judge_tiles`.

    Statuses behind the first failure of a lane mean nothing yet: `walk_long` writes them.
    """
    costs = cuda.shared.array(THREADS, types.uint64)
    state = cuda.shared.array(STATE, types.uint64)
    tile = np.int64(cuda.blockIdx.x)
    owner = np.int64(owners[tile])
    lane = np.int64(lanes[owner])
    start, stop = np.uint64(lane_offsets[lane]), np.uint64(lane_offsets[lane + 1])
    base, end = tile_at(start, tile - np.int64(first_tiles[owner]), stop)
    columns = WalkColumns(version, kind, chain_id, nonce, valid_until, amount, fee)
    limits = Limits(chain, height, fee_minimum, account_minimum)
    balance = sender_of(lane, sender_slots, first_lanes, records).balance
    if cuda.threadIdx.x == 0:
        state[GOOD] = results[tile, _GOOD]
    cuda.syncthreads()
    fees = pay_tile(
        columns, recipient_slots, limits, base, end, results[tile, _BEFORE],
        balance - min(balance, account_minimum), costs, state, statuses,
    )  # fmt: skip
    total = block_sum(costs, fees)
    if cuda.threadIdx.x == 0:
        results[tile, _GOOD] = state[GOOD]
        results[tile, _SPENT] = state[SPENT]
        results[tile, _FEES] = total


@device_function
def take_tiles(results: Any, first: Any, stop: Any, start: Any, lane_stop: Any, state: Any) -> Any:
    """Take over the tiles [first, stop) of a lane up to the first that is not good to its end.

    Returns (its number in the lane, int64, the last one's if all are good; this thread's sum of
    fees), and leaves in `state` what was good and what the sender has after it.
    """
    thread = cuda.threadIdx.x
    if thread == 0:
        state[GOOD] = np.uint64(stop - first) - ONE
    cuda.syncthreads()
    for tile in range(first + thread, stop, THREADS):
        base, end = tile_at(start, tile - first, lane_stop)
        if results[tile, _GOOD] < end - base:
            cuda.atomic.min(state, GOOD, np.uint64(tile - first))
    cuda.syncthreads()
    number = np.int64(state[GOOD])
    fees = ZERO
    for tile in range(first + thread, first + number + 1, THREADS):
        fees += results[tile, _FEES]
    cuda.syncthreads()
    if thread == 0:
        state[GOOD] = results[first + number, _GOOD]
        state[SPENDABLE] -= results[first + number, _SPENT]
        state[NONCE] += np.uint64(number) * TILE + state[GOOD]
    cuda.syncthreads()
    return number, fees


@kernel
def walk_long(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    senders: Any, lane_offsets: Any, sender_slots: Any, recipient_slots: Any, first_lanes: Any,
    records: Any, chain: Any, height: Any, fee_minimum: Any, account_minimum: Any, lanes: Any,
    first_tiles: Any, results: Any, statuses: Any, sender_balances: Any, sender_nonces: Any,
    numbers: Any,
) -> None:  # fmt: skip
    """Walk each lane from where its tiles in `results` stop being good, or from its beginning.

    A block of threads for each lane; as `judge_tiles`, results as those of `walks.walk_short`.
    """
    costs = cuda.shared.array(THREADS, types.uint64)
    state = cuda.shared.array(STATE, types.uint64)
    thread, owner = cuda.threadIdx.x, np.int64(cuda.blockIdx.x)
    lane = np.int64(lanes[owner])
    start, stop = np.uint64(lane_offsets[lane]), np.uint64(lane_offsets[lane + 1])
    columns = WalkColumns(version, kind, chain_id, nonce, valid_until, amount, fee)
    limits = Limits(chain, height, fee_minimum, account_minimum)
    common = (columns, senders, recipient_slots, limits)
    sender = sender_of(lane, sender_slots, first_lanes, records)
    reserve = min(sender.balance, account_minimum)
    if thread == 0:
        state[SPENDABLE] = sender.balance - reserve
        state[NONCE] = sender.nonce
        state[CODE] = ZERO
    cuda.syncthreads()
    fees = ZERO
    base = start
    first, last = np.int64(first_tiles[owner]), np.int64(first_tiles[owner + 1])
    if first < last:
        number, fees = take_tiles(results, first, last, start, stop, state)
        base, end = tile_at(start, number, stop)
        if thread == 0:
            fees += walk_rest(*common, base + state[GOOD], end, start, sender, state, statuses)
        cuda.syncthreads()
        base = end
    while base < stop and state[CODE] == ZERO:
        end = min(base + TILE, stop)
        fees += walk_tile(*common, base, end, start, sender, costs, state, statuses)
        base = end
    total = block_sum(costs, fees)
    if thread == 0:
        cuda.atomic.add(numbers, FEES, total)
        if state[CODE] != ZERO:
            cuda.atomic.min(numbers, FIRST_DEFECT, (state[AT] << CODE_BITS) | state[CODE])
        sender_balances[lane] = reserve + state[SPENDABLE]
        sender_nonces[lane] = state[NONCE]


def walk_long_lanes(
    device: Device,
    arena: Arena,
    lane_offsets: I32,
    long_lane: int,
    before: tuple[Any, ...],
    after: tuple[Any, ...],
) -> None:
    """Walk every lane of more than `long_lane` transactions; does nothing where there is none.

    lane_offsets: on the host. before: what all walks read, up to the minimum of an account; after:
    what they write, from the statuses on. Scratch is the arena's.
    """
    lengths = np.diff(lane_offsets)
    lanes = np.flatnonzero(lengths > long_lane)
    count = len(lanes)
    if not count:
        return
    tiles = -(-lengths[lanes] // LANE_TILE)
    tiles[tiles <= FEW_TILES] = 0
    first_tiles = np.append(0, np.cumsum(tiles))
    total = int(first_tiles[-1])
    owners = np.repeat(np.arange(count), tiles)
    plan = arena.put("long_lanes", np.concatenate((lanes, first_tiles, owners)).astype(np.int32))
    starts = plan[count : 2 * count + 1]
    results = arena.take("tile_results", (total, _RESULTS), np.uint64)
    where = (plan[:count], starts)
    if total:
        rows = (plan[2 * count + 1 :], results)
        device.launch_blocks(judge_tiles, total, *before, *where, *rows)
        device.launch_blocks(add_costs, count, starts, results)
        device.launch_blocks(pay_tiles, total, *before, *where, *rows, after[0])
    device.launch_blocks(walk_long, count, *before, *where, results, *after)
