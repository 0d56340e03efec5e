"""Unsigned 64-bit arithmetic beyond what Numba offers: high products, bit counts, wide sums.

Numba types a bare integer as int64, and uint64 with int64 as float64: constants here and in the
modules that use this one are `np.uint64`, and nothing else may meet a uint64. The instructions
come from LLVM; each has a portable body, which says what it computes, is what a run without the
compiler uses (`NUMBA_DISABLE_JIT`), and is tested against it.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.jit import CONFIG, njit

leaf: Any = njit(forceinline=True, _nrt=False)
"""Compile a function that kernels call per item and that allocates nothing.

It is inlined, so that arrays are not copied onto the stack, and does not count references to them:
each such count is an atomic instruction, and they took longer than the walk of a lane.
"""

kernel: Any = njit(_nrt=False)
"""Compile without counting references: of a tuple of arrays each use would count all of them."""

ZERO = np.uint64(0)
ONE = np.uint64(1)
U64_MAX = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


@njit
def multiply_high_portable(a: Any, b: Any) -> Any:
    """Return the upper 64 bits of the 128-bit product of two uint64."""
    a_low, a_high = a & _LOW, a >> _HALF
    b_low, b_high = b & _LOW, b >> _HALF
    low_high = a_low * b_high
    middle = a_high * b_low + ((a_low * b_low) >> _HALF)
    carry = ((middle & _LOW) + low_high) >> _HALF
    return a_high * b_high + (middle >> _HALF) + carry


@njit
def bit_count_portable(word: Any) -> Any:
    """Return how many bits of a uint64 are set, as int64."""
    count = 0
    while word != ZERO:
        word &= word - ONE
        count += 1
    return count


@njit
def trailing_zeros_portable(word: Any) -> Any:
    """Return the index of the lowest set bit of a uint64 as int64, or 64 when it is zero."""
    if word == ZERO:
        return 64
    index = 0
    while (word & ONE) == ZERO:
        word >>= ONE
        index += 1
    return index


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_high(typingctx: Any, a: Any, b: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        left, right = (builder.zext(value, wide) for value in arguments)
        upper = builder.lshr(builder.mul(left, right), ir.Constant(wide, 64))
        return builder.trunc(upper, ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), emit


@intrinsic  # type: ignore[untyped-decorator]
def _bit_count(typingctx: Any, word: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), emit


@intrinsic  # type: ignore[untyped-decorator]
def _trailing_zeros(typingctx: Any, word: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), emit


_INTERPRETED = bool(CONFIG.DISABLE_JIT)

multiply_high: Any = multiply_high_portable if _INTERPRETED else _multiply_high
"""Upper 64 bits of the 128-bit product of two uint64."""
bit_count: Any = bit_count_portable if _INTERPRETED else _bit_count
"""Number of set bits of a uint64, as int64."""
trailing_zeros: Any = trailing_zeros_portable if _INTERPRETED else _trailing_zeros
"""Index of the lowest set bit of a uint64, as int64; 64 for zero."""


@leaf
def add_wide(high: Any, low: Any, value: Any) -> Any:
    """Return (high, low), a 128-bit sum in two uint64, with the uint64 `value` added."""
    total = low + value
    return high + np.uint64(total < low), total


def wide_to_int(high: Any, low: Any) -> int:
    """Return the number that a 128-bit sum in two uint64 stands for."""
    return (int(high) << 64) | int(low)


def sum_exact(values: Any) -> int:
    """Return the sum of (n < 2^32,) uint64 without wrapping."""
    low = int((values & np.uint64(0xFFFF_FFFF)).sum(dtype=np.uint64))
    return (int((values >> np.uint64(32)).sum(dtype=np.uint64)) << 32) + low
