"""Claims about lanes, SHA-512 and scalars: against Python's integers and hashlib."""

import hashlib
from typing import Any

import numpy as np
import pytest

import kernels.lanes64
import kernels.scalar25519
import spec.oracle
from kernels import sha512
from kernels.jit import njit
from kernels.lanes64 import VECTOR_BYTES, WIDTH
from kernels.memory import zeros
from kernels.scalar25519 import L
from tests.kernels.elements import address, groups, needs_lanes, values_of, words_of

pytestmark = needs_lanes

oracle: Any = spec.oracle
lanes64: Any = kernels.lanes64
scalar25519: Any = kernels.scalar25519
M64 = 2**64 - 1
EDGES = [0, 1, 2**31, 2**32, 2**63 - 1, 2**63, M64 - 1, M64]


@njit
def run_lanes(a: Any, b: Any, count: Any, out: Any) -> None:
    """Write what each function answers of a and b, one vector after the other."""
    x, y, size = lanes64.lanes_load(a), lanes64.lanes_load(b), np.uint64(VECTOR_BYTES)
    lanes64.lanes_store(out, lanes64.lanes_add(x, y))
    lanes64.lanes_store(out + size, lanes64.lanes_sub(x, y))
    lanes64.lanes_store(out + np.uint64(2) * size, lanes64.lanes_multiply(x, y))
    lanes64.lanes_store(out + np.uint64(3) * size, lanes64.lanes_is_below(x, y))
    lanes64.lanes_store(out + np.uint64(4) * size, lanes64.lanes_is_zero(x))
    lanes64.lanes_store(out + np.uint64(5) * size, lanes64.lanes_shift_left(x, count))
    lanes64.lanes_store(out + np.uint64(6) * size, lanes64.lanes_shift_right(x, count))
    lanes64.lanes_store(out + np.uint64(7) * size, lanes64.lanes_of(count))


@njit
def run_rows(rows: Any, offset: Any, vectors: Any, targets: Any) -> None:
    """Load rows as vectors and store these as rows again."""
    lanes64.load_rows(rows, offset, vectors)
    lanes64.store_rows(vectors, targets, offset)


@njit
def run_hash(rows: Any, length: Any, constants: Any, work: Any, state: Any) -> None:
    """Hash padded rows, one per lane."""
    sha512.hash_rows(rows, length, constants, work, state)


@njit
def run_scalars(wide: Any, scalar: Any, out: Any) -> None:
    """Write wide modulo L, scalar * scalar + scalar, both offsets, and the three checks."""
    size = np.uint64(VECTOR_BYTES)
    scalar25519.reduce_wide(wide, out)
    scalar25519.multiply_add(scalar, scalar, scalar, out + np.uint64(4) * size)
    scalar25519.offset_by_4(scalar, out + np.uint64(8) * size)
    scalar25519.offset_by_8(scalar, out + np.uint64(12) * size)
    lanes64.lanes_store(out + np.uint64(16) * size, scalar25519.is_scalar(scalar))
    lanes64.lanes_store(out + np.uint64(17) * size, scalar25519.is_field_element(scalar))
    lanes64.lanes_store(out + np.uint64(18) * size, scalar25519.is_small_order(scalar))


def test_lanes_compute_modulo_2_64() -> None:
    """Every edge of 64 bits against every other, signed traps included."""
    every = [(i, j) for i in EDGES for j in EDGES]
    for start in range(0, len(every), WIDTH):
        a, b = ([pair[side] for pair in every[start : start + WIDTH]] for side in (0, 1))
        x, y, out = words_of(a, 1), words_of(b, 1), words_of([0] * WIDTH, 8)
        run_lanes(address(x), address(y), np.uint64(63), address(out))
        lanes = list(zip(a, b, strict=True))
        assert out[0].tolist() == [(i + j) & M64 for i, j in lanes]
        assert out[1].tolist() == [(i - j) & M64 for i, j in lanes]
        assert out[2].tolist() == [i * j & M64 for i, j in lanes]
        assert out[3].tolist() == [M64 * (i < j) for i, j in lanes]
        assert out[4].tolist() == [M64 * (i == 0) for i in a]
        assert out[5].tolist() == [(i << 63) & M64 for i in a]
        assert out[6].tolist() == [i >> 63 for i in a]
        assert out[7].tolist() == [63] * WIDTH


def test_rows_are_transposed_both_ways(rng: np.random.Generator) -> None:
    """Word k of row i becomes lane i of vector k, at any alignment, and goes back the same way."""
    source, target = (rng.integers(0, 256, (WIDTH, 101), np.uint8) for _ in range(2))
    rows, targets = (
        words_of([item.ctypes.data + 101 * i for i in range(WIDTH)], 1) for item in (source, target)
    )
    vectors = words_of([0] * WIDTH, 8)
    run_rows(address(rows), np.uint64(37), address(vectors), address(targets))
    for lane in range(WIDTH):
        words = source[lane, 37:101].copy().view("<u8")
        assert vectors[:, lane].tolist() == words.tolist()
    assert np.array_equal(target[:, 37:], source[:, 37:])


