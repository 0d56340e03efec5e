"""Blocks that are announced, in the simulator: whatever comes in which order, the right bytes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.codec import PayloadLimits, decode_payload, encode_payload
from kernels.gpu.device import Device
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.uploads import PLACES, Uploads
from kernels.layout import Columns
from tests.kernels.arms import random_columns
from tests.kernels.gpu.simulated.arms import device

__all__ = ["device"]

LIMITS = PayloadLimits(bytes=1 << 20, transactions=1 << 10, objects=1 << 10)
COUNT = 3


def payload_of(rng: np.random.Generator) -> bytes:
    """Return a payload of random transactions, each in a lane of its own."""
    return encode_payload(random_columns(rng, COUNT), np.arange(COUNT + 1, dtype=np.int32))


def decoded(payload: bytes) -> Columns:
    """Return views of a payload: other arrays at each call, over the same bytes."""
    return decode_payload(payload, LIMITS).columns


def check(device: Device, uploads: Uploads, payload: bytes) -> None:
    """Assert that what the launches of a block will read is its payload."""
    columns = decoded(payload)
    there = uploads.get(columns)
    assert uploads.find(columns) is there
    hosts: tuple[NDArray[Any], ...] = columns
    for host, column in zip(hosts, there, strict=True):
        assert device.fetch(column).tobytes() == host.tobytes()


class Copies:
    """Counts what is copied ahead and what is not."""

    def __init__(self, device: Device) -> None:
        """Stand before both."""
        self.ahead = self.late = 0
        self._ahead, self._late = device.copy_ahead, device.copy_in
        device.copy_ahead = self.copy_ahead  # type: ignore[method-assign]  # the point of counting
        device.copy_in = self.copy_in  # type: ignore[method-assign]  # the point of counting

    def copy_ahead(self, source: Any, target: Any) -> None:
        """Count and copy."""
        self.ahead += 1
        self._ahead(source, target)

    def copy_in(self, source: Any, target: Any) -> None:
        """Count and copy."""
        self.late += 1
        self._late(source, target)


def test_an_announced_block_crosses_once(device: Device, rng: np.random.Generator) -> None:
    """Blocks that are announced one ahead are copied ahead, once each, and nothing else is."""
    uploads, copies = Uploads(device), Copies(device)
    payloads = [payload_of(rng) for _ in range(7)]
    uploads.prefetch(decoded(payloads[0]))
    for this, following in zip(payloads, [*payloads[1:], payloads[-1]], strict=True):
        uploads.prefetch(decoded(following))
        check(device, uploads, this)
        check(device, uploads, this)
    assert (copies.ahead, copies.late) == (len(payloads), 0)


def test_any_order_of_announcements(device: Device, rng: np.random.Generator) -> None:
    """Unannounced, repeated, skipped and forgotten blocks all give their own bytes."""
    uploads = Uploads(device)
    payloads = [payload_of(rng) for _ in range(6)]
    for _ in range(120):
        if rng.integers(2):
            uploads.prefetch(decoded(payloads[rng.integers(len(payloads))]))
        else:
            check(device, uploads, payloads[rng.integers(len(payloads))])


def test_forgotten_announcements_end(device: Device, rng: np.random.Generator) -> None:
    """Blocks that are announced and never executed keep no place for long."""
    uploads, copies = Uploads(device), Copies(device)
    for _ in range(PLACES + 2):
        uploads.prefetch(decoded(payload_of(rng)))
    assert copies.ahead == PLACES - 1
    check(device, uploads, payload_of(rng))
    following = payload_of(rng)
    uploads.prefetch(decoded(following))
    check(device, uploads, following)
    assert (copies.ahead, copies.late) == (PLACES, 1)


def test_changed_bytes_are_copied_anew(device: Device, rng: np.random.Generator) -> None:
    """Columns that somebody may write to are not taken for those that were copied before."""
    uploads = Uploads(device)
    columns = random_columns(rng, COUNT)
    uploads.prefetch(columns)
    columns.amount[0] ^= np.uint64(1)
    there = device.fetch(uploads.get(columns).amount)
    assert there.tolist() == columns.amount.tolist()


def test_execution_waits_for_the_copy(device: Device, rng: np.random.Generator) -> None:
    """A block whose announcement is still being copied is not read before all of it is there."""
    uploads, payload = Uploads(device), payload_of(rng)
    begun, may_end = threading.Event(), threading.Event()
    copy_ahead = device.copy_ahead

    def held(source: Any, target: Any) -> None:
        begun.set()
        assert may_end.wait(60)
        copy_ahead(source, target)

    device.copy_ahead = held  # type: ignore[method-assign]  # holds the copy up
    with ThreadPoolExecutor(2) as threads:
        announcing = threads.submit(uploads.prefetch, decoded(payload))
        assert begun.wait(60)
        executing = threads.submit(check, device, uploads, payload)
        may_end.set()
        announcing.result(60)
        executing.result(60)


def test_a_copy_that_fails_is_told_to_both(device: Device, rng: np.random.Generator) -> None:
    """Who announces and who executes both hear that the device refused a block."""
    uploads, payload = Uploads(device), payload_of(rng)
    device.bytes_max = device.bytes_taken
    with pytest.raises(DeviceFailed, match="memory"):
        uploads.prefetch(decoded(payload))
    with pytest.raises(DeviceFailed, match="memory"):
        uploads.get(decoded(payload))
