"""What a device has to come to, at any size: on a GPU (`test_device`) and on one of software.

`arms` are two backends: the CPU's, which is right, and the device's, to which every batch goes.
"""

import numpy as np

from bench.arms import block_context
from bench.blocks import build
from bench.workloads import synthetic
from engine.state import State
from engine.transition import all_verified, execute_payload
from kernels.backend import Backend
from kernels.gpu.grid import THREADS
from kernels.gpu.lane_tiles import LANE_TILE
from spec import oracle
from tests.engine.ledgers import (
    CHAIN_ID,
    accounts,
    engine_result,
    key,
    open_state,
    oracle_result,
)
from tests.kernels.arms import random_columns
from tests.kernels.gpu.blocks import BALANCE, RandomBlocks, keys_of
from tests.kernels.gpu.lanes import MONEY_ENDS, OUTCOMES, RandomLanes, open_lane_accounts

Arms = tuple[Backend, Backend]
ROUNDS = 5
"""Of what only some orders of threads show."""
MANY_TILES = 24
BLOCKS_OF_ALL_OUTCOMES = 100
"""Random blocks of lanes among which there is each of the outcomes."""


def random_blocks(arms: Arms, rng: np.random.Generator, count: int) -> RandomBlocks:
    """Return random blocks between `count` accounts and as many that do not exist yet."""
    keys = keys_of(2 * count)
    balances = np.full(count, BALANCE, np.uint64)
    one, other = (State(keys[:count], balances, backend=backend) for backend in arms)
    assert one.state_hash() == other.state_hash()
    return RandomBlocks(rng, (one, other), keys)


def check_workload(
    arms: Arms, name: str, *, count: int, per_block: int, is_signed: bool = False
) -> None:
    """Assert that two blocks of a workload of the benchmark come to the same on both."""
    payments = synthetic(name, accounts=count, per_block=per_block, blocks=2, seed=5)
    workload = build(payments, seed=5, is_signed=is_signed)
    hashes = []
    for backend in arms:
        state = State(workload.keys, workload.balances, backend=backend)
        for height, payload in enumerate(workload.payloads, start=1):
            outcome = execute_payload(
                state,
                payload,
                block_context(workload, height),
                is_verified=None if is_signed else all_verified,
            )
        hashes.append((outcome.state_hash, outcome.receipts_hash))
    assert hashes[0] == hashes[1]


def check_random_lanes(arms: Arms, rng: np.random.Generator, blocks: int, tiles: int) -> None:
    """Assert that lanes of up to so many tiles, wherever they fail, come to the same on both."""
    lanes = RandomLanes(rng, *map(open_lane_accounts, arms))
    lanes.step_past_a_border(tiles - 2)
    assert lanes.seen[MONEY_ENDS] == 1
    for _ in range(blocks):
        lanes.step(tiles)
    assert sum(lanes.seen.values()) == 1 + blocks
    assert len(lanes.seen) == len(OUTCOMES) or blocks < BLOCKS_OF_ALL_OUTCOMES


def check_many_tiles(arms: Arms, rng: np.random.Generator, rounds: int) -> None:
    """Assert that a lane fails to the unit behind so many times as many tiles as threads."""
    lanes = RandomLanes(rng, *map(open_lane_accounts, arms))
    length = rounds * THREADS * LANE_TILE + 3
    lanes.step_to(length, lacking=length - 2)
    assert lanes.seen[MONEY_ENDS] == 1


def check_tiles_that_fail_together(arms: Arms, rng: np.random.Generator) -> None:
    """Assert that the first of many failing tiles counts, whichever thread looks last."""
    lanes = RandomLanes(rng, *map(open_lane_accounts, arms))
    for _ in range(ROUNDS):
        lanes.step_to(MANY_TILES * LANE_TILE, lacking=int(rng.integers(1, 3 * LANE_TILE)))
    assert lanes.seen[MONEY_ENDS] == ROUNDS


def check_costs_that_wrap(backend: Backend, before: int) -> None:
    """Assert that the golden case comes to what the oracle says, behind `before` transactions."""
    amounts = [0] * before + [50, 2**64 - 52, 40]
    made = accounts([105 + before, 0])
    lane = [
        oracle.Transaction(CHAIN_ID, nonce, 9, amount, 1, key(0), key(1))
        for nonce, amount in enumerate(amounts)
    ]
    payload = oracle.encode_payload([lane])
    expected, _ = oracle_result(made, payload)
    result, _ = engine_result(open_state(made, backend), payload)
    assert result == expected


def check_lanes_of_one_sender(backend: Backend, lanes: int) -> None:
    """Assert that of many lanes of a sender the second is refused: the first lane is the sender's.

    Whoever claims the sender last, and is no minimum, refuses another one.
    """
    made = accounts([10**6, 0])
    lane = [oracle.Transaction(CHAIN_ID, 0, 9, 10, 1, key(0), key(1))]
    payload = oracle.encode_payload([lane] * lanes)
    expected, _ = oracle_result(made, payload)
    assert expected == ("LANE_MERGEABLE", 1)
    state = open_state(made, backend)
    for _ in range(ROUNDS):
        result, _ = engine_result(state, payload)
        assert result == expected


def check_all_that_a_block_can_change(backend: Backend) -> None:
    """Assert that a block comes to the oracle's that changes as many accounts as any of its size.

    Each sender pays to a key of its own, all of them are new, and so is the fee recipient: with
    one account more than fills a block of threads whatever is too short by one shows.
    """
    count = THREADS // 2
    made = accounts([100] * count)
    drawn = [oracle.Transaction(CHAIN_ID, 0, 9, 10, 1, key(i), key(500 + i)) for i in range(count)]
    payload = oracle.encode_payload(oracle.pack_lanes(drawn))
    expected, after = oracle_result(made, payload)
    state = open_state(made, backend)
    before = state.state_hash()
    result, outcome = engine_result(state, payload)
    assert result == expected
    assert outcome is not None
    assert outcome.changes.slots.tolist() == list(range(len(after))) == list(range(2 * count + 1))
    assert outcome.changes.created_keys.tobytes() == b"".join(a.key for a in after[count:])
    state.undo([outcome.changes])
    assert state.state_hash() == before


def check_new_accounts(arms: Arms, rng: np.random.Generator, count: int) -> None:
    """Assert that several payments to each new key make one account, in payload order."""
    blocks = random_blocks(arms, rng, count)
    first = count
    for keys in (3, *[count // 8] * ROUNDS):
        blocks.pay_to(first + rng.integers(0, keys, count))
        blocks.step(count)
        first += keys
    assert blocks.refused == 0


def check_hashes(arms: Arms, rng: np.random.Generator, count: int) -> None:
    """Assert that hashes of transactions, receipts and messages, and roots over them, are equal."""
    columns = random_columns(rng, count)
    statuses = rng.integers(0, 3, count, np.uint8)
    messages = rng.integers(0, 256, (count, 192), np.uint8)
    results = []
    for backend in arms:
        hashed = backend.hash_transactions(columns)
        receipts = backend.hash_receipts(hashed, statuses, columns.kind, columns.fee, bytes(32))
        root = backend.list_root(receipts, bytes(32), bytes(32))
        plain = backend.hash_messages(messages)
        results.append((hashed.tobytes(), receipts.tobytes(), root, plain.tobytes()))
    assert results[0] == results[1]
