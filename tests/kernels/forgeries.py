"""Signatures to be judged: valid ones, corrupted ones, and those that libraries disagree about.

A case is (public key, signature, message), bytes. Points and scalars are the oracle's.
"""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

import spec.oracle
from kernels import signatures
from kernels.insecure_signer import insecure_public_keys, insecure_sign
from kernels.layout import U8
from kernels.scalar25519 import SMALL_ORDER_YS

oracle: Any = spec.oracle
Case = tuple[bytes, bytes, bytes]

S_EDGES = (
    0, 1, oracle.ED_L - 1, oracle.ED_L, oracle.ED_L + 1, 2**252, 2**253, 2**255 - 1, 2**256 - 1,
    2**255 + 2**251, 2**255 + 2**254,
)  # fmt: skip
"""Bounds, and values whose highest window of 8 bits is beyond the table of the base point."""


def torsion_points() -> list[Any]:
    """Return the eight points whose order divides 8."""
    points = set()
    for y in SMALL_ORDER_YS:
        if y < oracle.ED_P:
            for sign in (0, 1):
                x = oracle.ed_x(y, sign)
                points.add((x, y, 1, x * y % oracle.ED_P))
    assert len(points) == 8
    return sorted(points)


def challenge(r: bytes, public_key: bytes, message: bytes) -> int:
    """Return h of a signature."""
    digest = hashlib.sha512(r + public_key + message).digest()
    return int.from_bytes(digest, "little") % int(oracle.ED_L)


def mixed_torsion(rng: random.Random, count: int) -> Iterator[Case]:
    """Yield cases whose A and R have each pair of torsion parts: S fits but for the torsion."""
    points = torsion_points()
    for _ in range(count):
        secret, nonce = (rng.randrange(oracle.ED_L) for _ in range(2))
        key = oracle.ed_multiply(secret, oracle.ED_BASE)
        point = oracle.ed_multiply(nonce, oracle.ED_BASE)
        keys = [oracle.ed_encode(oracle.ed_add(key, other)) for other in points]
        rs = [oracle.ed_encode(oracle.ed_add(point, other)) for other in points]
        for a in keys:
            for r in rs:
                message = rng.randbytes(32)
                s = (nonce + challenge(r, a, message) * secret) % oracle.ED_L
                yield a, r + oracle.uint(s, 32), message


def odd_encodings(rng: random.Random) -> Iterator[Case]:
    """Yield small-order and non-canonical encodings as A and as R, with every S of the edges."""
    honest = oracle.ed_encode(oracle.ED_BASE)
    ys = sorted({*SMALL_ORDER_YS, *range(20), *range(oracle.ED_P, 2**255)})
    for y in ys:
        for sign in (0, 1):
            odd = oracle.uint(y | sign << 255, 32)
            for s in S_EDGES:
                yield odd, honest + oracle.uint(s, 32), rng.randbytes(32)
                yield honest, odd + oracle.uint(s, 32), rng.randbytes(32)
            # R = [S]B - [h]A for a small-order A where h is a multiple of 8: only its order speaks
            # against it. And R of small order that fits: S = h times the secret, which is 1.
            message = rng.randbytes(32)
            while challenge(honest, odd, message) % 8:
                message = rng.randbytes(32)
            yield odd, honest + oracle.uint(1, 32), message
            yield honest, odd + oracle.uint(challenge(odd, honest, message), 32), message


def as_rows(cases: list[Case]) -> tuple[U8, U8, U8]:
    """Return cases with messages of one length as columns."""
    columns = [np.frombuffer(b"".join(part), np.uint8) for part in zip(*cases, strict=True)]
    keys, signed, messages = (column.reshape(len(cases), -1) for column in columns)
    return keys, signed, messages


def signed_rows(rng: np.random.Generator, count: int, length: int) -> tuple[U8, U8, U8]:
    """Return valid signatures of `count` different keys over random messages."""
    seeds = rng.integers(0, 256, (count, 32), np.uint8)
    messages = rng.integers(0, 256, (count, length), np.uint8)
    keys = insecure_public_keys(seeds)
    return keys, insecure_sign(seeds, keys, messages), messages


def corrupted(
    rng: np.random.Generator, rows: tuple[U8, U8, U8], part: int
) -> tuple[tuple[U8, U8, U8], U8]:
    """Return rows of which one in `part` has one bit changed, and where, (n,) bool."""
    made = tuple(array.copy() for array in rows)
    bad = rng.integers(0, part, len(rows[0])) == 0
    for row in np.flatnonzero(bad):
        column = made[rng.integers(0, 3 if made[2].shape[1] else 2)]
        column[row, rng.integers(0, column.shape[1])] ^= np.uint8(1 << rng.integers(0, 8))
    return (made[0], made[1], made[2]), bad


def libsodium(rows: tuple[U8, U8, U8]) -> list[bool]:
    """Return libsodium's verdicts, one call per row."""
    return [signatures.verify_one(*row) for row in zip(*rows, strict=True)]
