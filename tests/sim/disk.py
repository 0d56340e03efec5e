"""A node's disk: files that forget what was not synced, and tear the last record in half.

A process that dies leaves written bytes to the system, which keeps them; a power cut does not: of
the unsynced bytes an arbitrary prefix survives, so that the last record may be torn.
"""

import random
import struct
import zlib

_FRAME = struct.Struct("<II")


def frame(record: bytes) -> bytes:
    """Return a record as it lies in a file: length, checksum, bytes."""
    return _FRAME.pack(len(record), zlib.crc32(record)) + record


def records(data: bytes) -> list[bytes]:
    """Return the records up to a torn or damaged tail."""
    found, at = [], 0
    while at + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, at)
        record = data[at + _FRAME.size : at + _FRAME.size + length]
        if len(record) != length or zlib.crc32(record) != checksum:
            break
        found.append(record)
        at += _FRAME.size + length
    return found


class File:
    """One append-only file, or one that is replaced as a whole (rename after sync)."""

    def __init__(self) -> None:
        """Begin empty."""
        self.durable = bytearray()
        self.written = bytearray()
        """after `durable`, not synced yet"""

    def append(self, data: bytes) -> int:
        """Write at the end; answers the length that a sync has to reach."""
        self.written += data
        return len(self.durable) + len(self.written)

    def sync(self) -> None:
        """Make everything that is written durable."""
        self.durable += self.written
        self.written.clear()

    def replace(self, data: bytes) -> None:
        """Put a whole new file in place: synced, renamed, its directory synced."""
        self.durable = bytearray(data)
        self.written.clear()

    def cut_power(self, rng: random.Random) -> None:
        """Lose unsynced bytes, except for an arbitrary prefix of them."""
        if self.written:
            self.durable += self.written[: rng.randrange(len(self.written) + 1)]
            self.written.clear()

    def content(self) -> bytes:
        """Return what a process that starts now reads."""
        return bytes(self.durable + self.written)
