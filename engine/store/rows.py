"""Small rows in LMDB: where each block's records stand, headers, and how far everything is durable.

Every row carries a checksum over its table, key and value, and everything here can be made again
from the segments (`recovery.py`): this file is quick to ask, not the only witness. A commit is
durable when `Rows.write` ends. Spec: spec/storage.md#rows.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
from blake3 import blake3

from engine.constants import HEADER_BYTES, context_key
from engine.store.errors import StoreDamaged, damaged, full
from engine.store.segment import Location, LogKind, Position
from runtime.durable import write_file

MAP_BYTES = 2**40
"""Address space that LMDB may grow into; the file is as large as its pages."""
CHECK_BYTES = 16
MARK_NAME = "closed"
"""A file beside LMDB's while nobody has it open: the number of the last commit, in digits."""
READERS_MAX = 256
"""Looks at one time, in all processes: a node has some 90 threads that take them. One that finds no
place would end as damage, on the writer's thread too."""

TABLES = ("blocks", "heights", "unfinalized", "state", "segments")
"""block hash -> BlockRow; height -> finalized hash; (height, hash) of what is not finalized;
names -> places and hashes; (log, number) -> greatest height in a file."""

_BLOCK = struct.Struct("<QIQQIQQ")
_POSITION = struct.Struct("<IQ")
_KEY = context_key("tos store row v1")
_NO_SPACE = ("No space left", "Disk quota", "File too large", "MDB_MAP_FULL")


class RowsDamaged(Exception):
    """LMDB or a row's checksum says that the file is not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """What is known of a stored block."""

    height: int
    payload: Location
    """of the record with header and payload"""
    history: Location | None
    """of the record with delta and receipts; None until the block is finalized"""
    header: bytes
    """400 bytes"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """A block, by height and hash."""

    height: int
    block_hash: bytes


def height_key(height: int) -> bytes:
    """Return a height as a key: big-endian, so that keys ascend with heights."""
    return height.to_bytes(8, "big")


def check_of(table: str, key: bytes, value: bytes) -> bytes:
    """Return the checksum of a row."""
    data = table.encode().ljust(16, b"\0") + len(key).to_bytes(8, "little") + key + value
    return blake3(data, key=_KEY).digest(CHECK_BYTES)


def checked(table: str, key: bytes, stored: bytes) -> bytes:
    """Return a row's value, or raise RowsDamaged."""
    value = stored[:-CHECK_BYTES]
    if len(stored) < CHECK_BYTES or check_of(table, key, value) != stored[-CHECK_BYTES:]:
        raise RowsDamaged(f"the row {key.hex()} of {table} has another checksum")
    return value


class Reader:
    """Reads within one transaction: all answers are of one instant."""

    def __init__(self, tables: dict[str, Any], transaction: Any) -> None:
        """Wrap a transaction of LMDB."""
        self._tables = tables
        self._transaction = transaction

    def block(self, block_hash: bytes) -> BlockRow | None:
        """Return what is known of a block."""
        value = self._get("blocks", block_hash)
        if value is None:
            return None
        height, *numbers = _BLOCK.unpack_from(value)
        history = Location(*numbers[3:])
        return BlockRow(
            height=height,
            payload=Location(*numbers[:3]),
            history=history if history.segment else None,
            header=value[_BLOCK.size :],
        )

    def finalized_hash(self, height: int) -> bytes | None:
        """Return the hash of the finalized block at a height."""
        return self._get("heights", height_key(height))

    def unfinalized(self) -> list[Pointer]:
        """Return the stored blocks that are not finalized, by height, then by hash."""
        return [
            Pointer(height=int.from_bytes(key[:8], "big"), block_hash=key[8:])
            for key, _ in self._rows("unfinalized")
        ]

    def pointer(self, name: str) -> Pointer | None:
        """Return the pointer `finalized` or `head`."""
        value = self._get("state", name.encode())
        if value is None:
            return None
        return Pointer(height=int.from_bytes(value[:8], "little"), block_hash=value[8:])

    def durable_end(self, kind: LogKind) -> Position:
        """Return how far a log is durable."""
        value = self._get("state", f"end {kind.name}".encode())
        return Position(0, 0) if value is None else Position(*_POSITION.unpack(value))

    def number(self, name: str) -> int:
        """Return a number of the table `state`, 0 if it was never set."""
        value = self._get("state", name.encode())
        return 0 if value is None else int.from_bytes(value, "little")

    def greatest_heights(self, kind: LogKind) -> dict[int, int]:
        """Return the greatest height in each file of a log, by the file's number."""
        return {
            int.from_bytes(key[1:], "big"): int.from_bytes(value, "little")
            for key, value in self._rows("segments")
            if key[0] == kind
        }

    def check_all(self) -> int:
        """Compare the checksum of every row and return how many there are."""
        return sum(1 for table in TABLES for _ in self._rows(table))

    def check_newest(self, count: int) -> None:
        """Compare the rows of the newest `count` heights, and all that are about no height."""
        for table in ("state", "segments"):
            for _ in self._rows(table):
                pass
        names = [item.block_hash for item in self.unfinalized()]
        with self._transaction.cursor(db=self._tables["heights"]) as cursor:
            for key, stored in islice(cursor.iterprev(), count):
                names.append(checked("heights", bytes(key), bytes(stored)))
        for name in names:
            if self.block(name) is None:
                raise RowsDamaged(f"the row {name.hex()} of blocks is missing")

    def _get(self, table: str, key: bytes) -> bytes | None:
        stored = self._transaction.get(key, db=self._tables[table])
        return None if stored is None else checked(table, key, bytes(stored))

    def _rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor(db=self._tables[table]) as cursor:
            for key, stored in cursor:
                yield bytes(key), checked(table, bytes(key), bytes(stored))


