"""The way of admitted transactions from the pool to gossip: a bounded queue of hashes."""

import os
import threading
from collections import deque

import numpy as np

from engine.gossip.frames import NOTHING
from engine.pool_rules import PoolNews, PoolStatus
from kernels.layout import U8

HASHES_MAX = 2**18
"""that wait to be pushed; what is beyond is counted, and peers learn of it by inventory"""


class Wake:
    """Wakes a thread that polls `handle`; any thread may call `set`."""

    def __init__(self) -> None:
        """Open the handle."""
        self.handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        """Wake whoever polls."""
        os.eventfd_write(self.handle, 1)

    def clear(self) -> None:
        """Take note of having been woken; the handle is readable then."""
        os.eventfd_read(self.handle)

    def close(self) -> None:
        """Close the handle; nobody calls `set` any more."""
        os.close(self.handle)


class Outbox:
    """Hashes that came into the pool and are to be pushed; any thread may put."""

    def __init__(self) -> None:
        """Start empty."""
        self.dropped = 0
        """hashes for which there was no room"""
        self._parts: deque[U8] = deque()
        self._count = 0
        self._mutex = threading.Lock()
        self._wake: Wake | None = None

    def listen(self, news: PoolNews) -> None:
        """Take what came into the pool; a `Listener` of the pool, called under its lock."""
        if news.status is not PoolStatus.PENDING:
            return
        with self._mutex:
            if self._count + len(news.hashes) > HASHES_MAX:
                self.dropped += len(news.hashes)
                return
            self._parts.append(news.hashes)
            self._count += len(news.hashes)
            if self._wake is not None:
                self._wake.set()

    def set_wake(self, wake: Wake | None) -> None:
        """Wake this from now on; None: nobody."""
        with self._mutex:
            self._wake = wake

    @property
    def count(self) -> int:
        """Hashes that wait to be pushed."""
        return self._count

    def take(self) -> U8:
        """Take all out, (n, 32)."""
        with self._mutex:
            parts = list(self._parts)
            self._parts.clear()
            self._count = 0
        return np.concatenate([NOTHING, *parts])
