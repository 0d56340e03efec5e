"""Sums over a block and prefix sums over an array: what gives new accounts their slots in order.

An exclusive prefix sum takes three steps: each block sums its tile, the sums are summed in turn,
and each tile adds what stands before it. Arrays: values, out (n,) uint32, sums below 2^32.
"""

from typing import Any

import numpy as np
from numba import cuda, types

from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Arena, Device
from kernels.gpu.grid import ITEMS, THREADS, TILE, blocks_for, device_function, kernel
from kernels.integers import ZERO

_NONE = np.uint32(0)
_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


@device_function
def block_sum(shared: Any, value: Any) -> Any:
    """Return the sum of every thread's uint64 to thread 0; others get a part of it.

    shared: (THREADS,) uint64 in shared memory. All threads of the block must call.
    """
    thread = cuda.threadIdx.x
    shared[thread] = value
    cuda.syncthreads()
    width = THREADS // 2
    while width > 0:
        if thread < width:
            shared[thread] += shared[thread + width]
        cuda.syncthreads()
        width //= 2
    total = shared[0]
    cuda.syncthreads()
    return total


@device_function
def block_maximum(shared: Any, value: Any) -> Any:
    """Return the greatest of every thread's uint64; as `block_sum`."""
    thread = cuda.threadIdx.x
    shared[thread] = value
    cuda.syncthreads()
    width = THREADS // 2
    while width > 0:
        if thread < width:
            shared[thread] = max(shared[thread], shared[thread + width])
        cuda.syncthreads()
        width //= 2
    greatest = shared[0]
    cuda.syncthreads()
    return greatest


@device_function
def add_halves(shared: Any, value: Any, sums: Any, low: Any, high: Any) -> None:
    """Add every thread's uint64 to sums[low] and sums[high], of the lower and upper 32 bits.

    Fewer than 2^32 values never wrap either sum; together they are the 128-bit sum.
    """
    total = block_sum(shared, value & _LOW)
    if cuda.threadIdx.x == 0 and total != ZERO:
        cuda.atomic.add(sums, low, total)
    total = block_sum(shared, value >> _HALF)
    if cuda.threadIdx.x == 0 and total != ZERO:
        cuda.atomic.add(sums, high, total)


@kernel
def sum_tiles(values: Any, out: Any, tile_sums: Any) -> None:
    """Write the prefix sums within each tile to `out`, and the tiles' sums to `tile_sums`."""
    shared = cuda.shared.array(THREADS, types.uint32)
    thread = cuda.threadIdx.x
    first = cuda.blockIdx.x * TILE + thread * ITEMS
    stop = min(first + ITEMS, values.shape[0])
    own = _NONE
    for i in range(first, stop):
        own = np.uint32(own + values[i])
    shared[thread] = own
    cuda.syncthreads()
    reach = 1
    while reach < THREADS:
        before = shared[thread - reach] if thread >= reach else _NONE
        cuda.syncthreads()
        shared[thread] = np.uint32(shared[thread] + before)
        cuda.syncthreads()
        reach *= 2
    total = np.uint32(shared[thread] - own)
    for i in range(first, stop):
        out[i] = total
        total = np.uint32(total + values[i])
    if thread == THREADS - 1:
        tile_sums[cuda.blockIdx.x] = shared[thread]


@kernel
def add_tiles(out: Any, tile_starts: Any) -> None:
    """Add to each tile of `out` what stands before it."""
    thread = cuda.threadIdx.x
    first = cuda.blockIdx.x * TILE + thread * ITEMS
    for i in range(first, min(first + ITEMS, out.shape[0])):
        out[i] = np.uint32(out[i] + tile_starts[cuda.blockIdx.x])


@kernel
def fill_u32(array: Any, value: Any) -> None:
    """Set all of (n,) uint32 to a value."""
    i = cuda.grid(1)
    if i < array.shape[0]:
        array[i] = value


def prefix_sums(
    device: Device, arena: Arena, name: str, values: DeviceArray, count: int
) -> tuple[DeviceArray, DeviceArray]:
    """Return the exclusive prefix sums of (count,) uint32 and their total, (1,) uint32.

    Both are of the arena under `name`: the next call with it takes them away.
    """
    tiles = blocks_for(count, TILE)
    out = arena.take(f"{name}.prefix", count, np.uint32)
    sums = arena.take(f"{name}.tiles", tiles, np.uint32)
    device.launch_blocks(sum_tiles, tiles, values, out, sums)
    if tiles == 1:
        return out, sums
    starts, total = prefix_sums(device, arena, f"{name}.tiles", sums, tiles)
    device.launch_blocks(add_tiles, tiles, out, starts)
    return out, total