class Writer(Reader):
    """Writes within one transaction."""

    def put_block(self, block_hash: bytes, row: BlockRow) -> None:
        """Store what is known of a block; one without history is unfinalized."""
        assert len(row.header) == HEADER_BYTES, len(row.header)
        history = row.history or Location(0, 0, 0)
        numbers = _BLOCK.pack(row.height, *row.payload, *history)
        self._put("blocks", block_hash, numbers + row.header)
        key = height_key(row.height)
        if row.history is None:
            self._put("unfinalized", key + block_hash, b"")
        else:
            self._delete("unfinalized", key + block_hash)
            self._put("heights", key, block_hash)
        self.note_file(LogKind.BLOCKS, row.payload, row.height)
        if row.history is not None:
            self.note_file(LogKind.HISTORY, row.history, row.height)

    def forget_block(self, block_hash: bytes, row: BlockRow) -> None:
        """Remove every row of a block."""
        self._delete("blocks", block_hash)
        if row.history is None:
            self._delete("unfinalized", height_key(row.height) + block_hash)
        else:
            self._delete("heights", height_key(row.height))

    def set_pointer(self, name: str, pointer: Pointer) -> None:
        """Store the pointer `finalized` or `head`."""
        value = pointer.height.to_bytes(8, "little") + pointer.block_hash
        self._put("state", name.encode(), value)

    def set_durable_end(self, kind: LogKind, end: Position) -> None:
        """Store how far a log is durable."""
        self._put("state", f"end {kind.name}".encode(), _POSITION.pack(*end))

    def set_number(self, name: str, value: int) -> None:
        """Store a number in the table `state`."""
        self._put("state", name.encode(), value.to_bytes(8, "little"))

    def forget_segment(self, kind: LogKind, segment: int) -> None:
        """Remove the row of a file that is gone."""
        self._delete("segments", bytes([kind]) + segment.to_bytes(4, "big"))

    def note_file(self, kind: LogKind, location: Location, height: int) -> None:
        """Keep the greatest height of a record's file up to date; a pruned record has none."""
        if not location.segment:
            return
        key = bytes([kind]) + location.segment.to_bytes(4, "big")
        value = self._get("segments", key)
        if value is None or int.from_bytes(value, "little") < height:
            self._put("segments", key, height.to_bytes(8, "little"))

    def _put(self, table: str, key: bytes, value: bytes) -> None:
        stored = value + check_of(table, key, value)
        self._transaction.put(key, stored, db=self._tables[table])

    def _delete(self, table: str, key: bytes) -> None:
        self._transaction.delete(key, db=self._tables[table])


class Rows:
    """The LMDB environment of a home."""

    def __init__(self, folder: Path, *, is_writer: bool = True) -> None:
        """Open or create; raises RowsDamaged for what LMDB itself notices."""
        self.folder = folder
        self._is_damaged = False
        try:
            self._environment = lmdb.open(
                str(folder),
                map_size=MAP_BYTES,
                max_dbs=len(TABLES),
                max_readers=READERS_MAX,
                readonly=not is_writer,
                lock=is_writer,
                create=is_writer,
                mode=0o600,
            )
            self._tables = {
                name: self._environment.open_db(name.encode(), create=is_writer) for name in TABLES
            }
        except lmdb.Error as error:
            if _is_no_space(error):
                raise full(folder, str(error)) from error
            raise RowsDamaged(str(error)) from error

    @property
    def disk_bytes(self) -> int:
        """Bytes of the file."""
        return (self.folder / "data.mdb").stat().st_size

    @property
    def last_commit(self) -> int:
        """Number of the last commit: it grows by one with each."""
        return int(self._environment.info()["last_txnid"])

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Read within one transaction; raises StoreDamaged where a row is not what was written."""
        try:
            with self._environment.begin() as transaction:
                yield Reader(self._tables, transaction)
        except (lmdb.Error, RowsDamaged) as error:
            raise self._damaged(error) from error

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """Write within one transaction, durable at the end, or nothing of it.

        Raises StoreFull, StoreDamaged.
        """
        try:
            with self._environment.begin(write=True) as transaction:
                yield Writer(self._tables, transaction)
        except (lmdb.Error, RowsDamaged) as error:
            if _is_no_space(error):
                raise full(self.folder, str(error)) from error
            raise self._damaged(error) from error

    def close(self, *, is_clean: bool = False) -> None:
        """Close the environment.

        is_clean: leave a mark, so that the next one to open need not read every row. There is none
        where damage was seen, and none after a process that died, of a damaged page perhaps.
        """
        number = self.last_commit
        self._environment.close()
        if is_clean and not self._is_damaged:
            # Without room for the mark every row is read the next time.
            with suppress(OSError):
                write_file(self.folder.joinpath(MARK_NAME), [str(number).encode()])

    def _damaged(self, error: Exception) -> StoreDamaged:
        self._is_damaged = True
        return damaged(
            self.folder / "data.mdb",
            0,
            str(error),
            "open the store again: the rows are then made anew from the segments",
        )


def _is_no_space(error: Exception) -> bool:
    return isinstance(error, lmdb.MapFullError) or any(text in str(error) for text in _NO_SPACE)
