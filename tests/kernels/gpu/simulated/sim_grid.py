"""Threads of the simulator see one `cuda` and one shared array each, however they take turns."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numba import cuda, types

from kernels.gpu import prefix
from kernels.gpu.device import Device
from kernels.gpu.grid import THREADS, kernel

BLOCKS = 60
LAUNCHES = 300
SWITCH_S = 1e-6


@pytest.fixture(autouse=True)
def short_turns() -> Iterator[None]:
    """Let threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    yield
    sys.setswitchinterval(before)


@kernel
def share(sums: Any) -> None:
    """Let every thread add its number to what the first one of its block sums up."""
    cuda.syncthreads()  # so that all ask at the same time
    shared = cuda.shared.array(THREADS, types.uint32)
    shared[cuda.threadIdx.x] = 0
    cuda.syncthreads()
    cuda.atomic.add(shared, 0, cuda.threadIdx.x + 1)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x] = shared[0]


@kernel
def ask_elsewhere(sums: Any) -> None:
    """Call what stands in another module and uses `cuda` there."""
    shared = cuda.shared.array(THREADS, types.uint64)
    prefix.add_halves(shared, np.uint64(1), sums, 0, 1)


def test_a_block_has_one_shared_array() -> None:
    """What one thread wrote, all see."""
    device = Device(1 << 20)
    sums = device.array(1, np.uint32)
    for _ in range(LAUNCHES):
        device.launch_blocks(share, 1, sums)
        assert device.fetch(sums).tolist() == [THREADS * (THREADS + 1) // 2]


def test_cuda_stays_while_others_return() -> None:
    """A function of another module finds `cuda` there until the last thread is done."""
    device = Device(1 << 20)
    sums = device.array(2, np.uint64)
    device.launch_blocks(ask_elsewhere, BLOCKS, sums)
    assert device.fetch(sums).tolist() == [THREADS * BLOCKS, 0]
