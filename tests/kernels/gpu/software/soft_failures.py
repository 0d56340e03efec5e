"""A device that fails at any call, on the software device: the CPU goes on with the same block.

`test_software.py` runs this file in a process of its own for each schedule.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from engine.state import State
from kernels.backend import Backend, DeviceSettings, open_backend
from tests.kernels.gpu.blocks import BALANCE, RandomBlocks, keys_of
from tests.kernels.gpu.software.install import SoftwareDevice, installed

# Once the device is lost, Numba cannot give back what it holds there, and says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ACCOUNTS = 1_000
SIZES = (300, 1, 700)
NO_MEMORY, ILLEGAL, LAUNCH_FAILED = 2, 700, 719
PLACES = (0, 1, 5, 20, 60)
"""Calls after which one fails; behind the last of SIZES no call of that kind is left for some."""


@pytest.fixture
def device() -> Iterator[SoftwareDevice]:
    """Return the device, which is well again afterwards."""
    found = installed()
    yield found
    found.recover()


def blocks_that_fail(
    rng: np.random.Generator,
    device: SoftwareDevice,
    kind: str,
    *,
    after: int,
    code: int,
    times: int = 1,
    settings: DeviceSettings | None = None,
) -> list[str]:
    """Execute blocks on both arms while one call fails; returns what the backend told."""
    told: list[str] = []
    given = settings or DeviceSettings(crossover_transactions=1, check_blocks=0)
    gpu, cpu = open_backend("gpu", device=given, tell=told.append), open_backend("cpu")
    keys = keys_of(2 * ACCOUNTS)
    arms: tuple[Backend, Backend] = (cpu, gpu)
    balances = np.full(ACCOUNTS, BALANCE, np.uint64)
    one, other = (State(keys[:ACCOUNTS], balances, backend=backend) for backend in arms)
    assert one.state_hash() == other.state_hash()
    blocks = RandomBlocks(rng, (one, other), keys)
    blocks.step(200)
    device.fail(kind, after=after, times=times, code=code)
    for size in SIZES:
        blocks.step(size)
    assert told == ([gpu.degraded] if gpu.degraded else [])
    gpu.close()
    cpu.close()
    return told


@pytest.mark.parametrize("after", PLACES)
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("launch", LAUNCH_FAILED),
        ("launch", NO_MEMORY),
        ("run", LAUNCH_FAILED),
        ("run", ILLEGAL),
        ("copy", LAUNCH_FAILED),
        ("wait", LAUNCH_FAILED),
    ],
)
def test_a_call_that_fails(
    rng: np.random.Generator, device: SoftwareDevice, kind: str, code: int, after: int
) -> None:
    """Whatever fails, at whichever call, the blocks come to the same and the loss is told once."""
    assert len(blocks_that_fail(rng, device, kind, after=after, code=code)) == 1


@pytest.mark.parametrize("kind", ["memset", "allocation", "pinned"])
@pytest.mark.parametrize("after", [0, 2])
def test_rare_calls_that_fail(
    rng: np.random.Generator, device: SoftwareDevice, kind: str, after: int
) -> None:
    """The same for calls that a block may not need; memory that ends once is asked for again."""
    told = blocks_that_fail(rng, device, kind, after=after, times=1 << 20, code=NO_MEMORY)
    assert len(told) <= 1


def test_memory_that_is_too_small(rng: np.random.Generator, device: SoftwareDevice) -> None:
    """A device without room gives the block back: the same result, and a message."""
    settings = DeviceSettings(
        crossover_transactions=1, check_blocks=0, memory_bytes_max=int(1.5 * 2**20)
    )
    told = blocks_that_fail(rng, device, "none", after=0, code=0, times=0, settings=settings)
    assert len(told) == 1
    assert "memory" in told[0]
