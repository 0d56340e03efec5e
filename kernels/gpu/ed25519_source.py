"""The text of the device's Ed25519: its parts in order, and constants computed here once.

The parts do not include each other: one text is what the device's compiler gets, what the host's
compiler gets in tests, and what names a cached build. Tables come from the CPU's modules, so that
there is one definition of each constant.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from kernels import sha512
from kernels.ed25519 import Affine, add_points, base_point
from kernels.ed25519_lanes import BASE_ENTRIES, KEY_ENTRIES, WINDOWS
from kernels.field51 import SQRT_MINUS_ONE, D, P
from kernels.scalar25519 import SMALL_ORDER_YS, L, window_offset

WORDS: Final = 8
"""32-bit words of a number."""
KEY_TABLE_BYTES: Final = 4 * WORDS * (4 * KEY_ENTRIES + 2)
"""Of the table that each thread makes of its public key, the windows of h and S behind it."""
BLOCK_THREADS: Final = 128
BLOCKS_PER_SM: Final = 4
"""Blocks that a multiprocessor holds at once: it has 65,536 registers, 128 for each thread."""

_FOLDER: Final = Path(__file__).resolve().parent
_CONSTANT: Final = """
#ifdef __CUDACC__
#define CONSTANT static __constant__ const
#define MEMORY static __device__ const __align__(16)
#else
#define CONSTANT static const
#define MEMORY alignas(16) static const
#endif
"""


def words_of(number: int) -> list[int]:
    """Return the eight 32-bit words of a number, lowest first."""
    assert 0 <= number < 2**256, "only numbers of 256 bits have eight words"
    return [number >> 32 * k & 0xFFFF_FFFF for k in range(WORDS)]


def order_fold() -> list[int]:
    """Return six limbs of 21 bits, in [-2^20, 2^20), that count 2^252 modulo L."""
    number, limbs = 2**252 - L, []
    while number:
        limbs.append((number + 2**20) % 2**21 - 2**20)
        number = (number - limbs[-1]) >> 21
    assert len(limbs) == 6, "the kernel folds six limbs"
    return limbs


def _list(items: Iterable[int], suffix: str = "u") -> str:
    return "{" + ", ".join(f"{item:#x}{suffix}" for item in items) + "}"


def _number(name: str, number: int) -> str:
    return f"CONSTANT u32 {name}[{WORDS}] = {_list(words_of(number))};"


def affine_words(point: Affine) -> list[int]:
    """Return the 24 words of an entry of B's table: y + x, y - x, 2 d x y."""
    x, y = point
    return [word for n in ((y + x) % P, (y - x) % P, 2 * D * x * y % P) for word in words_of(n)]


def _base_table() -> str:
    rows = []
    point, base = (0, 1), base_point()
    for _ in range(BASE_ENTRIES):
        rows.append(_list(affine_words(point)))
        point = add_points(point, base)
    return f"MEMORY u32 BASE_TABLE[{BASE_ENTRIES}][{3 * WORDS}] = {{\n" + ",\n".join(rows) + "};"


def constants() -> str:
    """Return the definitions of what the specification and the CPU's modules fix."""
    ys = ",\n".join(_list(words_of(y)) for y in SMALL_ORDER_YS)
    count = len(SMALL_ORDER_YS)
    limbs = order_fold()
    return "\n".join(
        (
            _CONSTANT,
            f"enum {{ BASE_ENTRIES = {BASE_ENTRIES}, SMALL_ORDERS = {count} }};",
            _number("PRIME", P),
            _number("TWICE_P", 2 * P),
            _number("CURVE_D", D),
            _number("CURVE_2D", 2 * D % P),
            _number("SQRT_MINUS_ONE", SQRT_MINUS_ONE),
            _number("ORDER", L),
            _number("OFFSET_4", window_offset(4, WINDOWS)),
            _number("OFFSET_8", window_offset(8, WINDOWS // 2)),
            f"CONSTANT u32 SMALL_ORDER_YS[{count}][{WORDS}] = {{\n{ys}}};",
            f"CONSTANT int FOLD[{len(limbs)}] = {{{', '.join(map(str, limbs))}}};",
            f"CONSTANT u64 ROUND_CONSTANTS[80] = {_list(sha512.ROUND_CONSTANTS, 'ull')};",
            f"CONSTANT u64 INITIAL_WORDS[8] = {_list(sha512.INITIAL_WORDS, 'ull')};",
            _base_table(),
        )
    )


@cache
def source() -> str:
    """Return the whole text, for the device's compiler or, without __CUDACC__, for the host's."""
    field, scalar, kernel = (
        _FOLDER.joinpath(name).read_text()
        for name in ("ed25519_field.cuh", "ed25519_scalar.cuh", "ed25519.cu")
    )
    return "\n".join((field, constants(), scalar, kernel))


def options(*defined: str) -> tuple[str, ...]:
    """Return what the device's compiler is told, further names to define included."""
    names = (f"BLOCK_THREADS={BLOCK_THREADS}", f"BLOCKS_PER_SM={BLOCKS_PER_SM}", *defined)
    return ("-std=c++17", *(f"-D{name}" for name in names))
