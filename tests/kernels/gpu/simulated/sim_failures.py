"""What happens when the device fails in the middle, in the simulator: the block is done anyway.

Failures are injected where the driver would report them, at a launch; memory really ends.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Arena, Device
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.pinned import SIZE_MIN
from spec import oracle
from tests.engine.ledgers import accounts, engine_result, key, oracle_result
from tests.kernels.arms import random_columns
from tests.kernels.gpu.simulated.arms import (
    SETTINGS,
    Gpu,
    check_block,
    device,
    open_state,
    transfer,
)

__all__ = ["device"]


class FailingLaunches:
    """Lets so many launches through and fails all later ones, as a device that is gone does."""

    def __init__(self, device: Device, through: int) -> None:
        """Stand between the device and its launches."""
        self.count = 0
        self._through = through
        self._launch = device.launch_blocks
        device.launch_blocks = self  # type: ignore[method-assign]  # the point of injection

    def __call__(self, kernel: Any, blocks: int, *arguments: Any) -> None:
        """Launch, or fail."""
        self.count += 1
        if self.count > self._through:
            raise DeviceFailed("a launch: the device is gone")
        self._launch(kernel, blocks, *arguments)


def block(height: int) -> list[Any]:
    """Return transfers to old and new accounts, one of them too small."""
    first = [transfer(i, height - 1, 9 + i, key(i + 1)) for i in range(3)]
    last = [transfer(4, height - 1, 20, key(60 + height)), transfer(5, height - 1, 1, key(99))]
    return first + last


def launches_of_a_block() -> int:
    """Return how many launches a block takes, undone and redone."""
    opened = Gpu()
    made = accounts([1000] * 6)
    state = open_state(made, opened.backend)
    counter = FailingLaunches(opened.backend.device, 10**9)
    check_block(state, made, block(1))
    opened.backend.close()
    return counter.count


def test_a_device_that_is_lost_at_any_launch(rng: np.random.Generator) -> None:
    """Wherever the device goes, this block and the next one are right, and it is said once."""
    total = launches_of_a_block()
    assert total > 30
    for through in (0, *sorted(rng.choice(np.arange(1, total), 6, replace=False).tolist())):
        opened = Gpu()
        made = accounts([1000] * 6)
        state = open_state(made, opened.backend)
        FailingLaunches(opened.backend.device, through)
        made, _ = check_block(state, made, block(1))
        check_block(state, made, block(2), 2)
        assert len(opened.told) == 1, through
        assert "the CPU goes on: a launch: the device is gone" in opened.told[0]
        assert opened.backend.degraded == opened.told[0]
        opened.backend.close()


def test_a_device_without_room_for_the_accounts() -> None:
    """Accounts that do not fit are the host's alone, and a message says why."""
    opened = Gpu()
    opened.backend.device.bytes_max = opened.backend.device.bytes_taken + 50_000
    made = accounts([1000] * 6)
    state = open_state(made, opened.backend)
    check_block(state, made, block(1))
    assert f"exceed the {opened.backend.device.bytes_max} that may be" in opened.told[0]
    assert state.resident_bytes > 0
    opened.backend.close()


def test_memory_that_ends_during_a_block() -> None:
    """When arrays cannot grow any more the block goes to the host, whole."""
    opened = Gpu()
    made = accounts([1000] * 6)
    state = open_state(made, opened.backend)
    made, _ = check_block(state, made, block(1))
    device = opened.backend.device
    device.bytes_max = device.bytes_taken
    many = [transfer(0, 1 + i, 5, key(100 + i)) for i in range(40)]
    check_block(state, made, many, 2)
    assert len(opened.told) == 1
    assert "memory" in opened.told[0]
    opened.backend.close()


def flip(device: Device, row: DeviceArray, word: int) -> None:
    """Turn a bit of a row round."""
    host = device.fetch(row)
    host[0, word] ^= host.dtype.type(1 << 20)
    device.copy_in(host, row)
    device.wait()


