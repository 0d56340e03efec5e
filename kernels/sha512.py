"""SHA-512 (FIPS 180-4) of messages of one length, one per lane.

Each message stands padded in a row of its own: `pad` writes what follows the message, once for all
messages that will be put into the row, and `hash_rows` takes the blocks of WIDTH rows through the
80 rounds. The round constants come from memory: unrolled they would fill the instruction cache.
"""

import math
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels import lanes64
from kernels.integers import leaf
from kernels.lanes64 import I64, LINE_BYTES, VECTOR_BYTES, splat, void_function

BLOCK_BYTES: Final = 128
DIGEST_WORDS: Final = 8
ROUNDS: Final = 80
STATE_BYTES: Final = DIGEST_WORDS * VECTOR_BYTES
WORK_BYTES: Final = (16 + 8) * VECTOR_BYTES
"""Of scratch that `hash_rows` needs: a block and the working variables."""

_PADDING_BYTES_MIN: Final = 17
_GROUP: Final = 16
"""Rounds between two steps of the message schedule."""


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _cube_root(number: int) -> int:
    """Return the largest integer whose cube is not above `number`."""
    root = 1 << -(-number.bit_length() // 3)
    while root**3 > number:
        root = (2 * root + number // root**2) // 3
    return root


ROUND_CONSTANTS: Final = tuple(_cube_root(prime << 192) % 2**64 for prime in _primes(ROUNDS))
"""64 bits behind the point of the cube roots of the first 80 primes."""
INITIAL_WORDS: Final = tuple(math.isqrt(prime << 128) % 2**64 for prime in _primes(8))
"""64 bits behind the point of the square roots of the first 8 primes."""


def padded_bytes(length: int) -> int:
    """Return the bytes of a padded message of `length` bytes, whole blocks."""
    return -(-(length + _PADDING_BYTES_MIN) // BLOCK_BYTES) * BLOCK_BYTES


def padding(length: int) -> bytes:
    """Return what follows a message of `length` bytes in its row."""
    zeros = padded_bytes(length) - length - _PADDING_BYTES_MIN
    return b"\x80" + bytes(zeros) + (8 * length).to_bytes(16, "big")


def _rotate(builder: Any, value: Any, count: int) -> Any:
    return lanes64.funnel_right(builder, value, value, count)


def _xor(builder: Any, *values: Any) -> Any:
    total = values[0]
    for value in values[1:]:
        total = builder.xor(total, value)
    return total


def _sum(builder: Any, *values: Any) -> Any:
    total = values[0]
    for value in values[1:]:
        total = builder.add(total, value)
    return total


def _emit_round(builder: Any, v: list[Any], word: Any) -> list[Any]:
    """Emit one round; `word` is the schedule's word plus the round's constant."""
    a, b, c, d, e, f, g, h = v
    spread = _xor(builder, *[_rotate(builder, e, count) for count in (14, 18, 41)])
    choice = builder.xor(g, builder.and_(e, builder.xor(f, g)))
    first = _sum(builder, h, word, choice, spread)
    spread = _xor(builder, *[_rotate(builder, a, count) for count in (28, 34, 39)])
    majority = builder.or_(builder.and_(a, b), builder.and_(c, builder.or_(a, b)))
    return [_sum(builder, first, spread, majority), a, b, c, builder.add(d, first), e, f, g]


def _emit_schedule(builder: Any, words: list[Any]) -> None:
    """Replace 16 words of the schedule by the next 16."""
    for i in range(_GROUP):
        early, late = words[(i + 1) % 16], words[(i + 14) % 16]
        low = _xor(
            builder,
            _rotate(builder, early, 1),
            _rotate(builder, early, 8),
            builder.lshr(early, splat(7)),
        )
        high = _xor(
            builder,
            _rotate(builder, late, 19),
            _rotate(builder, late, 61),
            builder.lshr(late, splat(6)),
        )
        words[i] = _sum(builder, words[i], low, words[(i + 9) % 16], high)


@intrinsic  # type: ignore[untyped-decorator]
def _sixteen_rounds(typing_context: Any, block: Any, variables: Any, constants: Any) -> Any:
    """Do 16 rounds: block, 16 vectors, becomes the schedule's next; variables, 8 vectors."""

    def emit(builder: Any, block_: Any, variables_: Any, constants_: Any) -> None:
        words = [lanes64.load_vector(builder, block_, i) for i in range(16)]
        v = [lanes64.load_vector(builder, variables_, i) for i in range(8)]
        for i in range(_GROUP):
            constant = builder.load(lanes64.pointer(builder, constants_, 8 * i, I64), align=8)
            v = _emit_round(builder, v, builder.add(words[i], lanes64.broadcast(builder, constant)))
        _emit_schedule(builder, words)
        for i, word in enumerate(words):
            lanes64.store_vector(builder, word, block_, i)
        for i, variable in enumerate(v):
            lanes64.store_vector(builder, variable, variables_, i)

    return void_function(types.void(types.uint64, types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def _start(typing_context: Any, state: Any) -> Any:
    """Write the initial state, 8 vectors."""

    def emit(builder: Any, state_: Any) -> None:
        for i, word in enumerate(INITIAL_WORDS):
            lanes64.store_vector(builder, splat(word), state_, i)

    return void_function(types.void(types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def _load_block(typing_context: Any, rows: Any, offset: Any, block: Any) -> Any:
    """Write 16 vectors: the big-endian words of 128 bytes at `offset` of WIDTH row addresses."""

    def emit(builder: Any, rows_: Any, offset_: Any, block_: Any) -> None:
        for half in range(2):
            place = builder.add(offset_, ir.Constant(I64, LINE_BYTES * half))
            for k, vector in enumerate(lanes64.load_transposed(builder, rows_, place)):
                word = lanes64.swap_bytes(builder, vector)
                lanes64.store_vector(builder, word, block_, 8 * half + k)

    return void_function(types.void(types.uint64, types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def _copy_state(typing_context: Any, source: Any, target: Any) -> Any:
    """Copy 8 vectors."""

    def emit(builder: Any, source_: Any, target_: Any) -> None:
        for i in range(8):
            lanes64.store_vector(builder, lanes64.load_vector(builder, source_, i), target_, i)

    return void_function(types.void(types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def _add_state(typing_context: Any, state: Any, variables: Any) -> Any:
    """Add 8 vectors to the state."""

    def emit(builder: Any, state_: Any, variables_: Any) -> None:
        for i in range(8):
            old, new = (lanes64.load_vector(builder, item, i) for item in (state_, variables_))
            lanes64.store_vector(builder, builder.add(old, new), state_, i)

    return void_function(types.void(types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def _swap_state(typing_context: Any, state: Any) -> Any:
    """Turn 8 vectors of words into little-endian ones."""

    def emit(builder: Any, state_: Any) -> None:
        for i in range(8):
            word = lanes64.swap_bytes(builder, lanes64.load_vector(builder, state_, i))
            lanes64.store_vector(builder, word, state_, i)

    return void_function(types.void(types.uint64), emit)


@leaf
def hash_rows(rows: Any, length: Any, constants: Any, work: Any, state: Any) -> None:
    """Write 8 vectors to `state`: the digests of WIDTH padded rows as little-endian words.

    rows: where WIDTH row addresses stand; length: padded bytes of each; constants: where
    ROUND_CONSTANTS stand; work: WORK_BYTES of scratch. All uint64.
    """
    variables = work + np.uint64(16 * VECTOR_BYTES)
    _start(state)
    for block in range(np.int64(length) // BLOCK_BYTES):
        _load_block(rows, np.uint64(block * BLOCK_BYTES), work)
        _copy_state(state, variables)
        for group in range(ROUNDS // _GROUP):
            _sixteen_rounds(work, variables, constants + np.uint64(8 * _GROUP * group))
        _add_state(state, variables)
    _swap_state(state)
