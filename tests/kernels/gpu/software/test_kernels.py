"""The compiled kernels on the host: all are built, and some are compared with the CPU's bodies.

Whole blocks run through the driver elsewhere; here kernels are launched one by one.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from kernels import accounts, jit, transaction_hash, transfer
from kernels.layout import NO_DEFECT, NO_SLOT, U8, U64, Columns
from kernels.transfer import Limits
from tests.kernels.arms import random_columns
from tests.kernels.gpu import compiled
from tests.kernels.gpu.compiler import find_compiler
from tests.kernels.gpu.software.launches import Argument, launch, parameters
from tests.kernels.gpu.software.modules import build_module, entry_names

THREADS: Final = 256
TILE: Final = 2048
ORDERS: Final = [(0, False), (1, False), (2**63 + 5, False), (0, True), (1, True), (7, True)]
"""Seeds, and whether threads are switched at accesses to memory."""


@pytest.fixture(scope="module", autouse=True)
def compilers() -> None:
    """Skip where kernels cannot be compiled or built; pretend a device for Numba."""
    missing = compiled.missing_packages()
    if missing:
        pytest.skip(missing)
    if find_compiler() is None:
        pytest.skip("no g++: it builds modules for the host")
    import kernels.gpu.backend  # noqa: F401 - loads all of Numba that asks for a device

    compiled.pretend_device()


@cache
def built(name: str, interleaved: bool = False) -> tuple[Path, str]:
    """Return the module of a kernel and the kernel's name in it."""
    ptx = compiled.ptx_of(name)
    (entry,) = entry_names(ptx)
    return build_module(ptx, Path(jit.CONFIG.CACHE_DIR), interleaved=interleaved), entry


def run(name: str, blocks: int, *arguments: Argument, order: tuple[int, bool]) -> None:
    """Launch a kernel."""
    seed, interleaved = order
    module, entry = built(name, interleaved)
    numbers = [number for argument in arguments for number in parameters(argument)]
    assert launch(module, entry, blocks, THREADS, numbers, seed=seed) == 0


