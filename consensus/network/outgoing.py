"""What other threads ask of the mesh: frames to send and orders, bounded, and a way to wake it."""

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Mapping

from consensus.network.addresses import PeerAddresses

FRAMES_MAX = 4_096
"""of each kind that wait for the thread"""
BYTES_MAX = 2**25
"""of each kind"""
PENALTIES_MAX = 1_024
TO_ALL = b""
"""instead of a key: to every member"""

Peers = tuple[frozenset[bytes], dict[bytes, PeerAddresses]]


class Outgoing:
    """Queues between many threads and the one of the mesh; votes and sync apart."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._frames: dict[bool, deque[tuple[bytes, bytes]]] = {True: deque(), False: deque()}
        self._bytes = {True: 0, False: 0}
        self._penalties: deque[tuple[bytes, str]] = deque()
        self._peers: Peers | None = None
        self._counts: dict[str, int] = {}
        self._waker, self.woken = socket.socketpair()
        self._waker.setblocking(False)
        self.woken.setblocking(False)

    def put(self, peer: bytes, frame: bytes, *, is_vote: bool) -> None:
        """Queue a frame, or drop and count it."""
        with self._lock:
            waiting = self._frames[is_vote]
            if len(waiting) >= FRAMES_MAX or self._bytes[is_vote] + len(frame) > BYTES_MAX:
                self._count(f"dropped_outgoing_{'votes' if is_vote else 'sync'}")
                return
            self._bytes[is_vote] += len(frame)
            waiting.append((peer, frame))
        self.wake()

    def take(self, count: int, *, is_vote: bool) -> list[tuple[bytes, bytes]]:
        """Return at most so many frames of a kind, the oldest first, with their peers."""
        with self._lock:
            waiting = self._frames[is_vote]
            taken = [waiting.popleft() for _ in range(min(count, len(waiting)))]
            self._bytes[is_vote] -= sum(len(frame) for _, frame in taken)
        return taken

    def has_more(self) -> bool:
        """Say whether frames wait."""
        return any(self._frames.values())

    def set_peers(self, members: frozenset[bytes], addresses: dict[bytes, PeerAddresses]) -> None:
        """Leave an order; a later one replaces it."""
        with self._lock:
            self._peers = members, addresses
        self.wake()

    def new_peers(self) -> Peers | None:
        """Return the last order, once."""
        with self._lock:
            peers, self._peers = self._peers, None
        return peers

    def penalize(self, peer: bytes, reason: str) -> None:
        """Leave an order to ban a peer."""
        with self._lock:
            if len(self._penalties) >= PENALTIES_MAX:
                self._count("dropped_penalties")
                return
            self._penalties.append((peer, reason))
        self.wake()

    def penalties(self) -> list[tuple[bytes, str]]:
        """Return the orders to ban, once."""
        with self._lock:
            taken = list(self._penalties)
            self._penalties.clear()
        return taken

    def counts(self) -> Mapping[str, int]:
        """Return what was dropped here."""
        with self._lock:
            return dict(self._counts)

    def wake(self) -> None:
        """Let the thread look."""
        # A full pipe says that it will look anyway.
        with contextlib.suppress(BlockingIOError):
            self._waker.send(b"x")

    def slept(self) -> None:
        """Note that the thread is awake."""
        with contextlib.suppress(BlockingIOError):
            self.woken.recv(4_096)

    def close(self) -> None:
        """Give the descriptors back."""
        self._waker.close()
        self.woken.close()

    def _count(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1
