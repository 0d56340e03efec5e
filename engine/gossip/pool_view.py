"""What gossip reads of the pool, each under the pool's lock and in one piece."""

import numpy as np
from numpy.typing import NDArray

from engine.mempool import Mempool
from kernels import pending_rows
from kernels.layout import NO_SLOT, U8


class MempoolView:
    """A `PoolView` over the pool of this node."""

    def __init__(self, pool: Mempool) -> None:
        """Read this pool."""
        self._pool = pool

    def waits(self, hashes: U8) -> NDArray[np.bool_]:
        """Say for each of (n, 32) hashes whether it waits."""
        found: NDArray[np.bool_] = self._pool.find(hashes) != NO_SLOT
        return found

    def find(self, hashes: U8) -> tuple[U8, U8]:
        """Return those of (n, 32) hashes that wait, (m, 32), and their records, (m, 192)."""
        with self._pool.lock:
            rows = self._pool.find(hashes)
            is_here = rows != NO_SLOT
            records = self._pool.rows.words[rows[is_here]].view(np.uint8)
        return hashes[is_here], records

    def page(self, place: int, count_max: int) -> U8:
        """Return the lowest hashes that wait from a place on, ascending by place, (m, 32)."""
        rows = self._pool.rows
        with self._pool.lock:
            count = int(rows.counts[pending_rows.ROWS])
            is_wanted = (rows.rank[:count] != 0) & (rows.hashes[:count, 0] >= np.uint64(place))
            numbers = np.flatnonzero(is_wanted)
            places = rows.hashes[numbers, 0]
            if len(numbers) > count_max:
                lowest = np.argpartition(places, count_max)[:count_max]
                numbers, places = numbers[lowest], places[lowest]
            return rows.hashes[numbers[np.argsort(places, kind="stable")]].view(np.uint8)
