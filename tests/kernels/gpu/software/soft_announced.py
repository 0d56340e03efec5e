"""Blocks that other threads announce and hash beside, on the software device: the CPU's results.

`test_software.py` runs this file in a process of its own for each schedule.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from bench.arms import BlockResult, block_context, block_result
from bench.blocks import Workload, build
from bench.device import pinned_payload
from bench.workloads import synthetic
from engine.codec import PayloadLimits
from engine.state import State
from engine.transition import all_verified, announce_payload, execute_payload
from kernels.backend import DeviceSettings, open_backend
from kernels.gpu.backend import GpuBackend

BLOCKS = 12
AHEAD_MAX = 3
"""Blocks ahead of the present one that are announced at most."""
LIMITS = PayloadLimits(bytes=1 << 40, transactions=1 << 30, objects=1 << 30)
EVERYTHING = DeviceSettings(crossover_transactions=1, crossover_signatures=1, check_blocks=0)


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Return blocks that follow one another, with long lanes."""
    payments = synthetic("zipf", accounts=3_000, per_block=900, blocks=BLOCKS, seed=8)
    return build(payments, seed=8, is_signed=False)


@pytest.fixture(scope="module")
def expected(workload: Workload) -> list[BlockResult]:
    """Return what the CPU makes of them."""
    cpu = open_backend("cpu")
    state = State(workload.keys, workload.balances, backend=cpu)
    found = [execute(state, workload, height) for height in range(1, BLOCKS + 1)]
    cpu.close()
    return [block_result(outcome) for outcome in found]


@pytest.fixture
def gpu() -> Iterator[GpuBackend]:
    """Open the device, which must not be lost."""
    backend = open_backend("gpu", device=EVERYTHING)
    assert isinstance(backend, GpuBackend), "the name says which backend it is"
    yield backend
    assert backend.degraded == ""
    backend.close()


def execute(state: State, workload: Workload, height: int, payload: Any = None) -> Any:
    """Execute a block; its payload may lie elsewhere than in the workload."""
    given = workload.payloads[height - 1] if payload is None else payload
    return execute_payload(state, given, block_context(workload, height), is_verified=all_verified)


@pytest.mark.parametrize("run", range(4))
def test_announced_blocks(
    gpu: GpuBackend,
    workload: Workload,
    expected: list[BlockResult],
    rng: np.random.Generator,
    run: int,
) -> None:
    """Whatever is announced, in whichever order, from whichever memory, each block is its own.

    Payloads go when their block is done, so their pinned memory is lent again for what comes next.
    """
    state = State(workload.keys, workload.balances, backend=gpu)
    opening = state.state_hash()
    held: list[Any] = [
        pinned_payload(gpu, payload) if rng.integers(3) else payload
        for payload in workload.payloads
    ]
    messages = rng.integers(0, 256, (400, 192), np.uint8)
    hashes = gpu.hash_messages(messages).tobytes()
    changes = []
    with ThreadPoolExecutor(2) as threads:
        for height in range(1, BLOCKS + 1):
            beside: list[Future[Any]] = []
            for ahead in rng.integers(0, AHEAD_MAX + 1, int(rng.integers(0, 4))).tolist():
                if height - 1 + ahead < BLOCKS:
                    announced = held[height - 1 + ahead]
                    beside.append(threads.submit(announce_payload, gpu, announced, LIMITS))
                    del announced
            hashed = threads.submit(gpu.hash_messages, messages)
            outcome = execute(state, workload, height, held[height - 1])
            assert block_result(outcome) == expected[height - 1], f"block {height} of run {run}"
            if rng.integers(3) == 0:
                state.undo([outcome.changes])
                again = execute(state, workload, height, held[height - 1])
                assert block_result(again) == expected[height - 1]
            assert hashed.result().tobytes() == hashes
            for future in beside:
                future.result()
            held[height - 1] = None
            changes.append(outcome.changes)
            del outcome, beside, hashed
    state.undo(changes[::-1])
    assert state.state_hash() == opening
