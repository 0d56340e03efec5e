"""Prefix sums and the account table in the simulator, against NumPy and a dict."""

import numpy as np
import pytest

from kernels import accounts
from kernels.gpu import prefix, table
from kernels.gpu.device import Arena, Device
from kernels.gpu.grid import THREADS, TILE, blocks_for
from kernels.gpu.prefix import prefix_sums
from kernels.layout import ACCOUNT_WORDS, NO_SLOT
from tests.kernels.gpu.simulated.arms import device

__all__ = ["device"]


@pytest.mark.parametrize("count", [1, 7, TILE - 1, TILE, TILE + 1, 5 * TILE + 3, TILE * TILE + 1])
def test_prefix_sums(device: Device, rng: np.random.Generator, count: int) -> None:
    """Sums of one, several and more tiles than a tile holds are NumPy's, and so is the total."""
    values = rng.integers(0, 2**32 // (TILE * TILE + 1), count).astype(np.uint32)
    out, total = prefix_sums(device, Arena(device), "test", device.put(values), count)
    expected = np.concatenate(([0], np.cumsum(values)))
    assert device.fetch(out).tolist() == expected[:-1].tolist()
    assert device.fetch(total).tolist() == [expected[-1]]


def test_filling(device: Device) -> None:
    """An array is filled to the last place."""
    array = device.array(19, np.uint32)
    device.launch(prefix.fill_u32, 19, array, np.uint32(2**32 - 1))
    assert (device.fetch(array) == 2**32 - 1).all()


def test_keys_that_share_entries(device: Device, rng: np.random.Generator) -> None:
    """In a full table every key is found; forgotten ones are not, and are walked over."""
    records = np.zeros((64, ACCOUNT_WORDS), np.uint64)
    records[:38, :4] = rng.integers(0, 2**64, (38, 4), np.uint64)
    there = device.put(records)
    entries = device.array(accounts.ENTRIES_MIN, np.uint64)
    secret = device.put(rng.integers(0, 2**64, 8, np.uint64))
    device.launch(table.enter_slots, 38, entries, there, secret, 0, 38)
    keys = device.put(np.ascontiguousarray(records[:38, :4]))
    found = device.array(38, np.uint32)
    device.launch(table.find_keys, 38, entries, there, secret, keys, found)
    assert device.fetch(found).tolist() == list(range(38))
    device.launch(table.forget_slots, 18, entries, there, secret, 20, 38)
    device.launch(table.clear_records, 18, there, 20, 38)
    device.launch(table.find_keys, 38, entries, there, secret, keys, found)
    assert device.fetch(found).tolist() == [*range(20), *[NO_SLOT] * 18]
    rows = device.put(np.array([30, 3, 3], np.int32))
    some = device.array(3, np.uint32)
    device.launch(table.find_rows, 3, entries, there, secret, keys, rows, some)
    assert device.fetch(some).tolist() == [NO_SLOT, 3, 3]


def test_claims_name_the_least_row(device: Device, rng: np.random.Generator) -> None:
    """Of equal keys the least row is named by all, whoever came first."""
    distinct = rng.integers(0, 2**64, (9, 4), np.uint64)
    drawn = rng.integers(0, 9, 40)
    claims, places = device.array(64, np.uint32), device.array(40, np.uint32)
    device.launch(prefix.fill_u32, 64, claims, np.uint32(2**32 - 1))
    secret = device.put(rng.integers(0, 2**64, 8, np.uint64))
    device.launch(table.claim_keys, 40, device.put(distinct[drawn]), secret, claims, places)
    least = device.fetch(claims)[device.fetch(places)]
    assert least.tolist() == [int(np.flatnonzero(drawn == key)[0]) for key in drawn]


def test_a_meter_counts_what_the_device_does(device: Device) -> None:
    """Launches and copies are counted by name with their threads and bytes, until collected."""
    device.meter = device.new_meter()
    array = device.put(np.arange(20, dtype=np.uint32))
    for _ in range(2):
        device.launch(prefix.fill_u32, 20, array, np.uint32(7))
    device.fetch(array)
    spans = device.meter.collect()
    assert {name: (span.calls, span.items) for name, span in spans.items()} == {
        "copy_in": (1, 80),
        "fill_u32": (2, 2 * blocks_for(20) * THREADS),
        "copy_back": (1, 80),
    }
    assert device.meter.collect() == {}
