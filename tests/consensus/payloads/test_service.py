"""The threads of dissemination, over real sockets on loopback."""

import queue
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from consensus.core.events import FetchPayload, PayloadArrived, PayloadFailed, PushPayload
from consensus.core.types import Hash32, PeerId
from consensus.network.addresses import PeerAddresses
from consensus.payloads import Payloads
from consensus.payloads.chunks import CHUNK_BYTES, tree_of
from consensus.payloads.service import ReadStored
from runtime.keypair import KeyPair

WAIT_S = 30
PAYLOAD_BYTES_MAX = 80 * CHUNK_BYTES
BLOCK = Hash32(b"b" * 32)
Reports = list[tuple[str, Mapping[str, object]]]


def address(name: str) -> PeerAddresses:
    """Return where a peer listens."""
    return PeerAddresses(votes="", sync="", payloads=name)


def make_payloads(
    number: int,
    *,
    events: queue.Queue[PayloadArrived | PayloadFailed],
    payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    read_stored: ReadStored = lambda block_hash, commitment: None,
    reports: Reports | None = None,
    curve: bool = False,
) -> Payloads:
    """Return the dissemination of the node with this number, bound to a free port."""
    kept: Reports = [] if reports is None else reports
    return Payloads(
        pair=KeyPair.of(bytes((number,)) * 32),
        domain=b"d" * 32,
        listen="tcp://127.0.0.1:0",
        payload_bytes_max=payload_bytes_max,
        held_bytes_max=5 * payload_bytes_max + 2**21,
        read_stored=read_stored,
        on_event=events.put,
        report=lambda name, fields: kept.append((name, fields)),
        curve=curve,
    )


class Peer:
    """One node's dissemination, its executor's payloads, and its events."""

    def __init__(self, number: int, *, curve: bool = False) -> None:
        """Bind."""
        self.pair = KeyPair.of(bytes((number,)) * 32)
        self.stored: dict[bytes, bytes] = {}
        self.events: queue.Queue[PayloadArrived | PayloadFailed] = queue.Queue()
        self.reports: Reports = []
        self.gate = threading.Event()
        self.gate.set()
        self.payloads = make_payloads(
            number,
            events=self.events,
            read_stored=self.read,
            reports=self.reports,
            curve=curve,
        )

    def read(self, block_hash: Hash32, commitment: Hash32) -> bytes | None:
        """Answer as an executor, when it is let."""
        assert self.gate.wait(WAIT_S)
        return self.stored.get(commitment)

    def fetch(self, commitment: Hash32, payload_bytes: int, *peers: "Peer") -> None:
        """Begin a fetch."""
        self.payloads.fetch(
            FetchPayload(
                block_hash=BLOCK,
                payload_commitment=commitment,
                payload_bytes=payload_bytes,
                peers=tuple(PeerId(peer.pair.public_key) for peer in peers),
            )
        )


@pytest.fixture
def peers(request: pytest.FixtureRequest) -> Iterator[list[Peer]]:
    """Yield four peers, connected with each other; with the parameter True by CURVE."""
    curve = getattr(request, "param", False)
    made = [Peer(number, curve=curve) for number in range(1, 5)]
    addresses = {p.pair.public_key: address(p.payloads.payloads_address) for p in made}
    for peer in made:
        peer.payloads.set_peers(addresses.keys() - {peer.pair.public_key}, addresses)
        peer.payloads.start()
    yield made
    for peer in made:
        peer.gate.set()
        peer.payloads.stop()
        assert not [name for name, _ in peer.reports if name == "payloads_failed"]


def push(peer: Peer, payload: bytes) -> Hash32:
    """Push a payload to everybody."""
    commitment = tree_of(payload).commitment
    peer.payloads.push(
        PushPayload(block_hash=BLOCK, payload_commitment=commitment, payload_bytes=len(payload))
    )
    return commitment


