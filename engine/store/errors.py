"""What can go wrong between the executor and its disk, as sentences with stable codes.

`StoreFull` leaves everything as it was and may be tried again; `StoreDamaged` names file and byte;
`StoreError` itself is about the home as a whole, or about a store that has failed and must be
opened again. Spec: spec/storage.md#errors.
"""

import errno
from pathlib import Path

from runtime.errors import ExplainedError

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room, no quota, or the process's limit of file size."""


class StoreError(ExplainedError):
    """A home or a store that cannot be used as asked. Codes begin with `store.`"""


class StoreFull(StoreError):
    """There is no room; nothing was written. Code `store.full`; retry when there is room."""


class StoreDamaged(StoreError):
    """Bytes on disk are not those that were written. Code `store.damaged`"""


def full(where: Path, why: str) -> StoreFull:
    """Return the error of a write for which there is no room."""
    return StoreFull(
        "store.full",
        what="there is no room to store this",
        where=str(where),
        why=why,
        what_to_do="free disk space, raise max_disk_bytes, or lower keep_blocks; then try again",
    )


def damaged(where: Path, offset: int, why: str, what_to_do: str | None = None) -> StoreDamaged:
    """Return the error of bytes that are not those that were written."""
    return StoreDamaged(
        "store.damaged",
        what="the stored bytes are not those that were written",
        where=f"{where}, byte {offset}",
        why=why,
        what_to_do=what_to_do
        or "check the disk; put this file back from a copy, or start from an empty home",
    )


def unwritable(where: Path, error: OSError) -> StoreError:
    """Return the error of a home that this process may not read and write."""
    return StoreError(
        "store.unwritable",
        what="the home cannot be opened for writing",
        where=str(where),
        why=error.strerror or str(error),
        what_to_do="give this user write access to the home, or choose another one",
    )


def parent_unknown(where: Path, block_hash: bytes) -> StoreError:
    """Return the error of a block that does not continue what is stored."""
    return StoreError(
        "store.parent_unknown",
        what=f"block {block_hash.hex()} has no stored parent above or at the finalized block",
        where=str(where),
        why="blocks are stored after their parents",
        what_to_do="send its missing ancestors first",
    )


def not_final(where: Path, block_hash: bytes, height: int) -> StoreError:
    """Return the error of a block that cannot become finalized, or head, over the present one."""
    return StoreError(
        "store.not_descendant",
        what=f"block {block_hash.hex()} is not stored as the next after height {height}",
        where=str(where),
        why="finalized blocks are stored ones and follow one another; a head is stored, too",
        what_to_do="send the block and its missing ancestors first",
    )


def store_failed(where: Path, error: BaseException) -> StoreError:
    """Return the error of a store whose disk failed: what is on it is unknown until opened."""
    return StoreError(
        "store.failed",
        what="an earlier write failed and the store takes no further ones",
        where=str(where),
        why=str(error),
        what_to_do="check the disk and start again: what was answered for is still there",
    )
