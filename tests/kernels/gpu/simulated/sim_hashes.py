"""Hashes and roots of lists in the simulator, against the `blake3` package and the oracle."""

from concurrent.futures import ThreadPoolExecutor

import blake3
import numpy as np
import pytest

from kernels.blake3 import CHUNK_BYTES
from kernels.layout import U8
from spec import oracle
from tests.kernels.arms import random_columns
from tests.kernels.gpu.simulated.arms import Gpu, gpu

__all__ = ["gpu"]

KEY = bytes(range(32))


@pytest.mark.parametrize("size", [1, 3, 63, 64, 65, 192, 1000, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_messages(gpu: Gpu, rng: np.random.Generator, size: int) -> None:
    """Messages of every kind of length have the plain hash; longer ones than a chunk, too."""
    messages = rng.integers(0, 256, (2, size), np.uint8)
    expected = [blake3.blake3(row.tobytes()).digest() for row in messages]
    assert [row.tobytes() for row in gpu.backend.hash_messages(messages)] == expected


@pytest.mark.parametrize("count", [1, 9])
def test_transactions_and_receipts(gpu: Gpu, rng: np.random.Generator, count: int) -> None:
    """Random columns give the specification's hashes, receipts and roots over both."""
    columns = random_columns(rng, count)
    hashed = gpu.backend.hash_transactions(columns)
    fields = (
        columns.version, columns.kind, columns.chain_id, columns.nonce, columns.valid_until,
        columns.amount, columns.fee, columns.memo, columns.sender, columns.recipient,
        columns.signature,
    )  # fmt: skip
    records = [
        b"".join(
            [
                bytes([fields[0][i], fields[1][i], 0, 0]),
                *(field[i].tobytes() for field in fields[2:7]),
                bytes(8),
                *(field[i].tobytes() for field in fields[7:]),
            ]
        )
        for i in range(count)
    ]
    assert all(len(record) == 192 for record in records)
    assert [row.tobytes() for row in hashed] == [blake3.blake3(r).digest() for r in records]
    statuses = rng.integers(0, 3, count, np.uint8)
    receipts = gpu.backend.hash_receipts(hashed, statuses, columns.kind, columns.fee, KEY)
    expected = [
        oracle.keyed(
            KEY,
            hashed[i].tobytes()
            + bytes([statuses[i], columns.kind[i]])
            + bytes(14)
            + columns.fee[i].tobytes()
            + bytes(8),
        )
        for i in range(count)
    ]
    assert [row.tobytes() for row in receipts] == expected
    root = gpu.backend.list_root(receipts, KEY, bytes(32))
    assert root == oracle.merkle_root(expected, KEY, bytes(32))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 15, 16, 17, 33, 70])
def test_roots_of_lists(gpu: Gpu, rng: np.random.Generator, count: int) -> None:
    """Roots below and above what one block of threads climbs are the specification's."""
    leaves = rng.integers(0, 256, (count, 32), np.uint8)
    expected = oracle.merkle_root([leaf.tobytes() for leaf in leaves], KEY, b"\x09" * 32)
    assert gpu.backend.list_root(leaves, KEY, b"\x09" * 32) == expected


def test_threads_take_turns(gpu: Gpu, rng: np.random.Generator) -> None:
    """Pool, queries and writer hash at the same time; the device does one thing after another."""
    batches = [rng.integers(0, 256, (4, 64), np.uint8) for _ in range(6)]
    with ThreadPoolExecutor(3) as threads:
        roots = list(threads.map(lambda rows: hash_twice(gpu, rows), batches))
    for rows, root in zip(batches, roots, strict=True):
        leaves = [blake3.blake3(row.tobytes()).digest() for row in rows]
        assert root == oracle.merkle_root(leaves, KEY, bytes(32))


def hash_twice(gpu: Gpu, rows: U8) -> bytes:
    """Return the root over the hashes of rows."""
    return gpu.backend.list_root(gpu.backend.hash_messages(rows), KEY, bytes(32))


def test_leaves_of_another_shape_are_refused(gpu: Gpu) -> None:
    """The device refuses what the host refuses."""
    with pytest.raises(ValueError, match="leaves must be"):
        gpu.backend.list_root(np.zeros((3, 31), np.uint8), KEY, bytes(32))
    with pytest.raises(ValueError, match="messages must be"):
        gpu.backend.hash_messages(np.zeros((3, 31), np.uint64))