@pytest.mark.parametrize("peers", [False, True], indirect=True, ids=["plain", "curve"])
def test_a_push_arrives_at_all(peers: list[Peer], rng: np.random.Generator) -> None:
    """20 MB reach three peers whole; what was dropped still comes back from the cache."""
    payload = rng.bytes(76 * CHUNK_BYTES + 77)
    leader, *others = peers
    leader.payloads.hold(tree_of(payload).commitment, payload)
    commitment = push(leader, payload)
    for other in others:
        other.fetch(commitment, len(payload), leader)
    for other in others:
        event = other.events.get(timeout=WAIT_S)
        assert event == PayloadArrived(payload_commitment=commitment)
        assert other.payloads.get(commitment) == payload
        other.payloads.drop(commitment)
        assert other.payloads.get(commitment) is None
        other.fetch(commitment, len(payload))
        assert other.events.get(timeout=WAIT_S) == event
        assert other.events.empty()


def test_a_slow_executor_holds_up_nobody(peers: list[Peer], rng: np.random.Generator) -> None:
    """While one payload is being read back, others are served; then that one is, too."""
    stored, held = rng.bytes(3 * CHUNK_BYTES), rng.bytes(CHUNK_BYTES + 1)
    server, asker, other, _ = peers
    in_executor = tree_of(stored).commitment
    server.stored[in_executor] = stored
    server.gate.clear()
    asker.fetch(in_executor, len(stored), server)
    commitment = tree_of(held).commitment
    server.payloads.hold(commitment, held)
    other.fetch(commitment, len(held), server)
    arrived = other.events.get(timeout=WAIT_S)
    assert arrived == PayloadArrived(payload_commitment=commitment)
    assert asker.events.empty()
    server.gate.set()
    event = asker.events.get(timeout=WAIT_S)
    while event == PayloadFailed(payload_commitment=in_executor):  # a very slow machine
        asker.fetch(in_executor, len(stored), server)
        event = asker.events.get(timeout=WAIT_S)
    assert asker.payloads.get(in_executor) == stored


def test_a_restarted_leader_pushes_what_its_executor_has(
    peers: list[Peer], rng: np.random.Generator
) -> None:
    """A push of bytes that are not held reads them back first."""
    payload = rng.bytes(2 * CHUNK_BYTES)
    leader, *others = peers
    leader.stored[tree_of(payload).commitment] = payload
    commitment = push(leader, payload)
    for other in others:
        other.fetch(commitment, len(payload))
        assert other.events.get(timeout=WAIT_S) == PayloadArrived(payload_commitment=commitment)


def test_nobody_has_it(peers: list[Peer]) -> None:
    """A fetch of what no peer has fails once; the executor of each was asked."""
    peers[0].fetch(Hash32(b"n" * 32), 5 * CHUNK_BYTES, peers[1])
    event = peers[0].events.get(timeout=WAIT_S)
    assert event == PayloadFailed(payload_commitment=Hash32(b"n" * 32))
    assert peers[0].payloads.counts()["fetches_failed"] == 1
    assert peers[0].payloads.counts()["payloads"] == 0


def test_bytes_under_another_commitment_are_refused(peers: list[Peer]) -> None:
    """What the own executor hands over is compared with what it says: a push bans no one."""
    with pytest.raises(ValueError, match="do not have commitment"):
        peers[0].payloads.hold(Hash32(b"c" * 32), b"bytes")
    assert peers[0].payloads.get(Hash32(b"c" * 32)) is None


def test_a_banned_peer_is_heard_no_more(peers: list[Peer], rng: np.random.Generator) -> None:
    """`penalize` ends the connection."""
    leader, other, *_ = peers
    other.payloads.penalize(leader.pair.public_key, "it lied")
    payload = rng.bytes(CHUNK_BYTES)
    leader.payloads.hold(tree_of(payload).commitment, payload)
    while leader.pair.public_key in other.payloads.connected():
        threading.Event().wait(0.01)
    other.fetch(tree_of(payload).commitment, len(payload), leader)
    event = other.events.get(timeout=WAIT_S)
    assert event == PayloadFailed(payload_commitment=tree_of(payload).commitment)
    assert ("payload_peer_banned", {"peer": leader.pair.public_key.hex(), "reason": "it lied"}) in (
        other.reports
    )


def test_what_was_never_started_stops() -> None:
    """Sockets are closed without a thread."""
    Peer(9).payloads.stop()
