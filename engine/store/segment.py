"""Append-only files of checksummed records: payloads in one log, deltas and receipts in another.

A log is a row of files of bounded size. Records are written at its end and made durable by `sync`;
how far they are durable stands in the rows (`rows.py`), so whatever lies beyond may be torn and is
cut. Every byte of a record is under a checksum that is compared whenever the record is read.
Files are not allocated ahead: it made large syncs no
faster and small ones slower. One thread appends; any thread reads. Spec: spec/storage.md#segments.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from blake3 import blake3

from engine.constants import context_key
from engine.store.disk import drop_bytes
from engine.store.errors import FULL_ERRNOS, StoreDamaged, damaged, full
from runtime.durable import sync_folder, write_all

T = TypeVar("T")
SEGMENT_VERSION = 1
SEGMENT_BYTES = 2**28
"""a file takes no further record from this size on; one record may make it larger"""
FILE_MAGIC = b"TOSSEGMT"
RECORD_MAGIC = b"TOSRECRD"
FILE_HEAD_BYTES = 64
RECORD_HEAD_BYTES = 128
ALIGNMENT_BYTES = 64
CHECK_BYTES = 16
BODY_BYTES_MAX = 2**40
PAGE_BYTES = 4096
"""what file systems give back whole"""
SEARCH_BYTES = 2**24
"""Read at a time while looking for records beyond a broken one."""
CACHED_BYTES = 2**26
"""Of the end of a file that is written, kept in the system's cache for readers. Pages from before
take the next records: finding new ones costs up to eight times as much as writing them."""

_FILE_HEAD = struct.Struct("<8sIIQ24s")
_RECORD_HEAD = struct.Struct("<8sIIQQQQ32s32s")
_KEY = context_key("tos store record v1")
_NAME = re.compile(r"(\d{10})\.seg")
assert _FILE_HEAD.size + CHECK_BYTES == FILE_HEAD_BYTES
assert _RECORD_HEAD.size + CHECK_BYTES == RECORD_HEAD_BYTES

Part = bytes | memoryview


class LogKind(IntEnum):
    """What a log holds; its folder has the same name in small letters."""

    BLOCKS = 1
    """header and payload of each block that was found VALID"""
    HISTORY = 2
    """delta and receipts of each finalized block"""


class Position(NamedTuple):
    """A place between two records."""

    segment: int
    """number of the file, from 1; 0 before the first"""
    offset: int
    """bytes"""


class Location(NamedTuple):
    """Where a record stands."""

    segment: int
    offset: int
    """of its head, bytes"""
    body_bytes: int
    """without padding"""

    @property
    def end(self) -> Position:
        """Return the place behind the record."""
        return Position(self.segment, self.offset + record_bytes(self.body_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The head of a record."""

    height: int
    block_hash: bytes
    location: Location


