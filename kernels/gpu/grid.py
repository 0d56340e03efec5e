"""How kernels of a device are compiled and spread over threads: one item per thread, in blocks.

A kernel is an ordinary function under `@kernel`; what it calls is a body of the CPU (`@njit`, which
compiles for a device as well) or, where it needs what only a device has (shared memory, atomics,
barriers), a `@device_function` of this package. Kernels never raise: on a device that is silent.
The simulator of Numba (`NUMBA_ENABLE_CUDASIM=1` with `NUMBA_DISABLE_JIT=1`) runs the same sources;
each thread is one of the system's there, so blocks are small.
"""

import os
from typing import Any, Final

from numba import cuda

from kernels.gpu.toolkit import name_toolkit
from kernels.jit import CONFIG

SIMULATED: Final = bool(CONFIG.ENABLE_CUDASIM)
"""Whether kernels run in the simulator; decided before Numba is imported."""
THREADS: Final = 8 if SIMULATED else 256
"""Threads of a block; no result depends on it. A power of two."""
ITEMS: Final = 4 if SIMULATED else 8
"""Items that each thread of a prefix sum takes."""
TILE: Final = THREADS * ITEMS
"""Items that a block of a prefix sum takes."""

name_toolkit(os.environ)

# A grid of one block is no mistake here: upper levels of trees are that small.
CONFIG.CUDA_LOW_OCCUPANCY_WARNINGS = 0


def kernel(function: Any) -> Any:
    """Compile a kernel; machine code is kept as that of the CPU is (see `kernels.jit`)."""
    return _simulate(function, False) if SIMULATED else cuda.jit(cache=True)(function)


def device_function(function: Any) -> Any:
    """Compile a function that kernels call and that uses what only a device has."""
    return _simulate(function, True) if SIMULATED else cuda.jit(device=True)(function)


def _simulate(function: Any, is_called: bool) -> Any:
    from kernels.gpu.simulated import simulate  # only the simulator has what that needs

    return simulate(function, is_called=is_called)


def blocks_for(count: int, size: int = THREADS) -> int:
    """Return how many blocks of `size` hold `count` items, at least one."""
    return max(1, -(-count // size))
