"""Files that a crash leaves whole or not at all, and the calls that they are made of.

A file is written under another name, synced, and given its name; then the folder is synced, or the
name itself could be lost. Whatever else stands in a file is its owner's business.
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WRITE_PARTS_MAX = 512
"""Buffers of one write; the kernel takes 1,024."""
TEMPORARY = ".tmp"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def write_all(file: int, parts: Sequence[bytes | memoryview], offset: int) -> None:
    """Write all parts one after the other from `offset` on, whatever a single call takes."""
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    while views:
        done = os.pwritev(file, views[:WRITE_PARTS_MAX], offset)
        offset += done
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if done:
            views[0] = views[0][done:]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable that somebody else has written."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def whole_file(path: Path, *, suffix: str = TEMPORARY, is_durable: bool = True) -> Iterator[int]:
    """Yield an open file that takes the place of `path` when the block is left without an error.

    suffix: of the name meanwhile, for the user alone. Raises OSError.
    """
    temporary = path.with_name(f"{path.name}{suffix}")
    file = os.open(temporary, _FLAGS, 0o600)
    try:
        try:
            yield file
            if is_durable:
                os.fsync(file)
        finally:
            os.close(file)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_folder(path.parent)


def write_file(
    path: Path,
    parts: Sequence[bytes | memoryview],
    *,
    suffix: str = TEMPORARY,
    is_durable: bool = True,
) -> None:
    """Write a file in place of what is there. Raises OSError."""
    with whole_file(path, suffix=suffix, is_durable=is_durable) as file:
        write_all(file, parts, 0)


def create_file(path: Path, data: bytes) -> None:
    """Write a file for this user alone where none is. Raises FileExistsError, other OSErrors."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    file = os.open(temporary, _FLAGS | os.O_EXCL, 0o600)
    try:
        try:
            write_all(file, [data], 0)
            os.fsync(file)
        finally:
            os.close(file)
        # A link, unlike a rename, fails where the name is taken meanwhile.
        os.link(temporary, path)
    finally:
        temporary.unlink()
    sync_folder(path.parent)
