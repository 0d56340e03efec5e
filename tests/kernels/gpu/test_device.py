"""Claims that need a device: `pytest -m gpu` or `make gpu` runs them."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bench.arms import block_context
from bench.blocks import build
from bench.workloads import SYNTHETIC, synthetic
from engine.crossover import crossover
from engine.state import State
from engine.transition import all_verified, execute_payload
from kernels.backend import Backend, DeviceSettings, DeviceUnavailable, open_backend
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, accounts, engine_result, key, oracle_result
from tests.engine.ledgers import open_state as open_ledger
from tests.kernels.arms import random_columns
from tests.kernels.gpu.blocks import BALANCE, RandomBlocks, keys_of

pytestmark = pytest.mark.gpu

BLOCKS = int(os.environ.get("TOS_GPU_BLOCKS") or 60)
"""Random blocks; set `TOS_GPU_BLOCKS` for a long run."""
ACCOUNTS = 200_000
EVERYTHING = DeviceSettings(crossover_transactions=1, check_blocks=0)


@pytest.fixture(scope="module")
def arms() -> Iterator[tuple[Backend, Backend]]:
    """Open the CPU's backend and one whose every batch goes to the device."""
    try:
        gpu = open_backend("gpu", device=EVERYTHING)
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    cpu = open_backend("cpu")
    yield cpu, gpu
    assert gpu.degraded == ""
    gpu.close()
    cpu.close()


def states_of(arms: tuple[Backend, Backend], keys: Any) -> tuple[State, State]:
    """Open the same accounts on both."""
    balances = np.full(len(keys), BALANCE, np.uint64)
    one, other = (State(keys, balances, backend=backend) for backend in arms)
    assert one.state_hash() == other.state_hash()
    return one, other


def test_random_blocks(arms: tuple[Backend, Backend], rng: np.random.Generator) -> None:
    """Random blocks of 1 to 50,000 transactions come to the same on both, forwards and back."""
    keys = keys_of(2 * ACCOUNTS)
    blocks = RandomBlocks(rng, states_of(arms, keys[:ACCOUNTS]), keys)
    for _ in range(BLOCKS):
        blocks.step(int(rng.choice([1, 7, 300, 5_000, 50_000])))
    assert blocks.height > blocks.refused


@pytest.mark.parametrize("name", SYNTHETIC)
def test_workloads(arms: tuple[Backend, Backend], name: str) -> None:
    """Every made-up workload of the benchmark, also one hot sender, comes to the same on both."""
    payments = synthetic(name, accounts=100_000, per_block=50_000, blocks=2, seed=5)
    workload = build(payments, seed=5, is_signed=False)
    hashes = []
    for backend in arms:
        state = State(workload.keys, workload.balances, backend=backend)
        for height, payload in enumerate(workload.payloads, start=1):
            outcome = execute_payload(
                state, payload, block_context(workload, height), is_verified=all_verified
            )
        hashes.append((outcome.state_hash, outcome.receipts_hash))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("before", [0, 1_000, 100_000])
def test_costs_that_wrap_mint_nothing(arms: tuple[Backend, Backend], before: int) -> None:
    """The golden case, in a short lane and at the end of long ones, is the oracle's."""
    amounts = [0] * before + [50, 2**64 - 52, 40]
    made = accounts([105 + before, 0])
    lane = [
        oracle.Transaction(CHAIN_ID, nonce, 9, amount, 1, key(0), key(1))
        for nonce, amount in enumerate(amounts)
    ]
    payload = oracle.encode_payload([lane])
    expected, _ = oracle_result(made, payload)
    result, _ = engine_result(open_ledger(made, arms[1]), payload)
    assert result == expected


@pytest.mark.parametrize("count", [1, 255, 256, 257, 100_000])
def test_hashes(arms: tuple[Backend, Backend], rng: np.random.Generator, count: int) -> None:
    """Hashes of transactions, receipts and messages, and roots over them, are the CPU's."""
    columns = random_columns(rng, count)
    statuses = rng.integers(0, 3, count, np.uint8)
    messages = rng.integers(0, 256, (count, 192), np.uint8)
    results = []
    for backend in arms:
        hashed = backend.hash_transactions(columns)
        receipts = backend.hash_receipts(hashed, statuses, columns.kind, columns.fee, bytes(32))
        root = backend.list_root(receipts, bytes(32), bytes(32))
        plain = backend.hash_messages(messages)
        results.append((hashed.tobytes(), receipts.tobytes(), root, plain.tobytes()))
    assert results[0] == results[1]


def test_memory_that_is_too_small(rng: np.random.Generator) -> None:
    """A device without room gives the block back: the same result, and a message."""
    told: list[str] = []
    settings = DeviceSettings(crossover_transactions=1, memory_bytes_max=1 << 26)
    try:
        gpu = open_backend("gpu", device=settings, tell=told.append)
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    cpu = open_backend("cpu")
    keys = keys_of(2 * ACCOUNTS)
    blocks = RandomBlocks(rng, states_of((cpu, gpu), keys[:ACCOUNTS]), keys)
    for size in (1_000, 100_000, 100_000):
        blocks.step(size)
    assert len(told) == 1
    assert gpu.degraded == told[0]
    gpu.close()
    cpu.close()


def test_the_crossover_is_found(arms: tuple[Backend, Backend]) -> None:
    """Measuring it runs whole blocks of every size on both."""
    found = crossover(*arms)
    assert found is None or found > 0
