"""Room on disk: what a home uses, what it may use, and how it is given back.

Spec: spec/storage.md#disk-use.
"""

import contextlib
import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from engine.store.errors import FULL_ERRNOS, full

_KEEP_SIZE = 1
_PUNCH_HOLE = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """Bytes that a home takes, by what they are for."""

    blocks: int
    history: int
    rows: int
    snapshots: int
    indexes: int
    bad_blocks: int
    max_disk_bytes: int | None
    free: int
    """of the file system, for this user"""

    @property
    def total(self) -> int:
        """Return what counts against max_disk_bytes."""
        derived = self.rows + self.snapshots + self.indexes
        return self.blocks + self.history + derived + self.bad_blocks


def check_room(folder: Path, use: DiskUse, needed: int, spare: int, free_bytes_min: int) -> None:
    """Raise StoreFull if `needed` more bytes would leave less than the spare or the free minimum.

    spare: bytes of max_disk_bytes that this kind of write must leave for more urgent ones.
    """
    if use.max_disk_bytes is not None and use.total + needed > use.max_disk_bytes - spare:
        why = (
            f"{needed} bytes beside the {use.total} in use exceed max_disk_bytes "
            f"{use.max_disk_bytes} less {spare} kept for finalization"
        )
        raise full(folder, why)
    if use.free - needed < free_bytes_min:
        why = f"{needed} bytes would leave less than {free_bytes_min} of the {use.free} free ones"
        raise full(folder, why)


def free_bytes(folder: Path) -> int:
    """Return the bytes that this user may still write to the file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def folder_bytes(folder: Path) -> int:
    """Return the bytes of the files in a folder and below, whatever others do to them meanwhile."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            # A file that was renamed or removed since is counted next time.
            with contextlib.suppress(FileNotFoundError):
                total += Path(here, name).stat().st_size
    return total


def drop_bytes(path: Path, offset: int, length: int) -> bool:
    """Give a range of a file back to the disk, so that it reads as zeros.

    Returns False where the file system cannot, or has no room to write down where the hole is; the
    bytes then go with their file.
    """
    if not length or not hasattr(_LIBC, "fallocate"):
        return False
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        arguments = (ctypes.c_int(file), ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE))
        places = (ctypes.c_int64(offset), ctypes.c_int64(length))
        if _LIBC.fallocate(*arguments, *places) == 0:
            return True
        code = ctypes.get_errno()
        if code in {errno.EOPNOTSUPP, errno.ENOSYS, *FULL_ERRNOS}:
            return False
        raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(file)
