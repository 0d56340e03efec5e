"""Statuses of the blocks that were asked for last, so that a page of receipts reads no block twice.

They stand at the end of a record with everything that a block changed, and reading it compares all
of it: a page of an account's history may need as many records as it has lines. What is kept is a
copy, a byte per transaction; a view would keep the whole record.
"""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from kernels.layout import U8

STATUSES_BYTES_MAX = 2**24
"""Of all statuses: 167 blocks of 100,000 transactions."""
STATUSES_BLOCKS_MAX = 4_096
"""Of small blocks."""


class StatusKeeper:
    """The statuses that are kept; any thread may ask."""

    def __init__(self) -> None:
        """Keep nothing."""
        self._lock = Lock()
        self._kept: OrderedDict[bytes, U8] = OrderedDict()
        self._kept_bytes = 0

    @property
    def resident_bytes(self) -> int:
        """Memory of what is kept."""
        return self._kept_bytes

    def statuses_of(self, block_hash: bytes, read: Callable[[], U8]) -> U8:
        """Return a block's statuses, (n,) uint8, by `read` if they are not kept; as it raises."""
        with self._lock:
            known = self._kept.get(block_hash)
            if known is not None:
                self._kept.move_to_end(block_hash)
                return known
        found = read().copy()
        with self._lock:
            if block_hash not in self._kept:  # another thread may have been faster
                self._kept[block_hash] = found
                self._kept_bytes += found.nbytes
            while len(self._kept) > STATUSES_BLOCKS_MAX or self._kept_bytes > STATUSES_BYTES_MAX:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return found
