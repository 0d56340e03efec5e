"""Blocks on the software device beside the CPU's: bit for bit, however late work is done.

`test_software.py` runs this file in a process of its own for each schedule. Sizes are small: a
kernel's threads run one after the other here. `test_device.py` has the same claims at full size.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from bench.arms import block_context
from bench.blocks import build
from bench.workloads import SYNTHETIC, synthetic
from engine.state import State
from engine.transition import all_verified, execute_payload
from kernels.backend import Backend, DeviceSettings, open_backend
from kernels.gpu.staging import STAGING_BYTES
from kernels.layout import ACCOUNT_WORDS
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, accounts, engine_result, key, oracle_result
from tests.engine.ledgers import open_state as open_ledger
from tests.kernels.arms import random_columns
from tests.kernels.gpu.blocks import BALANCE, RandomBlocks, keys_of

ACCOUNTS = 5_000
BLOCKS = 24
MANY_ACCOUNTS = 5 * STAGING_BYTES // (8 * ACCOUNT_WORDS)
EVERYTHING = DeviceSettings(crossover_transactions=1, crossover_signatures=1, check_blocks=0)


@pytest.fixture(scope="module")
def arms() -> Iterator[tuple[Backend, Backend]]:
    """Open the CPU's backend and one whose every batch goes to the device."""
    gpu, cpu = open_backend("gpu", device=EVERYTHING), open_backend("cpu")
    yield cpu, gpu
    assert gpu.degraded == ""
    gpu.close()
    cpu.close()


def test_random_blocks(arms: tuple[Backend, Backend], rng: np.random.Generator) -> None:
    """Random blocks of 1 to 5,000 transactions come to the same on both, forwards and back."""
    keys = keys_of(2 * ACCOUNTS)
    balances = np.full(ACCOUNTS, BALANCE, np.uint64)
    one, other = (State(keys[:ACCOUNTS], balances, backend=backend) for backend in arms)
    blocks = RandomBlocks(rng, (one, other), keys)
    for _ in range(BLOCKS):
        blocks.step(int(rng.choice([1, 7, 300, 5_000])))
    assert blocks.height > blocks.refused


def test_many_accounts(arms: tuple[Backend, Backend]) -> None:
    """Accounts that fill the buffers on the way to the device many times arrive whole."""
    keys = keys_of(MANY_ACCOUNTS)
    balances = np.arange(MANY_ACCOUNTS, dtype=np.uint64)
    one, other = (State(keys, balances, backend=backend) for backend in arms)
    assert one.state_hash() == other.state_hash()


@pytest.mark.parametrize("name", SYNTHETIC)
def test_workloads(arms: tuple[Backend, Backend], name: str) -> None:
    """Every made-up workload of the benchmark, also one hot sender, comes to the same on both."""
    payments = synthetic(name, accounts=10_000, per_block=3_000, blocks=2, seed=5)
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


@pytest.mark.parametrize("name", ["uniform", "hot-sender"])
def test_signed_blocks(arms: tuple[Backend, Backend], name: str) -> None:
    """Blocks whose signatures are verified on the way come to the same on both."""
    workload = build(
        synthetic(name, accounts=500, per_block=300, blocks=2, seed=6), seed=6, is_signed=True
    )
    hashes = []
    for backend in arms:
        state = State(workload.keys, workload.balances, backend=backend)
        for height, payload in enumerate(workload.payloads, start=1):
            outcome = execute_payload(state, payload, block_context(workload, height))
        hashes.append((outcome.state_hash, outcome.receipts_hash))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("before", [0, 600, 5_000])
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


@pytest.mark.parametrize("count", [1, 255, 256, 257, 3_000])
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
