"""What goes into the store and comes out of it, as values."""

from concurrent.futures import Future
from dataclasses import dataclass

from engine.store.rows import BlockRow
from kernels.layout import U8, Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalBlock:
    """What finalization takes: a stored block, its write set and its receipts."""

    block_hash: bytes
    changes: Changes
    statuses: U8
    """(n,) uint8, in canonical order"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlock:
    """A block that is on disk; its payload is read when it is asked for."""

    height: int
    block_hash: bytes
    header: bytes
    """400 bytes"""

    @classmethod
    def of(cls, block_hash: bytes, row: BlockRow) -> "StoredBlock":
        """Return what the rows know of a block."""
        return cls(height=row.height, block_hash=block_hash, header=row.header)


class AppendTicket:
    """A block on its way to the disk."""

    def __init__(self, future: "Future[None]", *, is_new: bool) -> None:
        """Wrap the work of the background thread; is_new: the block was not stored before."""
        self._future = future
        self.is_new = is_new

    @property
    def is_over(self) -> bool:
        """Say whether `wait` would return, or raise, at once."""
        return self._future.done()

    def wait(self) -> None:
        """Return when the block is durable; raises StoreFull (nothing was kept) or StoreError."""
        self._future.result()


def durable_ticket() -> AppendTicket:
    """Return the ticket of a block that is durable already."""
    future: Future[None] = Future()
    future.set_result(None)
    return AppendTicket(future, is_new=False)