@pytest.mark.parametrize("what", ["balance", "nonce", "tree", "key"])
def test_a_difference_is_found_by_the_sample(what: str) -> None:
    """A bit that flips on the device is noticed by the sample, and the host's result counts."""
    opened = Gpu(replace(SETTINGS, check_blocks=1))
    made = accounts([1000] * 40)
    state = open_state(made, opened.backend)
    made, _ = check_block(state, made, block(1))
    assert opened.told == []
    there: Any = state.accounts._device  # type: ignore[attr-defined]  # the device's own arrays
    if what == "tree":
        flip(opened.backend.device, there._tree._nodes[15:16], 0)
    else:
        flip(
            opened.backend.device,
            there._records.array[:1],
            {"balance": 4, "nonce": 5, "key": 0}[what],
        )
    payload = oracle.encode_payload(oracle.pack_lanes(block(2)))
    expected, _ = oracle_result(made, payload, 2)
    result, _ = engine_result(state, payload, 2)
    assert result == expected
    assert len(opened.told) == 1
    assert "the CPU" in opened.told[0]
    opened.backend.close()


def test_units_that_come_from_nowhere() -> None:
    """A block after which an account has more than all had is the host's, with its own sums."""
    opened = Gpu()
    made = accounts([1000] * 6)
    state = open_state(made, opened.backend)
    made, _ = check_block(state, made, block(1))
    there: Any = state.accounts._device  # type: ignore[attr-defined]  # what it compares with
    there.supply = 1
    check_block(state, made, block(2), 2)
    assert len(opened.told) == 1
    assert "changed the supply" in opened.told[0]
    opened.backend.close()


def test_a_device_that_is_given_up_elsewhere() -> None:
    """When signatures or hashes give the device up, the next block does not use it either."""
    opened = Gpu()
    made = accounts([1000] * 6)
    state = open_state(made, opened.backend)
    made, _ = check_block(state, made, block(1))
    opened.backend._guard.give_up("elsewhere")
    launches = FailingLaunches(opened.backend.device, 0)
    check_block(state, made, block(2), 2)
    assert launches.count == 0
    assert opened.told == [opened.backend.degraded]
    opened.backend.close()


def test_an_announcement_that_fails(rng: np.random.Generator) -> None:
    """A device that cannot take the next block is given up, and that block is the host's."""
    opened = Gpu()
    made = accounts([1000] * 6)
    state = open_state(made, opened.backend)
    device = opened.backend.device
    device.bytes_max = device.bytes_taken
    columns = random_columns(rng, 40)
    opened.backend.prefetch(lambda: columns)
    assert "memory" in opened.backend.degraded
    check_block(state, made, block(1))
    assert len(opened.told) == 1
    opened.backend.close()


def test_memory_is_counted_and_bounded(device: Device) -> None:
    """Arrays count while they live; more than the bound is refused, and nothing is taken then."""
    device.bytes_max = 1000
    array = device.array(100, np.uint64)
    assert device.bytes_taken == 800
    with pytest.raises(DeviceFailed, match="memory: 201 bytes more than the 800"):
        device.empty(201, np.uint8)
    del array
    assert device.bytes_taken == 800
    device.wait()
    assert device.bytes_taken == 0
    arena = Arena(device)
    first = arena.take("a", 100, np.uint32)
    second = arena.take("a", (10, 4), np.uint64)
    assert second.nbytes <= 512 == device.bytes_taken
    assert first.shape == (100,)


def test_pinned_buffers_come_back_with_their_last_view(device: Device) -> None:
    """A buffer is lent again when no view of it is left, and not before."""
    pool = device.pinned
    array = pool.take((3, 5), np.uint64)
    assert array.shape == (3, 5)
    assert pool.holds(array)
    assert pool.holds(array[1:])
    assert not pool.holds(np.zeros(3))
    address, view = array.ctypes.data, array[2, 1:]
    del array
    other = pool.take((8,), np.uint8)
    assert other.ctypes.data != address
    assert view.flags.writeable
    del view
    assert pool.take((SIZE_MIN,), np.uint8).ctypes.data == address
