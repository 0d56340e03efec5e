"""The mesh of real sockets: messages arrive, votes are not held up, wrong peers banned."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import pytest
import zmq

from consensus.core import types as t
from consensus.core.codec import encode_message
from consensus.network.addresses import PeerAddresses
from consensus.network.mesh import Mesh, now_ms
from consensus.network.outgoing import BYTES_MAX, FRAMES_MAX, Outgoing
from consensus.network.routes import SYNC_LIMITS, VOTES_FRAME_BYTES_MAX, VOTES_LIMITS
from runtime.keypair import KeyPair
from runtime.links import Link, LinkError, SocketClass

DEADLINE_S = 30
DOMAIN = bytes(32)
PAIRS = [KeyPair.of(bytes([number]) * 32) for number in range(1, 7)]
KEYS = [pair.public_key for pair in PAIRS]
ANYWHERE = "tcp://127.0.0.1:0"


def vote(view: int, kind: t.Kind = t.Kind.NULLIFY) -> t.Vote:
    """Return a vote of a view."""
    pid = bytes(32) if kind == t.Kind.NULLIFY else bytes([1]) * 32
    return t.Vote(
        kind=kind,
        epoch=t.Epoch(0),
        view=t.View(view),
        pid=t.Hash32(pid),
        signer=0,
        signature=t.Signature(bytes(64)),
    )


def certificate(signatures: int) -> t.Certificate:
    """Return a nullification with so many signatures."""
    return t.Certificate(
        kind=t.Kind.NULLIFY,
        epoch=t.Epoch(0),
        view=t.View(1),
        proposal=None,
        validator_count=signatures,
        signers=2**signatures - 1,
        signatures=(t.Signature(bytes(64)),) * signatures,
    )


HASH = t.Hash32(bytes([7]) * 32)
HEADER = t.Header(
    version=1,
    chain_id=1,
    epoch=t.Epoch(0),
    height=t.Height(1),
    parent_hash=HASH,
    timestamp_ms=1,
    proposer=t.PublicKey(KEYS[0]),
    fee_recipient=t.PublicKey(KEYS[0]),
    validator_set_id=HASH,
    payload_commitment=HASH,
    payload_bytes=64,
    transaction_count=0,
    transactions_root=HASH,
    state_hash=HASH,
    receipts_hash=HASH,
)
PROPOSAL = t.Proposal(epoch=t.Epoch(0), view=t.View(1), parent_view=t.View(0), block_hash=HASH)
BIG = certificate(1_024)
MESSAGES: list[t.Message] = [
    vote(1),
    t.Propose(proposal=PROPOSAL, header=HEADER, vote=vote(1, t.Kind.NOTARIZE)),
    certificate(4),
    BIG,
    t.Request(want=t.Want.FINAL),
    t.VotesAnswer(epoch=t.Epoch(0), signer=0, votes=(vote(1), vote(2))),
    t.BlockAnswer(header=HEADER),
    t.RangeAnswer(headers=(HEADER,) * 3, certificate=certificate(4)),
    t.Final(header=HEADER, certificate=certificate(4)),
    t.Evidence(first=vote(1, t.Kind.FINALIZE), second=vote(1)),
]


class Node:
    """A mesh with what it received and reported."""

    def __init__(self, number: int, *, curve: bool = False) -> None:
        """Listen at free ports."""
        self.key = KEYS[number]
        self.received: list[tuple[bytes, t.Message]] = []
        self.reports: list[tuple[str, Mapping[str, object]]] = []
        self.has_room = True
        self.mesh = Mesh(
            pair=PAIRS[number],
            domain=DOMAIN,
            listen_votes=ANYWHERE,
            listen_sync=ANYWHERE,
            on_message=self._take,
            report=lambda event, fields: self.reports.append((event, fields)),
            curve=curve,
        )

    @property
    def addresses(self) -> PeerAddresses:
        """Return where the node listens."""
        mesh = self.mesh
        return PeerAddresses(votes=mesh.votes_address, sync=mesh.sync_address, payloads="")

    def count(self, name: str) -> int:
        """Return a count, 0 where nothing was counted."""
        return self.mesh.counts().get(name, 0)

    def _take(self, peer: t.PeerId, message: t.Message) -> bool:
        if self.has_room:
            self.received.append((peer, message))
        return self.has_room


def wait(until: Callable[[], bool]) -> None:
    """Wait until something holds; fails when it does not after DEADLINE_S."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not until():
        assert time.monotonic() < deadline_s, "this never came true"
        time.sleep(0.005)


