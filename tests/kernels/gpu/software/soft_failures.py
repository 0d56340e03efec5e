"""A device that fails at any call, on the software device: the CPU goes on with the same block.

`test_software.py` runs this file in a process of its own for each schedule.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from engine.state import State
from kernels.backend import Backend, DeviceSettings, open_backend
from kernels.gpu.backend import GpuBackend
from kernels.gpu.ed25519 import memory_bytes
from tests.kernels.gpu.blocks import BALANCE, RandomBlocks, keys_of
from tests.kernels.gpu.software.install import SoftwareDevice, installed

ACCOUNTS = 1_000
FIRST_SIZE = 200
SIZES = (300, 1, 700)
"""Transactions of the blocks before the failure, and from then on."""
NO_MEMORY, ILLEGAL, LAUNCH_FAILED = 2, 700, 719
PLACES = (0, 1, 5, 20, 60)
"""Calls after which one fails."""


@pytest.fixture
def device() -> Iterator[SoftwareDevice]:
    """Return the device, which is well again afterwards."""
    found = installed()
    yield found
    found.recover()


def blocks_that_fail(
    rng: np.random.Generator,
    spoil: Callable[[GpuBackend], None],
    memory_bytes_max: int | None = None,
) -> list[str]:
    """Execute blocks on both arms, `spoil` before the second one; returns what the backend told."""
    told: list[str] = []
    settings = DeviceSettings(
        crossover_transactions=1, check_blocks=0, memory_bytes_max=memory_bytes_max
    )
    gpu, cpu = open_backend("gpu", device=settings, tell=told.append), open_backend("cpu")
    assert isinstance(gpu, GpuBackend), "the name says which backend it is"
    keys = keys_of(2 * ACCOUNTS)
    arms: tuple[Backend, Backend] = (cpu, gpu)
    balances = np.full(ACCOUNTS, BALANCE, np.uint64)
    one, other = (State(keys[:ACCOUNTS], balances, backend=backend) for backend in arms)
    assert one.state_hash() == other.state_hash()
    blocks = RandomBlocks(rng, (one, other), keys)
    blocks.step(FIRST_SIZE)
    spoil(gpu)
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
        ("memset", LAUNCH_FAILED),
    ],
)
def test_a_call_that_fails(
    rng: np.random.Generator, device: SoftwareDevice, kind: str, code: int, after: int
) -> None:
    """Whatever fails, at whichever call, the blocks come to the same and the loss is told once."""
    told = blocks_that_fail(rng, lambda _: device.fail(kind, after=after, code=code))
    assert len(told) == 1 - device.failures_left(kind)
    assert told or after > PLACES[1]


@pytest.mark.parametrize("kind", ["allocation", "pinned"])
@pytest.mark.parametrize("after", [0, 2])
def test_memory_that_the_driver_refuses(
    rng: np.random.Generator, device: SoftwareDevice, kind: str, after: int
) -> None:
    """Memory of which nobody gets any more, on either side, leaves the blocks to the CPU."""
    every = 1 << 20
    told = blocks_that_fail(
        rng, lambda _: device.fail(kind, after=after, times=every, code=NO_MEMORY)
    )
    assert len(told) == int(device.failures_left(kind) < every)


def test_memory_that_is_asked_for_again(rng: np.random.Generator, device: SoftwareDevice) -> None:
    """Memory that was refused once, because what died was not yet given back, is no loss."""
    assert not blocks_that_fail(rng, lambda _: device.fail("allocation", after=0, code=NO_MEMORY))
    assert not device.failures_left("allocation")


@pytest.mark.usefixtures("device")
def test_memory_that_is_too_small(rng: np.random.Generator) -> None:
    """A device without room for a larger block gives it back: the same result, and a message."""

    def spoil(gpu: GpuBackend) -> None:
        gpu.device.bytes_max = gpu.device.bytes_taken

    told = blocks_that_fail(rng, spoil)
    assert len(told) == 1
    assert "memory" in told[0]


@pytest.mark.usefixtures("device")
def test_memory_that_holds_no_accounts(rng: np.random.Generator) -> None:
    """A device without room for the accounts is given up when they are opened."""
    room = memory_bytes()[1] + (1 << 12)  # enough to verify signatures
    told = blocks_that_fail(rng, lambda _: None, memory_bytes_max=room)
    assert len(told) == 1
    assert "memory" in told[0]
