"""Claims about memory of a device and locked pages: given back once, by a thread that may.

`test_software.py` runs this file in a process of its own for each schedule.
"""

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from kernels.backend import DeviceSettings
from kernels.gpu.device import Device
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.opening import open_device
from tests.kernels.gpu.software.install import installed

SIZE = 3 << 20
NO_MEMORY = 2


@pytest.fixture
def device() -> Iterator[Device]:
    """Return a device of its own, with nothing left from others."""
    gc.collect()
    opened = open_device(DeviceSettings())
    opened.wait()
    yield opened
    opened.close()


def die_elsewhere(make: Callable[[], Any]) -> None:
    """Let the last that names something die on a thread that never saw the device."""
    made = [make()]
    thread = threading.Thread(target=made.clear)
    thread.start()
    thread.join()
    assert not made


def test_memory_that_dies_on_another_thread(device: Device) -> None:
    """It counts as taken, and is, until somebody waits."""
    before = installed().counts().device_bytes
    taken = device.bytes_taken
    die_elsewhere(lambda: device.empty(SIZE, np.uint8))
    assert installed().counts().device_bytes >= before + SIZE
    assert device.bytes_taken == taken + SIZE
    device.wait()
    assert installed().counts().device_bytes == before
    assert device.bytes_taken == taken


def test_pages_that_die_on_another_thread(device: Device) -> None:
    """They stay readable to the last view, and the driver takes them back without a word."""
    views: list[Any] = []

    def make() -> Any:
        pages = device.driver.pinned(SIZE)
        pages[:] = 7
        views.append(pages[10:20])
        return pages

    die_elsewhere(make)
    device.wait()
    assert views[0].tolist() == [7] * 10
    die_elsewhere(views.pop)
    device.wait()
    assert not installed().error()


def test_what_died_is_enough_for_another(device: Device) -> None:
    """Memory that the driver has no more of is asked for again, when the dead is given back."""
    device.driver.enter()
    die_elsewhere(lambda: device.driver.allocate(SIZE))
    before = installed().counts().device_bytes
    installed().fail("allocation", after=0, code=NO_MEMORY)
    owner, _ = device.driver.allocate(SIZE)
    assert installed().counts().device_bytes == before
    installed().fail("allocation", after=0, times=2, code=NO_MEMORY)
    with pytest.raises(DeviceFailed, match=f"memory of {SIZE} bytes: CUDA_ERROR_OUT_OF_MEMORY"):
        device.driver.allocate(SIZE)
    del owner
