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

    def page(self, place: int, count_max: int) -> tuple[U8, int]:
        """Return the first hashes that wait from a place on, (m, 32), and the next place."""
        rows = self._pool.rows
        with self._pool.lock:
            count = int(rows.counts[pending_rows.ROWS])
            arrived = rows.links[:count, pending_rows.ARRIVED]
            numbers = np.flatnonzero((rows.rank[:count] != 0) & (arrived >= np.uint64(place)))
            places = arrived[numbers]
            following = 0
            if len(numbers) > count_max:
                order = np.argpartition(places, count_max)
                following = int(places[order[count_max]])
                numbers, places = numbers[order[:count_max]], places[order[:count_max]]
            hashes = rows.hashes[numbers[np.argsort(places, kind="stable")]].view(np.uint8)
        return hashes, following
