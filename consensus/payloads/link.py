"""The socket of payloads: what is needed of a link, and the limits that it gets."""

from collections.abc import Collection, Mapping
from typing import Protocol

import zmq


class PayloadLink(Protocol):
    """What dissemination uses of `runtime.links`: one thread owns it."""

    address: str
    counts: dict[str, int]

    def sockets(self) -> list[zmq.Socket[bytes]]:
        """Return what to poll for reading."""

    def set_peers(self, addresses: Mapping[bytes, str]) -> None:
        """Dial these."""

    def set_members(self, keys: Collection[bytes]) -> None:
        """Give these full quotas."""

    def receive(self, frames_max: int, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Return (peer, frame) of authenticated peers."""

    def send(self, peer: bytes, frame: bytes, now_ms: int) -> bool:
        """Send without waiting; False: dropped."""

    def can_send(self, peer: bytes) -> bool:
        """Say whether `send` would find room."""

    def connected(self) -> frozenset[bytes]:
        """Return who is connected."""

    def ban(self, peer: bytes, until_ms: int) -> None:
        """Refuse a peer for a while."""

    def tick(self, now_ms: int) -> None:
        """Let time pass."""

    def close(self) -> None:
        """Close the sockets."""