@pytest.mark.parametrize("lengths", [range(0, 140), [223, 224, 239, 240, 241, 1000, 4096]])
def test_sha512_is_hashlibs(lengths: Any, rng: np.random.Generator) -> None:
    """Digests of messages around every boundary of a block equal hashlib's."""
    constants = words_of([0] * WIDTH, 80 // WIDTH)
    constants.reshape(-1)[:] = sha512.ROUND_CONSTANTS
    work, state = zeros(sha512.WORK_BYTES, np.uint8), words_of([0] * WIDTH, 8)
    for length in lengths:
        size = sha512.padded_bytes(length)
        messages = [rng.bytes(length) for _ in range(WIDTH)]
        padded = b"".join(message + sha512.padding(length) for message in messages)
        data = np.frombuffer(padded, np.uint8)
        rows = words_of([data.ctypes.data + size * i for i in range(WIDTH)], 1)
        places = [address(item) for item in (rows, constants, work, state)]
        run_hash(places[0], np.uint64(size), *places[1:])
        expected = [hashlib.sha512(message).digest() for message in messages]
        assert [value.to_bytes(64, "little") for value in values_of(state)] == expected


def scalars(rng: np.random.Generator) -> list[int]:
    """Return numbers of 256 bits around every bound of a scalar or an encoding, and others."""
    bounds = [0, L, 2 * L, 8 * L, 15 * L, 2**252, 2**253, 2**255, oracle.ED_P, 2**256]
    bounds += list(scalar25519.SMALL_ORDER_YS)
    near = [bound + step for bound in bounds for step in (-2, -1, 0, 1, 2)]
    near += [2**255 + y for y in scalar25519.SMALL_ORDER_YS]
    made = [number for number in near if 0 <= number < 2**256]
    made += [int.from_bytes(rng.bytes(32), "little") for _ in range(40)]
    return made


def test_scalars_are_pythons(rng: np.random.Generator) -> None:
    """Products, offsets and checks at every bound are exact; answers are below L."""
    made = scalars(rng)
    offsets = [scalar25519.window_offset(4, 64), scalar25519.window_offset(8, 32)]
    for lanes in groups(made):
        scalar, wide = words_of(lanes, 4), words_of([lane * lane for lane in lanes], 8)
        out = words_of([0] * WIDTH, 19)
        run_scalars(address(wide), address(scalar), address(out))
        assert values_of(out[0:4]) == [lane * lane % L for lane in lanes]
        assert values_of(out[4:8]) == [(lane * lane + lane) % L for lane in lanes]
        for part, offset in zip((out[8:12], out[12:16]), offsets, strict=True):
            assert values_of(part) == [(lane + offset) % 2**256 for lane in lanes]
        low = [lane % 2**255 for lane in lanes]
        assert out[16].tolist() == [M64 * (lane < L) for lane in lanes]
        assert out[17].tolist() == [M64 * (lane < oracle.ED_P) for lane in low]
        small = [oracle.is_small_order(oracle.uint(lane, 32)) for lane in lanes]
        assert out[18].tolist() == [M64 * item for item in small]


def test_reduction_at_the_bounds_of_512_bits(rng: np.random.Generator) -> None:
    """Multiples of L, their neighbours, and the largest number reduce to the one below L."""
    made = [2**512 - 1, 2**512 - 1 - (2**512 - 1) % L, 2**511, 2**504 - 1, 2**253 - 1]
    for factor in (1, 2, 2**100, 2**258, 2**259 - 1):
        made += [factor * L + step for step in (-1, 0, 1)]
        made += [factor * L + 2**252 + step for step in (-1, 0, 1)]
    made += [sum(2 ** (21 * i + 20) for i in range(24)), sum(2 ** (21 * i) for i in range(24))]
    made += [int.from_bytes(rng.bytes(64), "little") for _ in range(200)]
    made = [number for number in made if number < 2**512]
    scalar = words_of([0] * WIDTH, 4)
    for lanes in groups(made):
        wide, out = words_of(lanes, 8), words_of([0] * WIDTH, 19)
        run_scalars(address(wide), address(scalar), address(out))
        assert values_of(out[0:4]) == [lane % L for lane in lanes]


def test_windows_count_the_scalar() -> None:
    """Digits of both kinds of windows are signed, small, and add up to the scalar."""
    for bits, count in ((4, 64), (8, 32)):
        half = 2 ** (bits - 1)
        for scalar in (0, 1, L - 1, 2**252, 2**253 - 1, int("8" * 62, 16), int("7" * 62, 16)):
            held = scalar + scalar25519.window_offset(bits, count)
            digits = [(held >> bits * i) % 2**bits - half for i in range(count - 1)]
            digits.append(held >> bits * (count - 1))
            assert sum(digit << bits * i for i, digit in enumerate(digits)) == scalar
            assert all(-half <= digit < half for digit in digits[:-1])
            assert 0 <= digits[-1] <= half


def test_small_order_encodings_are_the_oracles() -> None:
    """The seven y are those of the eight torsion points, canonical or not."""
    for y in scalar25519.SMALL_ORDER_YS:
        assert oracle.is_small_order(oracle.uint(y, 32))
    doubled = {oracle.ed_x(y % oracle.ED_P, 0) for y in scalar25519.SMALL_ORDER_YS}
    assert len(scalar25519.SMALL_ORDER_YS) == 7
    assert None not in doubled
