"""Ed25519 verification in lanes: arrays, tables and scratch around `ed25519_lanes`.

`signatures` decides whether this path may be compiled at all. Spec: spec/signatures.md#verdict
"""

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels import ed25519_lanes, sha512
from kernels.field51 import D, P, limbs_of
from kernels.lanes64 import WIDTH
from kernels.layout import U8, U64
from kernels.memory import zeros

_DOUBLINGS = np.uint64(3)
HEAD_BYTES: Final = 64
"""R and A, which are hashed before the message."""

Affine = tuple[int, int]


def add_points(a: Affine, b: Affine) -> Affine:
    """Return the sum of two points of the curve, in integers: for tables, not for many."""
    product = D * a[0] * b[0] * a[1] * b[1] % P
    inverse = pow((1 - product) * (1 + product), -1, P)
    x = (a[0] * b[1] + a[1] * b[0]) * inverse * (1 - product) % P
    y = (a[1] * b[1] + a[0] * b[0]) * inverse * (1 + product) % P
    return x, y


def base_point() -> Affine:
    """Return B: y is 4/5, x is even."""
    y = 4 * pow(5, -1, P) % P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (P - x if x & 1 else x), y


def affine_row(point: Affine) -> list[int]:
    """Return the 16 words of a table's entry: y + x, y - x, 2 d x y, and one that is never read."""
    x, y = point
    numbers = ((y + x) % P, (y - x) % P, 2 * D * x * y % P)
    return [limb for number in numbers for limb in limbs_of(number)] + [0]


@cache
def tables() -> U64:
    """Return the round constants of SHA-512 and the multiples 0 to 128 of B, 64-byte aligned."""
    words = list(sha512.ROUND_CONSTANTS)
    point, base = (0, 1), base_point()
    for _ in range(ed25519_lanes.BASE_ENTRIES):
        words += affine_row(point)
        point = add_points(point, base)
    array = zeros(len(words), np.uint64)
    array[:] = words
    assert array.nbytes == ed25519_lanes.TABLES_BYTES, "the kernel reads just these tables"
    array.flags.writeable = False
    return array


def padded_rows(scratch: NDArray[Any], offset: int, length: int) -> int:
    """Write what follows messages of `length` bytes into WIDTH padded rows; return their stride."""
    stride = sha512.padded_bytes(length)
    rows = scratch[offset : offset + WIDTH * stride].reshape(WIDTH, stride)
    rows[:, length:] = np.frombuffer(sha512.padding(length), np.uint8)
    return stride


def verify_range(
    public_keys: U8, signatures: U8, messages: U8, out: U8, start: int, stop: int
) -> None:
    """Write 1 to `out` for each valid signature of rows [start, stop), 0 for the others.

    public_keys: (n, 32), signatures: (n, 64), messages: (n, m >= 0), all C-contiguous uint8.
    Groups begin at `start`: cut ranges at multiples of WIDTH.
    """
    length = HEAD_BYTES + messages.shape[1]
    scratch = zeros(ed25519_lanes.MESSAGES + WIDTH * sha512.padded_bytes(length), np.uint8)
    stride = padded_rows(scratch, ed25519_lanes.MESSAGES, length)
    fixed = tables()
    arrays = (public_keys, signatures, messages)
    ed25519_lanes.verify_groups(
        np.uint64(fixed.ctypes.data),
        np.uint64(scratch.ctypes.data),
        tuple(np.uint64(array.ctypes.data) for array in arrays),
        np.uint64(messages.shape[1]),
        np.uint64(stride),
        _DOUBLINGS,
        out,
        start,
        stop,
    )
