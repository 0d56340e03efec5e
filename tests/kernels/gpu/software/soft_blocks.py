"""Blocks on the software device beside the CPU's: bit for bit, however late work is done.

`test_software.py` runs this file in a process of its own for each schedule. Sizes are small: a
kernel's threads run one after the other here. `test_device.py` has the same claims at full size.
"""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from bench.workloads import SYNTHETIC
from engine.state import State
from kernels.backend import DeviceSettings, open_backend
from kernels.gpu import long_lanes
from kernels.gpu.staging import STAGING_BYTES
from kernels.layout import ACCOUNT_WORDS
from tests.kernels.gpu import claims
from tests.kernels.gpu.blocks import keys_of
from tests.kernels.gpu.claims import Arms

ACCOUNTS = 5_000
BLOCKS = 24
LANE_BLOCKS = int(os.environ.get("TOS_LANE_BLOCKS") or 30)
"""Of random long lanes; set `TOS_LANE_BLOCKS` for a long run."""
LANE_TILES = 5
MANY_ACCOUNTS = 5 * STAGING_BYTES // (8 * ACCOUNT_WORDS)
EVERYTHING = DeviceSettings(crossover_transactions=1, crossover_signatures=1, check_blocks=0)


@pytest.fixture(scope="module")
def arms() -> Iterator[Arms]:
    """Open the CPU's backend and one whose every batch goes to the device."""
    gpu, cpu = open_backend("gpu", device=EVERYTHING), open_backend("cpu")
    yield cpu, gpu
    assert gpu.degraded == ""
    gpu.close()
    cpu.close()


def test_random_blocks(arms: Arms, rng: np.random.Generator) -> None:
    """Random blocks of 1 to 5,000 transactions come to the same on both, forwards and back."""
    blocks = claims.random_blocks(arms, rng, ACCOUNTS)
    for _ in range(BLOCKS):
        blocks.step(int(rng.choice([1, 7, 300, 5_000])))
    assert blocks.height > blocks.refused


def test_many_accounts(arms: Arms) -> None:
    """Accounts that fill the buffers on the way to the device many times arrive whole."""
    keys = keys_of(MANY_ACCOUNTS)
    balances = np.arange(MANY_ACCOUNTS, dtype=np.uint64)
    one, other = (State(keys, balances, backend=backend) for backend in arms)
    assert one.state_hash() == other.state_hash()


@pytest.mark.parametrize("name", SYNTHETIC)
def test_workloads(arms: Arms, name: str) -> None:
    """Every made-up workload of the benchmark, also one hot sender, comes to the same on both."""
    claims.check_workload(arms, name, count=10_000, per_block=3_000)


@pytest.mark.parametrize("name", ["uniform", "hot-sender"])
def test_signed_blocks(arms: Arms, name: str) -> None:
    """Blocks whose signatures are verified on the way come to the same on both."""
    claims.check_workload(arms, name, count=500, per_block=300, is_signed=True)


@pytest.mark.parametrize("before", [0, 600, 5_000])
def test_costs_that_wrap_mint_nothing(arms: Arms, before: int) -> None:
    """The golden case, in a short lane and at the end of long ones, is the oracle's."""
    claims.check_costs_that_wrap(arms[1], before)


def test_random_lanes(
    arms: Arms, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes that fail, or are refused, beside any border of a tile come to the same on both.

    Two tiles are many here: more of them are walked side by side, and blocks can be small.
    """
    monkeypatch.setattr(long_lanes, "FEW_TILES", 1)
    claims.check_random_lanes(arms, rng, LANE_BLOCKS, LANE_TILES)


def test_more_tiles_than_threads(arms: Arms, rng: np.random.Generator) -> None:
    """What a lane spends before a tile is carried over all tiles before it."""
    claims.check_many_tiles(arms, rng, 1)


def test_tiles_that_fail_together(arms: Arms, rng: np.random.Generator) -> None:
    """The first of many tiles that fail is where one block of threads goes on."""
    claims.check_tiles_that_fail_together(arms, rng)


def test_lanes_of_one_sender(arms: Arms) -> None:
    """Of the lanes of a sender only the first is one, whichever thread comes first."""
    claims.check_lanes_of_one_sender(arms[1], 3_000)


def test_all_that_a_block_can_change(arms: Arms) -> None:
    """A block that changes as many accounts as any of its size can is the oracle's."""
    claims.check_all_that_a_block_can_change(arms[1])


def test_payments_to_new_accounts(arms: Arms, rng: np.random.Generator) -> None:
    """New accounts to which many pay get the slots that the payload's order gives."""
    claims.check_new_accounts(arms, rng, 3_000)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 3_000])
def test_hashes(arms: Arms, rng: np.random.Generator, count: int) -> None:
    """Hashes of transactions, receipts and messages, and roots over them, are the CPU's."""
    claims.check_hashes(arms, rng, count)
