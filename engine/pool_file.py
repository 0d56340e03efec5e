"""The pool's file: what waited when the process ended, to be judged again by the next one.

Only whole records are written, no verdict about them: whoever loads them verifies every signature
again, since somebody else could have written the file. Layout, little-endian: magic (8 bytes),
version u32, 0 u32, genesis hash (32), count u64, the records of 192 bytes in the order of arrival,
and BLAKE3 of everything before, keyed. It is replaced as a whole and removed once it is loaded.
"""

import contextlib
import struct
from pathlib import Path

import numpy as np
from blake3 import blake3

from engine.constants import HASH_BYTES, TRANSACTION_BYTES, context_key
from kernels.layout import U8
from runtime.durable import write_file

POOL_FILE_NAME = "pool"
POOL_FILE_VERSION = 1
_HEAD = struct.Struct("<8sII32sQ")
_MAGIC = b"TOSPOOL\0"
_KEY = context_key("tos pool file v1")


class PoolFileRefused(Exception):
    """The file is damaged, cut off, of another chain or version: go on without it."""


def write_pool(path: Path, genesis_hash: bytes, records: U8) -> None:
    """Write (n, 192) uint8 records durably in place of what is there. Raises OSError."""
    head = _HEAD.pack(_MAGIC, POOL_FILE_VERSION, 0, genesis_hash, len(records))
    body = np.ascontiguousarray(records).data.cast("B") if len(records) else memoryview(b"")
    check = blake3(head, key=_KEY)
    check.update(body)
    write_file(path, [head, body, check.digest()])


def read_pool(path: Path, genesis_hash: bytes, records_max: int) -> U8:
    """Return the records of a file, (n, 192) uint8, none where there is no file.

    records_max: the most that are believed. Raises PoolFileRefused, OSError.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return np.empty((0, TRANSACTION_BYTES), np.uint8)
    longest = _HEAD.size + records_max * TRANSACTION_BYTES + HASH_BYTES
    if not _HEAD.size + HASH_BYTES <= size <= longest:
        raise PoolFileRefused(f"{path} has {size} bytes, a pool's file at most {longest}")
    data = path.read_bytes()
    magic, version, reserved, chain, count = _HEAD.unpack_from(data)
    end = len(data) - HASH_BYTES
    if (magic, version, reserved) != (_MAGIC, POOL_FILE_VERSION, 0):
        raise PoolFileRefused(f"{path} is no pool's file of version {POOL_FILE_VERSION}")
    if chain != genesis_hash:
        raise PoolFileRefused(f"{path} is of another chain")
    if end != _HEAD.size + count * TRANSACTION_BYTES:
        raise PoolFileRefused(f"{path} is cut off: {count} records do not fit its length")
    if blake3(memoryview(data)[:end], key=_KEY).digest() != data[end:]:
        raise PoolFileRefused(f"{path} is damaged: its checksum differs")
    return np.frombuffer(data, np.uint8, end - _HEAD.size, _HEAD.size).reshape(
        -1, TRANSACTION_BYTES
    )


def remove_pool(path: Path) -> None:
    """Remove the file, if there is one."""
    with contextlib.suppress(FileNotFoundError):  # nothing waited when the last process ended
        path.unlink()
