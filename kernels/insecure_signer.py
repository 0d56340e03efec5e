"""Make many Ed25519 keys and signatures fast, for benchmarks and test data only.

Never use this for a key that guards something: it reads tables at places that depend on secrets,
so it gives them away to whoever shares the processor, and it wipes nothing. What it makes equals
what libsodium makes of the same seeds, byte for byte. Where kernels have no lanes (`processor`), it
is libsodium that makes it.
"""

from functools import cache
from typing import Any

import nacl.bindings
import numpy as np
from numpy.typing import NDArray

from kernels import insecure_lanes as lanes
from kernels import sha512
from kernels.ed25519 import add_points, affine_row, base_point, padded_rows
from kernels.ed25519_lanes import BASE_ENTRIES
from kernels.groups25519 import CONSTANTS_BYTES
from kernels.host_accounts import read_only
from kernels.lanes64 import WIDTH
from kernels.layout import U8, U64
from kernels.memory import zeros
from kernels.pool import Pool
from kernels.processor import LANES

_GRAIN = 128
"""Rows below which a second thread costs more than it brings."""
_KEYS_ONLY = np.uint64(2**64 - 1)


def insecure_public_keys(seeds: U8, threads: int | None = None) -> U8:
    """Return the public keys of 32-byte seeds, (n, 32) uint8 -> (n, 32) uint8."""
    _check_rows("seeds", seeds, len(seeds), 32)
    out = np.empty((len(seeds), 32), np.uint8)
    if LANES is None:
        for i, seed in enumerate(seeds):
            key, _ = nacl.bindings.crypto_sign_seed_keypair(seed.tobytes())
            out[i] = np.frombuffer(key, np.uint8)
        return out
    nothing = np.empty((len(seeds), 0), np.uint8)
    _run((read_only(seeds), nothing, nothing), _KEYS_ONLY, out, threads)
    return out


def insecure_sign(seeds: U8, public_keys: U8, messages: U8, threads: int | None = None) -> U8:
    """Return the signature of each message by the seed of its row, (n, 64) uint8.

    seeds, public_keys: (n, 32), the keys being those of the seeds; messages: (n, m >= 0); uint8.
    """
    count = len(seeds)
    _check_rows("seeds", seeds, count, 32)
    _check_rows("public_keys", public_keys, count, 32)
    _check_rows("messages", messages, count, messages.shape[-1])
    out = np.empty((count, 64), np.uint8)
    if LANES is None:
        for i in range(count):
            secret = seeds[i].tobytes() + public_keys[i].tobytes()
            signed = nacl.bindings.crypto_sign(messages[i].tobytes(), secret)
            out[i] = np.frombuffer(signed, np.uint8, 64)
        return out
    rows = (read_only(seeds), read_only(public_keys), read_only(messages))
    _run(rows, np.uint64(messages.shape[1]), out, threads)
    return out


def _check_rows(name: str, array: U8, count: int, width: int) -> None:
    if array.shape != (count, width) or array.dtype != np.uint8:
        raise ValueError(f"{name} must be ({count}, {width}) uint8, not {array.shape}")


def _run(sources: tuple[U8, U8, U8], length: np.uint64, out: U8, threads: int | None) -> None:
    """Sign, or make keys, over threads; groups of WIDTH never cross a range."""
    pool = Pool(threads)
    try:
        groups = -(-len(out) // WIDTH)
        ranges = [
            (WIDTH * start, min(WIDTH * stop, len(out)))
            for start, stop in pool.ranges(groups, grain=_GRAIN // WIDTH)
        ]
        pool.run(_run_range, ranges, sources, length, out)
    finally:
        pool.close()


def _run_range(
    sources: tuple[U8, U8, U8], length: np.uint64, out: U8, start: int, stop: int
) -> None:
    message_bytes = sources[2].shape[1]
    lengths = (lanes.SEED_BYTES + message_bytes, lanes.HEAD_BYTES + message_bytes)
    strides = [sha512.padded_bytes(item) for item in lengths]
    scratch = zeros(lanes.MESSAGES + WIDTH * sum(strides), np.uint8)
    padded_rows(scratch, lanes.SEED_ROWS, lanes.SEED_BYTES)
    padded_rows(scratch, lanes.MESSAGES, lengths[0])
    padded_rows(scratch, lanes.MESSAGES + WIDTH * strides[0], lengths[1])
    fixed = _tables()
    lanes.run_groups(
        np.uint64(fixed.ctypes.data),
        np.uint64(scratch.ctypes.data),
        tuple(_address(array) for array in sources),
        (length, np.uint64(strides[0]), np.uint64(strides[1])),
        _address(out),
        start,
        stop,
    )


def _address(array: NDArray[Any]) -> np.uint64:
    return np.uint64(array.ctypes.data)


@cache
def _tables() -> U64:
    """Return the round constants of SHA-512 and multiples 0 to 128 of 256^k * B, k = 0 to 31."""
    words = list(sha512.ROUND_CONSTANTS)
    base = base_point()
    for _ in range(lanes.WINDOWS):
        point = (0, 1)
        for _ in range(BASE_ENTRIES):
            words += affine_row(point)
            last, point = point, add_points(point, base)
        base = add_points(last, last)
    array = zeros(len(words), np.uint64)
    array[:] = words
    assert array.nbytes == CONSTANTS_BYTES + lanes.WINDOWS * lanes.WINDOW_BYTES
    array.flags.writeable = False
    return array
