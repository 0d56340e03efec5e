"""Lanes on the device in the simulator: short ones, scanned ones, and what must not wrap."""

from typing import Any

import numpy as np
import pytest

from kernels.backend import open_backend
from kernels.gpu import lane_tiles, long_lanes
from kernels.gpu.grid import SIMULATED
from kernels.gpu.lane_tiles import LANE_TILE
from kernels.gpu.resident import LONG_LANE
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, accounts, engine_result, key, oracle_result
from tests.kernels.gpu import claims
from tests.kernels.gpu.lanes import RandomLanes, open_lane_accounts
from tests.kernels.gpu.simulated.arms import Gpu, check_block, gpu, open_state, transfer

__all__ = ["gpu"]

WRAPPING = 2**64 - 52
"""With 50 before and 40 behind it, a prefix sum that wraps folds back below a balance of 100."""
LONG = 3 * LONG_LANE
TILES_MAX = 2
"""Of random lanes; in the simulator these are many."""
BLOCKS = 1


@pytest.mark.parametrize(
    "before", [0, LONG_LANE + 3, LANE_TILE - 1, pytest.param(LANE_TILE - 2, marks=pytest.mark.slow)]
)
def test_costs_that_wrap_mint_nothing(gpu: Gpu, before: int) -> None:
    """The golden case fails one by one, walked by a thread or scanned at any place of a tile."""
    amounts = [0] * before + [50, WRAPPING, 40]
    made = accounts([105 + before, 0])
    lane = [transfer(0, nonce, amount, key(1)) for nonce, amount in enumerate(amounts)]
    after, outcome = check_block(open_state(made, gpu.backend), made, lane)
    assert outcome.statuses.tolist() == [0] * before + [0, 1, 0]
    assert sum(a.balance for a in after) == 105 + before


@pytest.mark.parametrize(
    ("amounts", "balance"),
    [
        pytest.param([10] * LONG, 4 + 11 * LONG, marks=pytest.mark.slow),
        ([10] * LONG, 5 + 11 * LONG // 2),
        pytest.param([2**64 - 1] * LONG, 1000, marks=pytest.mark.slow),
        ([1, 2**64 - 1] * (LONG // 2), 1000),
        ([2**63] * LONG, 2**63 - 1),
    ],
)
def test_long_lanes_end_where_money_does(gpu: Gpu, amounts: list[int], balance: int) -> None:
    """A scanned lane succeeds up to the exact unit, and what fails pays its fee alone."""
    made = accounts([balance, 0])
    lane = [transfer(0, nonce, amount, key(1)) for nonce, amount in enumerate(amounts)]
    check_block(open_state(made, gpu.backend), made, lane)


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": 2**40}, {"fee": 0}, {"fee": 10**9}, {"version": 2}, {"kind": 3},
        {"chain_id": CHAIN_ID + 1}, {"valid_until": 0}, {"sender": key(1)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_defects_in_long_lanes(gpu: Gpu, wrong: dict[str, Any], rng: np.random.Generator) -> None:
    """The first refused transaction of a scanned lane is named with its first defect."""
    made = accounts([1000, 1000])
    lane = [transfer(0, nonce, 1, key(1)) for nonce in range(LONG)]
    place = int(rng.choice([0, 1, LONG_LANE + 1, LONG - 1]))
    lane[place] = oracle.replace(lane[place], **wrong)
    state = open_state(made, gpu.backend)
    payload = oracle.encode_payload([lane])
    assert engine_result(state, payload)[0] == oracle_result(made, payload)[0]


def test_random_lanes(gpu: Gpu, rng: np.random.Generator) -> None:
    """Several lanes that fail or are refused beside borders of tiles; compiled code has more."""
    cpu = open_backend("serial")
    claims.check_random_lanes((cpu, gpu.backend), rng, BLOCKS, TILES_MAX)
    cpu.close()


def test_tiles_that_are_good_are_not_walked_again(
    gpu: Gpu, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block of threads goes on behind the tile of a lane's first failure, and only there.

    The simulator alone calls what this puts between; compiled code is what it was.
    """
    cpu = open_backend("serial")
    lanes = RandomLanes(rng, *map(open_lane_accounts, (cpu, gpu.backend)))
    walked: list[int] = []

    def walk_tile(*given: Any) -> Any:
        walked.append(int(given[4]))
        return lane_tiles.walk_tile(*given)

    if SIMULATED:
        monkeypatch.setattr(long_lanes, "walk_tile", walk_tile)
    lanes.step_to(3 * LANE_TILE, lacking=None)
    assert walked == []
    lanes.step_to(2 * LANE_TILE, lacking=LANE_TILE - 1)
    assert set(walked) == ({LANE_TILE} if SIMULATED else set())
    cpu.close()


def test_senders_without_account_or_with_two_lanes(gpu: Gpu) -> None:
    """Both are found in short and in scanned lanes, the earliest of all defects first."""
    made = accounts([1000, 1000, 1000])
    short = [transfer(0, 0, 1, key(1))]
    long = [transfer(1, nonce, 1, key(0)) for nonce in range(LONG)]
    nobody = [transfer(9, nonce, 1, key(0)) for nonce in range(LONG)]
    again = [transfer(1, LONG, 1, key(0))]
    for lanes in ([short, nobody], [short, long, short], [long, short, again]):
        payload = oracle.encode_payload(lanes)
        state = open_state(made, gpu.backend)
        assert engine_result(state, payload)[0] == oracle_result(made, payload)[0]


def test_new_accounts_and_their_minimum_in_long_lanes(gpu: Gpu, rng: np.random.Generator) -> None:
    """Amounts below the minimum of a new account fail, whatever else is paid to its key."""
    made = accounts([10**6, 5])
    lane = [
        transfer(0, nonce, int(rng.integers(0, 9)), key(int(rng.integers(1, 6))))
        for nonce in range(4 * LONG_LANE)
    ]
    _, outcome = check_block(open_state(made, gpu.backend), made, lane)
    assert {0, 2} <= set(outcome.statuses.tolist())


def test_nonces_end_before_they_wrap(gpu: Gpu) -> None:
    """A lane that reaches the nonce 2^64 - 1 is refused there, also by the scan."""
    first = 2**64 - 1 - LONG_LANE
    made = [oracle.Account(key(0), 10 * LONG, first), oracle.Account(key(1), 10)]
    lane = [transfer(0, (first + i) % 2**64, 1, key(1)) for i in range(LONG)]
    payload = oracle.encode_payload([lane])
    state = open_state(made, gpu.backend)
    expected = oracle_result(made, payload)[0]
    assert engine_result(state, payload)[0] == expected
    assert expected == ("NONCE", LONG_LANE)
