"""One process has a folder open: a lock that the system lets go when its holder ends."""

import errno
import fcntl
import os
from pathlib import Path

LOCK_NAME = "LOCK"
HOLDER_BYTES_MAX = 32
UNKNOWN = "(unknown)"
"""instead of a holder that has not written its process id yet"""


class FolderInUse(Exception):
    """Another process holds the lock; `holder` is its process id as text, as far as known."""

    def __init__(self, path: Path, holder: str) -> None:
        """Keep the lock's file and who holds it."""
        super().__init__(f"the process {holder} holds {path}")
        self.path = path
        self.holder = holder


def holder_of(folder: Path) -> str:
    """Return which process holds the lock of a folder, as text; empty if none does.

    What stands in the file alone says nothing: it outlives its writer, and process ids come again.
    The lock is had for a moment, together with whoever else asks. Raises OSError where the file is
    not there or cannot be read.
    """
    file = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named(file)
    finally:
        os.close(file)
    return ""


def _named(file: int) -> str:
    """Return the process id that stands in a lock's file."""
    return os.pread(file, HOLDER_BYTES_MAX, 0).decode("ascii", "replace").strip() or UNKNOWN


class FolderLock:
    """Keeps every other process out of a folder until it is released or this process ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock; raises FolderInUse, and OSError where the file cannot be written."""
        path = folder / LOCK_NAME
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _named(self._file)
            self.release()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FolderInUse(path, holder) from error
            raise
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def __enter__(self) -> "FolderLock":
        """Return the lock, which is held already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self.release()

    def release(self) -> None:
        """Let others in; does nothing the second time."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
