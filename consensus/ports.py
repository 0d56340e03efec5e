"""What a node needs of its network, as it sees it: messages, payloads, and where peers are.

`network/mesh.py` and `payloads/` are the real ones; a test may connect nodes within one process.
Everything here may be called from any thread and never blocks.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from consensus.core.events import FetchPayload, PushPayload
from consensus.core.types import Hash32, Message, PeerId
from consensus.network.addresses import PeerAddresses


class Network(Protocol):
    """Carries messages between authenticated peers; may lose any of them."""

    def start(self) -> None:
        """Begin to carry."""

    def stop(self) -> None:
        """End; what is sent afterwards is lost."""

    def set_peers(
        self, members: Collection[bytes], addresses: Mapping[bytes, PeerAddresses]
    ) -> None:
        """Say who the validators of this epoch and the next are, oneself excepted, and where."""

    def send(self, peer: PeerId, message: Message) -> None:
        """Send to one."""

    def broadcast(self, message: Message) -> None:
        """Send to all members."""

    def penalize(self, peer: PeerId, reason: str) -> None:
        """Ban for a while."""

    def counts(self) -> Mapping[str, int]:
        """Return counters by name; `dropped_REASON` are those of lost messages."""

    def connected(self) -> frozenset[bytes]:
        """Return the keys of the peers at the other end of a connection."""

    def connected_by_link(self) -> Mapping[str, frozenset[bytes]]:
        """Return the same for each link: `votes` and `sync`."""


class PayloadTransfer(Protocol):
    """Holds payloads, pushes and fetches them, every chunk checked."""

    def start(self) -> None:
        """Begin to carry."""

    def stop(self) -> None:
        """End."""

    def set_peers(
        self, members: Collection[bytes], addresses: Mapping[bytes, PeerAddresses]
    ) -> None:
        """As Network's."""

    def hold(self, commitment: Hash32, payload: bytes) -> None:
        """Keep bytes that were built here."""

    def get(self, commitment: Hash32) -> bytes | None:
        """Return held bytes."""

    def drop(self, commitment: Hash32) -> None:
        """Neither hold nor fetch them any more."""

    def push(self, effect: PushPayload) -> None:
        """Push to all members."""

    def fetch(self, effect: FetchPayload) -> None:
        """Fetch; PayloadArrived or PayloadFailed follows."""

    def penalize(self, peer: PeerId, reason: str) -> None:
        """Ban for a while."""

    def counts(self) -> Mapping[str, int]:
        """As Network's."""

    def connected(self) -> frozenset[bytes]:
        """As Network's."""