def blocks_for(count: int) -> int:
    """Return how many blocks hold a thread for each item."""
    return max(1, -(-count // THREADS))


@pytest.mark.parametrize("name", sorted(compiled.KERNELS))
def test_every_kernel_is_built(name: str) -> None:
    """All instructions of every kernel are known, and its module can be loaded."""
    module, entry = built(name)
    assert getattr(ctypes.CDLL(str(module)), entry) is not None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", [1, 7, 2047, 2048, 2049, 20_000])
def test_prefix_sums_within_tiles(
    rng: np.random.Generator, count: int, order: tuple[int, bool]
) -> None:
    """Each tile has its exclusive prefix sums and its total, the last one only what is there."""
    values = rng.integers(0, 2**32, count, np.uint32)
    out, tiles = np.zeros(count, np.uint32), np.zeros(-(-count // TILE), np.uint32)
    run("prefix.sum_tiles", len(tiles), values, out, tiles, order=order)
    for i, start in enumerate(range(0, count, TILE)):
        sums = np.cumsum(values[start : start + TILE], dtype=np.uint32)
        assert tiles[i] == sums[-1]
        assert (out[start : start + TILE] == np.concatenate([[0], sums[:-1]])).all()


@pytest.mark.parametrize("order", ORDERS)
def test_hashes_of_transactions(rng: np.random.Generator, order: tuple[int, bool]) -> None:
    """Random columns hash as on the CPU."""
    columns = random_columns(rng, 3001)
    wanted = np.zeros((3001, 32), np.uint8)
    transaction_hash.hash_transactions_scalar(columns, wanted, 0, 3001)
    out = np.zeros((3001, 8), np.uint32)
    words = [array.view(np.uint64) if array.ndim == 2 else array for array in columns]
    run("hashes.hash_transactions", blocks_for(3001), *words, out, order=order)
    assert (out.view(np.uint8) == wanted).all()


@pytest.mark.parametrize("order", ORDERS)
def test_slots_of_keys(rng: np.random.Generator, order: tuple[int, bool]) -> None:
    """Keys that are there have their slots, and others none, as on the CPU."""
    count = 5000
    records = rng.integers(0, 2**64, (count, 8), np.uint64)
    secret = rng.integers(0, 2**64, 8, np.uint64)
    entries = np.zeros(accounts.entries_for(count), np.uint64)
    assert accounts.fill(entries, records, secret, count) == count
    keys = records[rng.integers(0, count, 2 * count), :4].copy()
    keys[::3, rng.integers(0, 4)] ^= np.uint64(1) << rng.integers(0, 64, dtype=np.uint64)
    wanted, found = np.zeros(2 * count, np.uint32), np.zeros(2 * count, np.uint32)
    accounts.lookup_each(
        entries, records, secret, keys, np.zeros(0, np.int32), wanted, 0, 2 * count
    )
    assert {False, True} == set((wanted == NO_SLOT).tolist())
    run(
        "table.find_keys", blocks_for(2 * count), entries, records, secret, keys, found, order=order
    )
    assert (found == wanted).all()


LIMITS: Final = Limits(np.uint64(7), np.uint64(100), np.uint64(1), np.uint64(5))


class Lanes:
    """Random lanes that may all be included, for the CPU's walk and the device's."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw lanes of 1 to 6 transactions; some fail, none is refused."""
        lanes = 700
        sizes = rng.integers(1, 7, lanes)
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        n = int(self.offsets[-1])
        self.records = rng.integers(0, 2**64, (lanes, 8), np.uint64)
        self.records[:, 4] = rng.integers(1000, 2000, lanes, np.uint64)
        self.records[:, 5] = rng.integers(0, 2**63, lanes, np.uint64)
        self.sender_slots = rng.permutation(lanes).astype(np.uint32)
        lane_of = np.repeat(np.arange(lanes), sizes)
        self.senders = self.records[self.sender_slots[lane_of], :4].copy()
        self.recipient_slots = rng.integers(0, lanes, n, np.uint32)
        self.recipient_slots[rng.integers(0, 5, n) == 0] = NO_SLOT
        turn = (np.arange(n) - self.offsets[lane_of]).astype(np.uint64)
        amounts = rng.integers(0, 100, n, np.uint64)
        amounts[rng.integers(0, 5, n) == 0] = 2**64 - 1
        amounts[rng.integers(0, 5, n) == 0] = 3
        self.columns = Columns(
            version=np.ones(n, np.uint8), kind=np.zeros(n, np.uint8),
            chain_id=np.full(n, 7, np.uint32),
            nonce=self.records[self.sender_slots[lane_of], 5] + turn,
            valid_until=rng.integers(100, 200, n, np.uint64), amount=amounts,
            fee=rng.integers(1, 9, n, np.uint64), memo=np.zeros((n, 16), np.uint8),
            sender=self.senders.view(np.uint8), recipient=np.zeros((n, 32), np.uint8),
            signature=np.zeros((n, 64), np.uint8),
        )  # fmt: skip

    def on_cpu(self, repeated_lane: int) -> tuple[list[U64], U8, tuple[int, int, int]]:
        """Return (balances, nonces), statuses, and (fees, index and code of the first defect)."""
        lanes = len(self.sender_slots)
        statuses = np.full(len(self.columns.kind), 9, np.uint8)
        after: list[U64] = [np.zeros(lanes, np.uint64) for _ in range(2)]
        answer = transfer.walk_range(
            self.columns, self.senders, self.offsets, self.sender_slots, self.recipient_slots,
            LIMITS, np.uint64(repeated_lane), self.records, statuses, *after, 0, lanes,
        )  # fmt: skip
        return after, statuses, answer

    def on_device(self, order: tuple[int, bool]) -> tuple[list[U64], U8, U64]:
        """Return (balances, nonces), statuses and numbers of `walks.walk_short`."""
        lanes = len(self.sender_slots)
        first_lanes = np.full(len(self.records), 2**32 - 1, np.uint32)
        numbers = np.zeros(3, np.uint64)  # as `walks.NUMBERS` says
        run(
            "walks.claim_senders", blocks_for(lanes), self.sender_slots, first_lanes, numbers,
            order=order,
        )  # fmt: skip
        statuses = np.full(len(self.columns.kind), 9, np.uint8)
        after: list[U64] = [np.zeros(lanes, np.uint64) for _ in range(2)]
        run(
            "walks.walk_short", blocks_for(lanes), *self.columns[:7], self.senders, self.offsets,
            self.sender_slots, self.recipient_slots, first_lanes, self.records,
            *(ctypes.c_uint64(int(limit)) for limit in LIMITS), ctypes.c_uint64(100), statuses,
            *after, numbers, order=order,
        )  # fmt: skip
        return after, statuses, numbers


@pytest.mark.parametrize("order", ORDERS)
def test_short_lanes(rng: np.random.Generator, order: tuple[int, bool]) -> None:
    """Statuses, balances, nonces and fees are those of the CPU's walk."""
    lanes = Lanes(rng)
    after, statuses, (fees, _, defect) = lanes.on_cpu(len(lanes.sender_slots))
    assert defect == NO_DEFECT
    assert set(statuses.tolist()) == {0, 1, 2}
    on_device, statuses_there, numbers = lanes.on_device(order)
    assert (statuses_there == statuses).all()
    assert all((a == b).all() for a, b in zip(after, on_device, strict=True))
    assert numbers.tolist() == [2**64 - 1, fees, 0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("what", ["nonce", "fee", "chain_id", "version", "repeated", "unknown"])
def test_the_first_refused_transaction(
    rng: np.random.Generator, what: str, order: tuple[int, bool]
) -> None:
    """Of several refused transactions the first one is named, with the CPU's code."""
    lanes = Lanes(rng)
    count = len(lanes.sender_slots)
    repeated = count
    if what == "repeated":
        first, repeated = sorted(rng.choice(count, 2, replace=False).tolist())
        lanes.sender_slots[repeated] = lanes.sender_slots[first]
    elif what == "unknown":
        lanes.sender_slots[rng.choice(count, 3)] = NO_SLOT
    else:
        column = getattr(lanes.columns, what)
        for place in rng.choice(len(column), 3):
            column[place] = {"nonce": 0, "fee": 0, "chain_id": 8, "version": 2}[what]
    _, _, (_, index, defect) = lanes.on_cpu(repeated)
    assert defect != NO_DEFECT
    numbers = lanes.on_device(order)[2]
    assert numbers[0] == index << 8 | defect
