"""A link without admission: real sockets, and every peer is who its routing id says."""

from collections.abc import Collection, Mapping

import zmq

from runtime.keypair import KeyPair


class PlainLink:
    """Keeps the promises of `PayloadLink` among honest peers."""

    def __init__(
        self,
        *,
        context: "zmq.Context[zmq.Socket[bytes]]",
        pair: KeyPair,
        domain: bytes,
        bind: str,
        payload_bytes_max: int,
        now_ms: int,
    ) -> None:
        """Bind."""
        self._context, self._key = context, pair.public_key
        self._router = self._socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.bind(bind)
        self.address = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.counts: dict[str, int] = {}
        self._dealers: dict[bytes, zmq.Socket[bytes]] = {}
        self._banned: set[bytes] = set()

    def _socket(self, kind: int) -> "zmq.Socket[bytes]":
        made = self._context.socket(kind)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.SNDHWM, 24)
        made.setsockopt(zmq.RCVHWM, 24)
        return made

    def sockets(self) -> "list[zmq.Socket[bytes]]":
        """Return what to poll for reading."""
        return [self._router]

    def set_peers(self, addresses: Mapping[bytes, str]) -> None:
        """Dial these."""
        for key, address in addresses.items():
            if key not in self._dealers:
                dealer = self._dealers[key] = self._socket(zmq.DEALER)
                dealer.setsockopt(zmq.ROUTING_ID, b"k" + self._key)
                dealer.connect(address)

    def set_members(self, keys: Collection[bytes]) -> None:
        """Every peer has full quotas."""

    def receive(self, frames_max: int, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Return (peer, frame)."""
        found: list[tuple[bytes, bytes]] = []
        while len(found) < frames_max and self._router.poll(0):
            name, frame = self._router.recv_multipart()
            if name[1:] not in self._banned:
                found.append((name[1:], frame))
        return found

    def send(self, peer: bytes, frame: bytes, now_ms: int) -> bool:
        """Send without waiting."""
        if not self.can_send(peer):
            return False
        self._dealers[peer].send(frame, zmq.NOBLOCK)
        return True

    def can_send(self, peer: bytes) -> bool:
        """Say whether `send` would find room."""
        dealer = self._dealers.get(peer)
        return dealer is not None and bool(dealer.poll(0, zmq.POLLOUT))

    def connected(self) -> frozenset[bytes]:
        """Return who is dialled and not banned."""
        return frozenset(self._dealers) - self._banned

    def ban(self, peer: bytes, until_ms: int) -> None:
        """Refuse a peer."""
        self._banned.add(peer)

    def tick(self, now_ms: int) -> None:
        """Nothing depends on time here."""

    def close(self) -> None:
        """Close the sockets."""
        for dealer in self._dealers.values():
            dealer.close()
        self._router.close()
