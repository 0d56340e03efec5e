"""Claims about signatures on a device: the verifier as compiled, behind the driver that nodes use.

`test_software.py` runs this file in a process of its own for each schedule.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kernels.backend import DeviceSettings, DeviceUnavailable
from kernels.gpu.device import Device
from kernels.gpu.ed25519 import DeviceVerifier, memory_bytes
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.opening import open_device
from kernels.gpu.prefix import fill_u32
from tests.kernels.forgeries import corrupted, signed_rows
from tests.kernels.gpu.software.install import installed

CHUNK = 48
"""Rows of a launch: less than one block of threads."""
LAUNCH_FAILED, NO_MEMORY, ILLEGAL = 719, 2, 700
COUNT = 5 * CHUNK + 7


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    """Return a device of its own."""
    opened = open_device(DeviceSettings())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def verifier(device: Device) -> Iterator[DeviceVerifier]:
    """Return a verifier with small chunks, so that slots are used again and again."""
    opened = DeviceVerifier(device, chunk=CHUNK)
    yield opened
    device.wait()
    taken = device.bytes_taken
    opened.close()
    device.wait()
    assert taken - device.bytes_taken == memory_bytes(CHUNK)[1]


@pytest.mark.parametrize("length", [160, 33, 0])
def test_chunks(verifier: DeviceVerifier, rng: np.random.Generator, length: int) -> None:
    """Verdicts are those of their rows, whichever slot they went through."""
    rows, bad = corrupted(rng, signed_rows(rng, COUNT, length), 3)
    assert verifier.verify(*rows).tolist() == (~bad).tolist()


def test_rows_that_are_on_the_device(
    device: Device, verifier: DeviceVerifier, rng: np.random.Generator
) -> None:
    """They are judged where they are."""
    rows, bad = corrupted(rng, signed_rows(rng, COUNT, 160), 3)
    there = [device.put(array) for array in rows]
    device.wait()
    keys, signatures, messages = (array.address for array in there)
    verdicts = verifier.verify_resident(keys, signatures, messages, 160, COUNT)
    assert verdicts.tolist() == (~bad).tolist()


def test_beside_launches_of_others(
    device: Device, verifier: DeviceVerifier, rng: np.random.Generator
) -> None:
    """Batches of several threads do not mix, while other work runs in the stream of blocks."""
    rows = signed_rows(rng, COUNT, 160)
    batches = [corrupted(rng, rows, 2) for _ in range(4)]
    array = device.array(1000, np.uint32)

    def launch(number: int) -> int:
        with device.lock:
            device.launch(fill_u32, len(array), array, np.uint32(number))
            return int(device.fetch(array)[-1])

    with ThreadPoolExecutor(3) as pool:
        numbers = [pool.submit(launch, number) for number in range(10)]
        verdicts = list(pool.map(lambda batch: verifier.verify(*batch[0]), batches))
    assert [number.result() for number in numbers] == list(range(10))
    for answer, (_, bad) in zip(verdicts, batches, strict=True):
        assert answer.tolist() == (~bad).tolist()


@pytest.mark.parametrize(
    ("kind", "code"), [("copy", ILLEGAL), ("memset", ILLEGAL), ("launch", LAUNCH_FAILED),
                       ("wait", LAUNCH_FAILED)],
)  # fmt: skip
@pytest.mark.parametrize("after", [0, 3])
def test_a_call_that_fails(
    verifier: DeviceVerifier, rng: np.random.Generator, kind: str, code: int, after: int
) -> None:
    """Is a device that failed, at whichever place, and no verdict stays for the next batch."""
    rows, bad = corrupted(rng, signed_rows(rng, COUNT, 160), 3)
    installed().fail(kind, after=after, code=code)
    with pytest.raises(DeviceFailed):
        verifier.verify(*rows)
    assert installed().failures_left(kind) == 0
    installed().recover()
    assert verifier.verify(*rows).tolist() == (~bad).tolist()


@pytest.mark.parametrize("after", range(5))
def test_a_device_without_room(device: Device, after: int) -> None:
    """Is said to be none for signatures, and takes nothing."""
    device.wait()
    taken = device.bytes_taken
    installed().fail("allocation", after=after, times=2, code=NO_MEMORY)  # Numba asks twice
    with pytest.raises(DeviceUnavailable, match="they need"):
        DeviceVerifier(device, chunk=CHUNK)
    installed().fail("allocation", after=0, times=0, code=NO_MEMORY)
    device.wait()
    assert device.bytes_taken == taken
