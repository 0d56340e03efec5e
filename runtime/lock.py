"""One process has a folder open: a lock that the system lets go when its holder ends."""

import errno
import fcntl
import os
from pathlib import Path

LOCK_NAME = "LOCK"
HOLDER_BYTES_MAX = 32


class FolderInUse(Exception):
    """Another process holds the lock; `holder` is its process id as text, as far as known."""

    def __init__(self, path: Path, holder: str) -> None:
        """Keep the lock's file and who holds it."""
        super().__init__(f"the process {holder} holds {path}")
        self.path = path
        self.holder = holder


class FolderLock:
    """Keeps every other process out of a folder until it is released or this process ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock; raises FolderInUse, and OSError where the file cannot be written."""
        path = folder / LOCK_NAME
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, HOLDER_BYTES_MAX, 0).decode("ascii", "replace").strip()
            self.release()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FolderInUse(path, holder or "(unknown)") from error
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
