"""The journal's file: what this validator signed, framed, checksummed, durable before it leaves.

What its records mean is `core/journal.py`'s business. Every append is one frame, and every frame is
synced before the next is written, so that a crash can only tear the last one: nothing of it has
left, and it is dropped. Anything else that is wrong is damage, which makes the node an observer.
One thread owns a journal. Spec: spec/consensus.md#files.
"""

import os
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from runtime.durable import create_file, write_all, write_file

MAGIC = b"TOSVOTES"
VERSION = 1
FRAME_MAGIC = b"TOSFRAME"
CHECK_BYTES = 16
ID_BYTES = 16
_HEAD = struct.Struct("<8s I I 16s")
_FRAME = struct.Struct("<8s Q I I 16s")
_LENGTH = struct.Struct("<I")
_KEY = blake3(b"", derive_key_context="tos journal frame v1").digest()
FRAME_BYTES_MAX = 2**31
"""of the records of one frame, their lengths included; far above all that a replica may hold"""


class JournalDamaged(Exception):
    """Bytes that are no journal, or one that is damaged before its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalContent:
    """What a file holds."""

    records: tuple[bytes, ...]
    file_id: bytes
    """drawn when the file was made; frames of another file never pass for its own"""
    good_bytes: int
    torn_bytes: int
    """after the good ones: a frame that a crash tore"""


def create_journal(path: Path, records: Sequence[bytes]) -> None:
    """Make a journal durable where none is. Raises FileExistsError and other OSErrors."""
    data = _file_bytes(records, secrets.token_bytes(ID_BYTES))
    create_file(path, data)


def read_journal(path: Path) -> JournalContent:
    """Return what a file holds, without changing it. Raises JournalDamaged, OSError."""
    data = path.read_bytes()
    if len(data) < _HEAD.size:
        raise JournalDamaged(f"{path}: {len(data)} bytes are no journal")
    magic, version, zero, file_id = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or zero:
        raise JournalDamaged(f"{path}: this is no journal of version {VERSION}")
    records: list[bytes] = []
    at = _HEAD.size
    while at < len(data):
        body = _frame_at(data, at, file_id)
        if body is None:
            later = _next_frame(data, at + 1, file_id)
            if later is not None:
                raise JournalDamaged(f"{path}: damaged at byte {at}, good again at byte {later}")
            break
        records += _split(body)
        at += _FRAME.size + len(body)
    if not records:
        raise JournalDamaged(f"{path}: not even the first frame is whole")
    return JournalContent(
        records=tuple(records), file_id=file_id, good_bytes=at, torn_bytes=len(data) - at
    )


class Journal:
    """The file of a running node: append, or replace as a whole; durable when a call returns."""

    def __init__(self, path: Path) -> None:
        """Open a journal and cut its torn tail off. Raises JournalDamaged, OSError."""
        content = read_journal(path)
        self.path = path
        self.records = content.records
        """as found"""
        self.torn_bytes = content.torn_bytes
        """that were cut off"""
        self._file_id = content.file_id
        self._end = content.good_bytes
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if content.torn_bytes:
            os.ftruncate(self._file, self._end)
            os.fsync(self._file)

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._end

    def append(self, records: Sequence[bytes]) -> None:
        """Add records at the end, as one frame, and sync. Raises OSError: then stop the node."""
        frame = _frame_bytes(records, self._end, self._file_id)
        write_all(self._file, [frame], self._end)
        os.fdatasync(self._file)
        self._end += len(frame)

    def replace(self, records: Sequence[bytes]) -> None:
        """W4: let the journal be exactly these records: new file, sync, rename, folder's sync."""
        file_id = secrets.token_bytes(ID_BYTES)
        data = _file_bytes(records, file_id)
        write_file(self.path, [data], suffix=".new")
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self._file_id, self._end = file_id, len(data)

    def close(self) -> None:
        """Close the file; everything is durable already."""
        os.close(self._file)


def _file_bytes(records: Sequence[bytes], file_id: bytes) -> bytes:
    head = _HEAD.pack(MAGIC, VERSION, 0, file_id)
    return head + _frame_bytes(records, len(head), file_id)


def _frame_bytes(records: Sequence[bytes], offset: int, file_id: bytes) -> bytes:
    body = b"".join(_LENGTH.pack(len(record)) + record for record in records)
    assert 0 < len(body) <= FRAME_BYTES_MAX, len(body)
    return _FRAME.pack(FRAME_MAGIC, offset, len(body), 0, _check(body, offset, file_id)) + body


def _check(body: bytes, offset: int, file_id: bytes) -> bytes:
    place = file_id + offset.to_bytes(8, "little") + len(body).to_bytes(4, "little")
    return blake3(place + body, key=_KEY).digest(CHECK_BYTES)


def _frame_at(data: bytes, at: int, file_id: bytes) -> bytes | None:
    """Return the body of the frame that begins here, None where no good one does."""
    if at + _FRAME.size > len(data):
        return None
    magic, offset, length, zero, check = _FRAME.unpack_from(data, at)
    start = at + _FRAME.size
    if (magic, offset, zero) != (FRAME_MAGIC, at, 0) or start + length > len(data):
        return None
    body = data[start : start + length]
    return body if _check(body, at, file_id) == check else None


def _next_frame(data: bytes, at: int, file_id: bytes) -> int | None:
    """Return where the next good frame begins, if any does: then what lies before is damaged."""
    while (at := data.find(FRAME_MAGIC, at)) >= 0:
        if _frame_at(data, at, file_id) is not None:
            return at
        at += 1
    return None


def _split(body: bytes) -> list[bytes]:
    """Return the records of a good frame; its checksum says that we wrote it."""
    found, at = [], 0
    while at < len(body):
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        found.append(body[at : at + length])
        at += length
    return found