Start = Callable[..., list[Node]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts so many connected nodes, which are stopped afterwards."""
    nodes: list[Node] = []

    def make(count: int, *, curve: bool = False) -> list[Node]:
        made = [Node(number, curve=curve) for number in range(count)]
        nodes.extend(made)
        for node in made:
            others = {other.key: other.addresses for other in made if other is not node}
            node.mesh.set_peers(list(others), others)
            node.mesh.start()
        wait(lambda: all_proved(made))
        return made

    yield make
    for node in nodes:
        node.mesh.stop()


def proved(node: Node, nodes: Collection[Node]) -> bool:
    """Say whether a vote reaches all other nodes on the link of votes, and a question on sync."""
    node.mesh.broadcast(vote(1))
    for other in nodes:
        if other is not node:
            node.mesh.send(t.PeerId(other.key), t.Request(want=t.Want.FINAL))
    enough = len(nodes) - 1
    time.sleep(0.02)
    done = node.count("votes.frames_out") >= enough and node.count("sync.frames_in") >= enough
    return done and len(node.mesh.connected()) == enough


def all_proved(nodes: Collection[Node]) -> bool:
    """Let every node say something; say whether it has been heard."""
    found = [proved(node, nodes) for node in nodes]
    return False not in found


def settle(nodes: Collection[Node]) -> None:
    """Forget what was received so far, once nothing more comes."""
    before = -1
    while before != (before := sum(len(node.received) for node in nodes)):
        time.sleep(0.2)
    for node in nodes:
        node.received.clear()


@pytest.fixture
def stranger() -> Iterator[Callable[[Node, SocketClass, int], Link]]:
    """Return a function that opens a link of a key to a node and drives it in a thread."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    links: list[Link] = []

    def dial(node: Node, socket_class: SocketClass, number: int) -> Link:
        is_votes = socket_class == SocketClass.VOTES
        link = Link(
            context=context,
            pair=PAIRS[number],
            domain=DOMAIN,
            socket_class=socket_class,
            bind="",
            limits=VOTES_LIMITS if is_votes else SYNC_LIMITS,
            now_ms=now_ms(),
        )
        links.append(link)
        addresses = node.addresses
        link.set_peers({node.key: addresses.votes if is_votes else addresses.sync})

        def is_open() -> bool:
            turn(link)
            return link.can_send(node.key)

        wait(is_open)
        return link

    yield dial
    for link in links:
        link.close()
    context.term()


def turn(link: Link) -> None:
    """Let a link do what is due."""
    link.receive(1_000, now_ms())
    link.tick(now_ms())


@pytest.mark.parametrize("curve", [False, True])
def test_every_message_reaches_everybody(start: Start, curve: bool) -> None:
    """Four nodes broadcast one message of each type; each arrives once at the other three."""
    nodes = start(4, curve=curve)
    settle(nodes)
    for node in nodes:
        for message in MESSAGES:
            node.mesh.broadcast(message)
    wait(lambda: all(len(node.received) == 3 * len(MESSAGES) for node in nodes))
    for node in nodes:
        for other in nodes:
            if other is not node:
                came = [message for peer, message in node.received if peer == other.key]
                assert sorted(came, key=repr) == sorted(MESSAGES, key=repr)


def test_one_message_reaches_one(start: Start) -> None:
    """What is sent to one peer reaches that one; what is large takes the link for sync."""
    nodes = start(3)
    settle(nodes)
    assert len(encode_message(BIG)) > VOTES_FRAME_BYTES_MAX
    before = nodes[1].count("sync.frames_in")
    nodes[0].mesh.send(t.PeerId(KEYS[1]), BIG)
    wait(lambda: nodes[1].received == [(KEYS[0], BIG)])
    assert nodes[1].count("sync.frames_in") == before + 1
    assert nodes[2].received == []


def test_votes_flow_while_sync_is_flooded(start: Start) -> None:
    """A member that sends as much as it can on sync holds up no vote of anybody."""
    nodes = start(3)
    settle(nodes)
    is_done = threading.Event()
    deadline_s = time.monotonic() + DEADLINE_S

    def flood() -> None:
        while not is_done.is_set():
            nodes[1].mesh.send(t.PeerId(KEYS[0]), MESSAGES[7])

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for view in range(2, 52):
            nodes[2].mesh.broadcast(vote(view))
            expected = (KEYS[2], vote(view))
            while expected not in nodes[0].received[-2_000:]:
                time.sleep(0.001)
                assert time.monotonic() < deadline_s, f"the vote of view {view} never came"
    finally:
        is_done.set()
        thread.join()
    assert nodes[0].count("sync.frames_in") > 50


def test_a_frame_that_does_not_decode_costs_a_ban(
    start: Start, stranger: Callable[[Node, SocketClass, int], Link]
) -> None:
    """Its sender is cut from both links and refused; others are not touched."""
    nodes = start(2)
    nodes[0].mesh.set_peers([KEYS[1], KEYS[4]], {KEYS[1]: nodes[1].addresses})
    wrong = stranger(nodes[0], SocketClass.VOTES, 4)
    assert wrong.send(KEYS[0], b"\x01 is no vote", now_ms())
    for view in range(5):
        wrong.send(KEYS[0], b"\x01 neither is %d" % view, now_ms())
    wait(lambda: nodes[0].count("dropped_undecodable") == 1)

    def is_refused() -> bool:
        turn(wrong)
        return nodes[0].count("votes.refused_banned") > 0

    wait(is_refused)
    banned = [fields for event, fields in nodes[0].reports if event == "peer banned"]
    assert [fields["peer"] for fields in banned] == [KEYS[4].hex()]
    assert KEYS[4] not in nodes[0].mesh.connected()
    wait(lambda: all_proved(nodes))


def test_a_penalized_peer_is_cut(start: Start) -> None:
    """What the core penalizes is banned from both links."""
    nodes = start(2)
    nodes[0].mesh.penalize(t.PeerId(KEYS[1]), "a bad signature")
    wait(lambda: nodes[0].mesh.connected() == frozenset())
    assert nodes[0].count("bans") == 1
    wait(lambda: "peer disconnected" in [event for event, _ in nodes[0].reports])


def test_a_stranger_may_only_ask(
    start: Start, stranger: Callable[[Node, SocketClass, int], Link]
) -> None:
    """A key that is no member asks on sync; its votes are dropped there, and refused on votes."""
    nodes = start(2)
    settle(nodes)
    link = stranger(nodes[0], SocketClass.SYNC, 5)
    request = t.Request(want=t.Want.BOUNDARY, epoch=t.Epoch(3))
    assert link.send(KEYS[0], encode_message(vote(9)), now_ms())
    assert link.send(KEYS[0], encode_message(request), now_ms())
    wait(lambda: nodes[0].received == [(KEYS[5], request)])
    assert nodes[0].count("dropped_of_stranger") == 1
    nodes[0].mesh.send(t.PeerId(KEYS[5]), MESSAGES[8])
    answers: list[tuple[bytes, bytes]] = []

    def is_answered() -> bool:
        answers.extend(link.receive(10, now_ms()))
        return bool(answers)

    wait(is_answered)
    assert answers == [(KEYS[0], encode_message(MESSAGES[8]))]


def test_a_full_inbox_is_counted(start: Start) -> None:
    """A message that the node has no room for is dropped and counted."""
    nodes = start(2)
    settle(nodes)
    nodes[0].has_room = False
    nodes[1].mesh.broadcast(vote(3))
    wait(lambda: nodes[0].count("dropped_inbox_full") == 1)
    assert nodes[0].received == []


def test_a_removed_member_gets_no_more_votes(start: Start) -> None:
    """After `set_peers` a broadcast goes to the members that are left."""
    nodes = start(3)
    settle(nodes)
    nodes[0].mesh.set_peers([KEYS[1]], {KEYS[1]: nodes[1].addresses})
    nodes[0].mesh.broadcast(vote(7))
    wait(lambda: (KEYS[0], vote(7)) in nodes[1].received)
    assert nodes[2].received == []
    assert nodes[0].count("votes.dropped_no_session") == 0


def test_what_waits_to_be_sent_is_bounded() -> None:
    """Frames beyond the number or the bytes are dropped and counted, votes and sync apart."""
    outgoing = Outgoing()
    for _ in range(FRAMES_MAX + 5):
        outgoing.put(b"peer", b"frame", is_vote=True)
    big = bytes(2**20)
    for _ in range(BYTES_MAX // len(big) + 3):
        outgoing.put(b"peer", big, is_vote=False)
    assert outgoing.counts() == {"dropped_outgoing_votes": 5, "dropped_outgoing_sync": 3}
    assert len(outgoing.take(10_000, is_vote=True)) == FRAMES_MAX
    assert len(outgoing.take(10_000, is_vote=False)) == BYTES_MAX // len(big)
    outgoing.put(b"peer", big, is_vote=False)
    assert outgoing.take(1, is_vote=False) == [(b"peer", big)]
    outgoing.close()


def test_wrong_addresses_are_explained_at_once(start: Start) -> None:
    """A bad address of a peer is an error of the caller, not of the thread."""
    (node,) = start(1)
    bad = PeerAddresses(votes="localhost:1", sync="", payloads="")
    with pytest.raises(LinkError):
        node.mesh.set_peers([KEYS[1]], {KEYS[1]: bad})
    with pytest.raises(LinkError):
        Mesh(
            pair=PAIRS[1],
            domain=DOMAIN,
            listen_votes=ANYWHERE,
            listen_sync=node.mesh.sync_address,
            on_message=lambda *_: True,
            report=lambda *_: None,
        )