def aligned(length: int) -> int:
    """Return length rounded up to the next record boundary."""
    return -(-length // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def record_bytes(body_bytes: int) -> int:
    """Return what a record takes in its file."""
    return RECORD_HEAD_BYTES + aligned(body_bytes)


def _check(head: bytes) -> bytes:
    return blake3(head, key=_KEY).digest(CHECK_BYTES)


def _body_checksum(parts: Sequence[Part]) -> bytes:
    digest = blake3(key=_KEY)
    for part in parts:
        digest.update(part)
    return digest.digest()


class SegmentLog:
    """One log: its files, its end, and what is read from it."""

    def __init__(
        self, folder: Path, kind: LogKind, genesis_hash: bytes, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Open the folder; nothing is read yet, and `cut` must say where the log ends."""
        self.folder = folder
        self.kind = kind
        self._genesis = genesis_hash[:24]
        self._segment_bytes = segment_bytes
        self._sizes: dict[int, int] = {}
        self._reclaimed: dict[int, int] = {}
        for path in sorted(folder.iterdir()):
            if match := _NAME.fullmatch(path.name):
                status = path.stat()
                self._sizes[int(match[1])] = status.st_size
                self._reclaimed[int(match[1])] = max(0, status.st_size - 512 * status.st_blocks)
        self.end = self._last_end()
        self._file: int | None = None
        self._unsynced_folder = False

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files, without what was reclaimed inside them."""
        return sum(self._sizes.values()) - sum(self._reclaimed.values())

    @property
    def segments(self) -> list[int]:
        """Numbers of the files, ascending."""
        return sorted(self._sizes)

    def path(self, segment: int) -> Path:
        """Return the path of a file."""
        return self.folder / f"{segment:010d}.seg"

    def has(self, location: Location) -> bool:
        """Say whether the file of a record is still there."""
        return location.segment in self._sizes

    def held(self, location: Location, read: Callable[[], T]) -> T | None:
        """Read what stands at a place; None if its file is not there, or goes meanwhile.

        Raises what `read` raises of a file that is there.
        """
        if not self.has(location):
            return None
        try:
            return read()
        except StoreDamaged:
            if not self.has(location):
                return None
            raise

    def append(self, height: int, block_hash: bytes, parts: Sequence[Part]) -> Location:
        """Write a record at the end, not durable before `sync`.

        Raises StoreFull, and the log is then as it was; any other OSError passes through.
        """
        body_bytes = sum(len(part) for part in parts)
        assert body_bytes <= BODY_BYTES_MAX, body_bytes
        padding = bytes(aligned(body_bytes) - body_bytes)
        begin = self.end
        try:
            if begin.segment == 0 or begin.offset >= self._segment_bytes:
                self._next_file(begin.segment + 1)
            location = Location(self.end.segment, self.end.offset, body_bytes)
            head = _RECORD_HEAD.pack(
                RECORD_MAGIC,
                self.kind,
                0,
                location.segment,
                location.offset,
                height,
                body_bytes,
                block_hash,
                _body_checksum([*parts, padding]),
            )
            whole = [head + _check(head), *parts, padding]
            write_all(self._open(), whole, location.offset)
        except OSError as error:
            self.cut(begin)
            if error.errno in FULL_ERRNOS:
                raise full(self.folder, error.strerror or str(error)) from error
            raise
        self.end = location.end
        self._sizes[location.segment] = self.end.offset
        return location

    def sync(self) -> None:
        """Make all records durable."""
        if self._file is not None:
            os.fdatasync(self._file)
            self._let_go(self._file, self.end.offset - CACHED_BYTES)
        if self._unsynced_folder:
            sync_folder(self.folder)
            self._unsynced_folder = False

    def cut(self, end: Position) -> int:
        """Remove everything behind `end` and return how many bytes that was."""
        self.close()
        removed = 0
        for segment in [number for number in self._sizes if number > end.segment]:
            removed += self._sizes[segment]
            self.remove(segment)
        size = self._sizes.get(end.segment, end.offset)
        if size > end.offset:
            os.truncate(self.path(end.segment), end.offset)
            self._sizes[end.segment] = end.offset
            removed += size - end.offset
        self.end = end
        return removed

    def remove(self, segment: int) -> None:
        """Remove a whole file; a reader that does not find it knows by `has` that it is gone."""
        self._sizes.pop(segment, None)
        self._reclaimed.pop(segment, None)
        self.path(segment).unlink(missing_ok=True)

    def reclaim(self, location: Location, start: int) -> None:
        """Give a record's body from byte `start` on back to the disk; the rest stays for scans."""
        if not self.has(location):
            return
        begin = -(-(location.offset + RECORD_HEAD_BYTES + start) // PAGE_BYTES) * PAGE_BYTES
        end = location.end.offset // PAGE_BYTES * PAGE_BYTES
        if end > begin and drop_bytes(self.path(location.segment), begin, end - begin):
            known = self._reclaimed.get(location.segment, 0)
            self._reclaimed[location.segment] = known + end - begin

    def read(self, location: Location, block_hash: bytes) -> memoryview:
        """Return a record's body, read-only, with every byte compared; raises StoreDamaged."""
        path = self.path(location.segment)
        raw = self._read_bytes(location, -RECORD_HEAD_BYTES, record_bytes(location.body_bytes))
        head, body = raw[:RECORD_HEAD_BYTES], raw[RECORD_HEAD_BYTES:]
        record, checksum = self._parse(bytes(head), location.segment, location.offset)
        if record.location != location or record.block_hash != block_hash:
            raise damaged(path, location.offset, "the record is another one than the rows say")
        if _body_checksum([body]) != checksum:
            raise damaged(path, location.offset, "the checksum of a record's body differs")
        return body[: location.body_bytes]

    def read_parts(self, location: Location, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return [start, end) of a body for each span, without comparing its checksum.

        For callers that have another proof of what they get, as a hash.
        """
        begin = location.offset + RECORD_HEAD_BYTES
        with self._opened(location.segment) as file:
            return [os.pread(file, end - start, begin + start) for start, end in spans]

    def scan(self, begin: Position, *, deep_from: int) -> Iterator[Record]:
        """Yield the records from `begin` on, up to the end of the last file.

        deep_from: number of the file from which on bodies are compared too, not heads alone.
        Raises StoreDamaged at the first bytes that are no record; whether they are a torn tail is
        for the caller to say.
        """
        for segment in self.segments:
            if segment < begin.segment:
                continue
            offset = FILE_HEAD_BYTES
            if segment == begin.segment:
                offset = max(offset, begin.offset)
            if self._sizes[segment]:
                self.check_file(segment)
            while offset < self._sizes[segment]:
                record, _ = self._parse(
                    self._read_at(segment, offset, RECORD_HEAD_BYTES), segment, offset
                )
                if record.location.end.offset > self._sizes[segment]:
                    raise damaged(self.path(segment), offset, "the file ends within a record")
                if segment >= deep_from:
                    self.read(record.location, record.block_hash)
                yield record
                offset = record.location.end.offset

    def check_file(self, segment: int) -> None:
        """Raise StoreDamaged unless the file begins as one of this log and this chain."""
        head = self._read_at(segment, 0, FILE_HEAD_BYTES)
        if head != self._file_head(segment):
            raise damaged(self.path(segment), 0, "the file does not begin as one of this chain")

    def has_record_after(self, begin: Position) -> bool:
        """Say whether there is more behind the first bytes from `begin` on that are no record.

        Then these are no torn tail. Where the file of `begin` ends there, they begin the next one.
        """
        later = [
            number
            for number, size in sorted(self._sizes.items())
            if number > begin.segment and size > FILE_HEAD_BYTES
        ]
        if begin.offset >= self._sizes.get(begin.segment, 0):
            if not later:
                return False
            begin = Position(later.pop(0), FILE_HEAD_BYTES)
        if later:
            return True  # a file is synced whole before the next one begins
        offset = begin.offset
        if self._read_at(begin.segment, 0, FILE_HEAD_BYTES) == self._file_head(begin.segment):
            offset += ALIGNMENT_BYTES
        while offset < self._sizes[begin.segment]:
            data = self._read_at(begin.segment, offset, SEARCH_BYTES)
            place = data.find(RECORD_MAGIC)
            while place >= 0:
                head = self._read_at(begin.segment, offset + place, RECORD_HEAD_BYTES)
                if (
                    place % ALIGNMENT_BYTES == 0
                    and _check(head[:-CHECK_BYTES]) == head[-CHECK_BYTES:]
                ):
                    return True
                place = data.find(RECORD_MAGIC, place + 1)
            offset += SEARCH_BYTES
        return False

    def close(self) -> None:
        """Give the file back; nothing is synced."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _last_end(self) -> Position:
        if not self._sizes:
            return Position(0, 0)
        last = max(self._sizes)
        return Position(last, self._sizes[last])

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self.path(self.end.segment), os.O_RDWR | os.O_CLOEXEC)
        return self._file

    @staticmethod
    def _let_go(file: int, end: int) -> None:
        """Let the system's cache forget a file before `end`; what is not synced stays in it."""
        if end > 0:
            os.posix_fadvise(file, 0, end, os.POSIX_FADV_DONTNEED)

    def _next_file(self, segment: int) -> None:
        self.sync()
        if self._file is not None:
            self._let_go(self._file, self.end.offset)
        self.close()
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.open(self.path(segment), flags, 0o600)
        self._sizes[segment] = 0
        self._unsynced_folder = True
        write_all(self._file, [self._file_head(segment)], 0)
        self.end = Position(segment, FILE_HEAD_BYTES)
        self._sizes[segment] = FILE_HEAD_BYTES

    def _file_head(self, segment: int) -> bytes:
        head = _FILE_HEAD.pack(FILE_MAGIC, SEGMENT_VERSION, self.kind, segment, self._genesis)
        return head + _check(head)

    def _parse(self, head: bytes, segment: int, offset: int) -> tuple[Record, bytes]:
        """Return a record's head and its body's checksum, or raise StoreDamaged."""
        path = self.path(segment)
        if len(head) != RECORD_HEAD_BYTES or _check(head[:-CHECK_BYTES]) != head[-CHECK_BYTES:]:
            raise damaged(path, offset, "the checksum of a record's head differs")
        magic, kind, zero, number, place, height, body_bytes, block_hash, checksum = (
            _RECORD_HEAD.unpack_from(head)
        )
        expected = (RECORD_MAGIC, self.kind, 0, segment, offset)
        if (magic, kind, zero, number, place) != expected or body_bytes > BODY_BYTES_MAX:
            raise damaged(path, offset, "the record belongs to another place")
        location = Location(segment, offset, body_bytes)
        return Record(height=height, block_hash=block_hash, location=location), checksum

    def _read_bytes(self, location: Location, start: int, length: int) -> memoryview:
        """Return bytes counted from a body's beginning, in memory of their own, read-only."""
        offset = location.offset + RECORD_HEAD_BYTES + start
        buffer = np.empty(length, np.uint8)
        view = buffer.data
        path = self.path(location.segment)
        with self._opened(location.segment) as file:
            done = 0
            while done < length:
                got = os.preadv(file, [view[done:]], offset + done)
                if not got:
                    raise damaged(path, offset + done, "the file ends within a record")
                done += got
        return view.toreadonly()

    @contextmanager
    def _opened(self, segment: int) -> Iterator[int]:
        """Open a file for reading; a file of its own, so that threads need no lock."""
        path = self.path(segment)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise damaged(path, 0, "the file is missing") from error
        try:
            yield file
        finally:
            os.close(file)

    def _read_at(self, segment: int, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a file."""
        with self._opened(segment) as file:
            return os.pread(file, length, offset)


def cut_torn_tail(log: SegmentLog, durable: Position) -> tuple[list[Record], int]:
    """Return the whole records behind `durable` and cut what follows them.

    Nobody was told that these records are kept, so what is torn among them is no damage. Returns
    the records and the number of bytes that were cut.
    """
    if log.end < durable:
        raise damaged(
            log.path(durable.segment),
            log.end.offset,
            f"the file should reach byte {durable.offset}",
        )
    records = []
    end = durable
    try:
        for record in log.scan(durable, deep_from=0):
            records.append(record)
            end = record.location.end
    except StoreDamaged:
        return records, log.cut(end)
    return records, log.cut(end)
