"""Snapshots: all accounts at a finalized height, as flat columns in chunks of 2^16 slots.

A snapshot is written once, under a temporary name, and never changed; each chunk has a checksum,
and the whole is trusted only after its `state_hash` was computed again from the columns.
Spec: spec/storage.md#snapshots.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from engine.constants import KEY_BYTES, context_key
from engine.store.errors import damaged
from engine.store.history import Delta, HistoryError
from kernels.layout import U8, U64
from runtime.durable import whole_file, write_all

SNAPSHOT_VERSION = 1
CHUNK_SLOTS = 2**16
MAGIC = b"TOSSNAPS"
HEAD_BYTES = 256
CHECK_BYTES = 32
ROW_BYTES = KEY_BYTES + 16
_HEAD = struct.Struct("<8sIIQQ32s32s32s32s")
_KEY = context_key("tos store snapshot v1")
_NAME = re.compile(r"(\d{20})\.snapshot")
_TO_DO = "remove this file: an older snapshot, or genesis, and the deltas give the same state"

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The head of a snapshot."""

    path: Path
    height: int
    block_hash: bytes
    state_hash: bytes
    account_count: int

    @property
    def disk_bytes(self) -> int:
        """Bytes of the file."""
        return snapshot_bytes(self.account_count)


class AccountColumns:
    """Accounts as flat columns that deltas are applied to: slot i is row i."""

    def __init__(self, capacity: int) -> None:
        """Make room for `capacity` accounts; there are none yet."""
        self.count = 0
        self._keys: U8 = np.empty((capacity, KEY_BYTES), np.uint8)
        self._balances: U64 = np.zeros(capacity, np.uint64)
        self._nonces: U64 = np.zeros(capacity, np.uint64)

    @classmethod
    def of(cls, keys: U8, balances: U64, capacity: int = 0) -> "AccountColumns":
        """Return opening accounts, nonces 0. keys: (n, 32) uint8, balances: (n,) uint64."""
        made = cls(max(capacity, len(keys)))
        made.append(keys, balances, np.zeros(len(keys), np.uint64))
        return made

    @property
    def keys(self) -> U8:
        """(count, 32) uint8."""
        return self._keys[: self.count]

    @property
    def balances(self) -> U64:
        """(count,) uint64, base units."""
        return self._balances[: self.count]

    @property
    def nonces(self) -> U64:
        """(count,) uint64."""
        return self._nonces[: self.count]

    def append(self, keys: U8, balances: U64, nonces: U64) -> None:
        """Add accounts behind the last."""
        end = self.count + len(keys)
        if end > len(self._keys):
            self._grow(end + end // 4)
        self._keys[self.count : end] = keys
        self._balances[self.count : end] = balances
        self._nonces[self.count : end] = nonces
        self.count = end

    def apply(self, delta: Delta) -> None:
        """Apply the delta of the next block; raises HistoryError if it is another one's."""
        if delta.count_before != self.count:
            detail = f"a delta on {delta.count_before} accounts cannot follow {self.count}"
            raise HistoryError(detail)
        zeros = np.zeros(len(delta.created_keys), np.uint64)
        self.append(delta.created_keys, zeros, zeros)
        self._balances[delta.slots] = delta.balances
        self._nonces[delta.slots] = delta.nonces

    def _grow(self, capacity: int) -> None:
        for name in ("_keys", "_balances", "_nonces"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: self.count] = old[: self.count]
            setattr(self, name, new)


def chunk_count(account_count: int) -> int:
    """Return how many chunks hold so many accounts."""
    return -(-account_count // CHUNK_SLOTS)


def data_start(account_count: int) -> int:
    """Return the offset of the first chunk."""
    table = HEAD_BYTES + CHECK_BYTES * chunk_count(account_count)
    return -(-table // 4096) * 4096


def snapshot_bytes(account_count: int) -> int:
    """Return the size of a snapshot's file."""
    return data_start(account_count) + ROW_BYTES * account_count


def snapshot_path(folder: Path, height: int) -> Path:
    """Return the path of the snapshot of a height."""
    return folder / f"{height:020d}.snapshot"


def write_snapshot(
    path: Path,
    columns: AccountColumns,
    *,
    genesis_hash: bytes,
    height: int,
    block_hash: bytes,
    state_hash: bytes,
    progress: Progress,
) -> None:
    """Write a snapshot under a temporary name, sync it and give it its name."""
    count = columns.count
    total = chunk_count(count)
    checks = []
    with whole_file(path) as file:
        offset = data_start(count)
        for chunk, parts in enumerate(_chunks(columns)):
            write_all(file, parts, offset)
            checks.append(_check_parts(parts))
            offset += sum(len(part) for part in parts)
            progress("write", chunk + 1, total)
        table = b"".join(checks)
        head = _HEAD.pack(
            MAGIC, SNAPSHOT_VERSION, CHUNK_SLOTS, height, count,
            genesis_hash, block_hash, state_hash, _check_parts([table]),
        ).ljust(HEAD_BYTES - CHECK_BYTES, b"\0")  # fmt: skip
        whole = [head, _check_parts([head]), table]
        padding = bytes(data_start(count) - HEAD_BYTES - len(table))
        write_all(file, [*whole, padding], 0)


def read_head(path: Path, genesis_hash: bytes) -> Snapshot:
    """Return the head of a snapshot; raises StoreDamaged."""
    with path.open("rb") as file:
        data = file.read(HEAD_BYTES)
    snapshot, _ = _parse_head(path, data, genesis_hash)
    return snapshot


def read_snapshot(path: Path, genesis_hash: bytes, capacity: int = 0) -> AccountColumns:
    """Return the accounts of a snapshot, every byte compared; raises StoreDamaged."""
    with path.open("rb", buffering=0) as file:
        head = file.read(HEAD_BYTES)
        snapshot, table_check = _parse_head(path, head, genesis_hash)
        count = snapshot.account_count
        if path.stat().st_size != snapshot_bytes(count):
            why = f"{count} accounts take {snapshot_bytes(count)} bytes"
            raise damaged(path, path.stat().st_size, why, _TO_DO)
        table = file.read(data_start(count) - HEAD_BYTES)
        used = CHECK_BYTES * chunk_count(count)
        if _check_parts([table[:used]]) != table_check or any(table[used:]):
            raise damaged(path, HEAD_BYTES, "the table of chunks has another checksum", _TO_DO)
        columns = AccountColumns(max(capacity, count))
        for chunk in range(chunk_count(count)):
            offset = file.tell()
            rows = min(CHUNK_SLOTS, count - chunk * CHUNK_SLOTS)
            raw = np.empty(rows * ROW_BYTES, np.uint8)
            done = file.readinto(raw.data)
            check = table[CHECK_BYTES * chunk : CHECK_BYTES * (chunk + 1)]
            if done != len(raw) or _check_parts([raw.data]) != check:
                raise damaged(path, offset, f"chunk {chunk} has another checksum", _TO_DO)
            balances = KEY_BYTES * rows
            columns.append(
                raw[:balances].reshape(rows, KEY_BYTES),
                raw[balances : balances + 8 * rows].view(np.uint64),
                raw[balances + 8 * rows :].view(np.uint64),
            )
    return columns


def list_snapshots(folder: Path) -> list[Path]:
    """Return the paths of all snapshots, the newest first; their bytes are not looked at."""
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def height_of(path: Path) -> int:
    """Return the height in a snapshot's name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def _check_parts(parts: list[bytes | memoryview]) -> bytes:
    digest = blake3(key=_KEY)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _chunks(columns: AccountColumns) -> Iterator[list[bytes | memoryview]]:
    """Yield the three column parts of each chunk, as bytes."""
    for start in range(0, columns.count, CHUNK_SLOTS):
        rows = slice(start, min(start + CHUNK_SLOTS, columns.count))
        arrays = (columns.keys[rows], columns.balances[rows], columns.nonces[rows])
        yield [array.reshape(-1).view(np.uint8).data for array in arrays]


def _parse_head(path: Path, data: bytes, genesis_hash: bytes) -> tuple[Snapshot, bytes]:
    """Return the head and the checksum of the chunk table."""
    if len(data) != HEAD_BYTES or _check_parts([data[:-CHECK_BYTES]]) != data[-CHECK_BYTES:]:
        raise damaged(path, 0, "the head has another checksum", _TO_DO)
    magic, version, slots, height, count, chain, block_hash, state_hash, table = _HEAD.unpack_from(
        data
    )
    if (magic, version, slots, chain) != (MAGIC, SNAPSHOT_VERSION, CHUNK_SLOTS, genesis_hash):
        raise damaged(path, 0, "it is a snapshot of another chain or version", _TO_DO)
    snapshot = Snapshot(
        path=path,
        height=height,
        block_hash=block_hash,
        state_hash=state_hash,
        account_count=count,
    )
    return snapshot, table
