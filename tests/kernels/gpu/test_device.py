"""Claims that need a device: `pytest -m gpu` or `make gpu` runs them."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from bench.workloads import SYNTHETIC
from engine.crossover import crossover
from kernels.backend import DeviceSettings, DeviceUnavailable, open_backend
from kernels.gpu.ed25519 import memory_bytes
from kernels.gpu.long_lanes import FEW_TILES
from kernels.gpu.opening import open_device
from tests.kernels.gpu import claims
from tests.kernels.gpu.claims import Arms

pytestmark = pytest.mark.gpu

BLOCKS = int(os.environ.get("TOS_GPU_BLOCKS") or 60)
"""Random blocks; set `TOS_GPU_BLOCKS` for a long run."""
ACCOUNTS = 200_000
EVERYTHING = DeviceSettings(crossover_transactions=1, check_blocks=0)


@pytest.fixture(scope="module")
def arms() -> Iterator[Arms]:
    """Open the CPU's backend and one whose every batch goes to the device."""
    try:
        open_device(EVERYTHING).close()
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    gpu = open_backend("gpu", device=EVERYTHING)  # a device that is there has to be good for it
    cpu = open_backend("cpu")
    yield cpu, gpu
    assert gpu.degraded == ""
    gpu.close()
    cpu.close()


def test_random_blocks(arms: Arms, rng: np.random.Generator) -> None:
    """Random blocks of 1 to 50,000 transactions come to the same on both, forwards and back."""
    blocks = claims.random_blocks(arms, rng, ACCOUNTS)
    for _ in range(BLOCKS):
        blocks.step(int(rng.choice([1, 7, 300, 5_000, 50_000])))
    assert blocks.height > blocks.refused


@pytest.mark.parametrize("name", SYNTHETIC)
def test_workloads(arms: Arms, name: str) -> None:
    """Every made-up workload of the benchmark, also one hot sender, comes to the same on both."""
    claims.check_workload(arms, name, count=100_000, per_block=50_000)


def test_random_lanes(arms: Arms, rng: np.random.Generator) -> None:
    """Lanes that fail, or are refused, beside any border of a tile come to the same on both."""
    claims.check_random_lanes(arms, rng, BLOCKS, 2 * FEW_TILES)


def test_more_tiles_than_threads(arms: Arms, rng: np.random.Generator) -> None:
    """A lane of a million fails to the unit at its end."""
    claims.check_many_tiles(arms, rng, 2)


@pytest.mark.parametrize("before", [0, 1_000, 100_000])
def test_costs_that_wrap_mint_nothing(arms: Arms, before: int) -> None:
    """The golden case, in a short lane and at the end of long ones, is the oracle's."""
    claims.check_costs_that_wrap(arms[1], before)


def test_lanes_of_one_sender(arms: Arms) -> None:
    """Of the lanes of a sender only the first is one, whichever thread comes first."""
    claims.check_lanes_of_one_sender(arms[1], 50_000)


def test_all_that_a_block_can_change(arms: Arms) -> None:
    """A block that changes as many accounts as any of its size can is the oracle's."""
    claims.check_all_that_a_block_can_change(arms[1])


def test_payments_to_new_accounts(arms: Arms, rng: np.random.Generator) -> None:
    """New accounts to which many pay get the slots that the payload's order gives."""
    claims.check_new_accounts(arms, rng, 50_000)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 100_000])
def test_hashes(arms: Arms, rng: np.random.Generator, count: int) -> None:
    """Hashes of transactions, receipts and messages, and roots over them, are the CPU's."""
    claims.check_hashes(arms, rng, count)


@pytest.mark.usefixtures("arms")
def test_memory_that_is_too_small(rng: np.random.Generator) -> None:
    """A device without room gives the block back: the same result, and a message."""
    told: list[str] = []
    settings = DeviceSettings(
        crossover_transactions=1, memory_bytes_max=memory_bytes()[1] + (1 << 26)
    )
    gpu = open_backend("gpu", device=settings, tell=told.append)
    cpu = open_backend("cpu")
    blocks = claims.random_blocks((cpu, gpu), rng, ACCOUNTS)
    for size in (1_000, 100_000, 100_000):
        blocks.step(size)
    assert len(told) == 1
    assert gpu.degraded == told[0]
    gpu.close()
    cpu.close()


def test_the_crossover_is_found(arms: Arms) -> None:
    """Measuring it runs whole blocks of every size on both."""
    found = crossover(*arms)
    assert found is None or found > 0
