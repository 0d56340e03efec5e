"""Foreign bytes at the open sockets of a mesh: raw TCP, plain ZeroMQ, and members gone mad.

Whatever comes, the mesh lives, holds bounded memory and descriptors, hands the node only what
decodes, and the votes of an honest member arrive, during it and afterwards.
"""

import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import zmq

from consensus.core import types as t
from consensus.core.codec import encode_message
from consensus.network.addresses import PeerAddresses
from consensus.network.mesh import Mesh, now_ms
from consensus.network.routes import SYNC_LIMITS, VOTES_LIMITS
from runtime.keypair import KeyPair
from runtime.links import Link, SocketClass
from runtime.links.wire import Challenge, Hello, Ping, Pong, Proof, Ready, Reset, encode_control
from tests.campaign.fuzz import resident_bytes
from tests.campaign.mutate import mutate

DOMAIN = bytes(32)
MEMBERS = 500
"""keys of which a mad member has one until it is banned"""
GROWTH_BYTES_MAX = 2**29
"""of a process that holds the mesh and everybody who speaks to it"""
FILES_MAX = 1_000
CONNECTIONS_MAX = 32
"""of each kind of client at a time"""
WARM_ROUNDS = 50
HONEST_S = 30
"""within which a vote of an honest member must arrive"""
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
UNFINISHED = b"\x03" + (60_000).to_bytes(8, "big") + bytes(60_000)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run came to."""

    inputs: int = 0
    honest_votes: int = 0
    growth_bytes: int = 0
    open_files: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """of the mesh"""
    violations: list[str] = field(default_factory=list)


class Victim:
    """A mesh that is spoken to, and an honest member of it."""

    def __init__(self, pairs: list[KeyPair]) -> None:
        """Start both; the first two pairs are theirs, all are members."""
        self.pairs = pairs
        self.views: set[int] = set()
        self.failures: list[str] = []
        self.mesh = self._mesh(pairs[0])
        self.honest = self._mesh(pairs[1])
        keys = [pair.public_key for pair in pairs]
        self.mesh.set_peers(keys, {keys[1]: _addresses(self.honest)})
        self.honest.set_peers([keys[0]], {keys[0]: _addresses(self.mesh)})
        self.mesh.start()
        self.honest.start()

    def address(self, socket_class: SocketClass) -> str:
        """Return where one of the two sockets listens."""
        is_votes = socket_class == SocketClass.VOTES
        return self.mesh.votes_address if is_votes else self.mesh.sync_address

    def hears(self, view: int) -> bool:
        """Let the honest member vote until the vote arrives; False: it does not."""
        deadline_s = time.monotonic() + HONEST_S
        while view not in self.views and time.monotonic() < deadline_s:
            self.honest.broadcast(_vote(view))
            time.sleep(0.02)
        return view in self.views

    def stop(self) -> None:
        """End both."""
        self.mesh.stop()
        self.honest.stop()

    def _mesh(self, pair: KeyPair) -> Mesh:
        return Mesh(
            pair=pair,
            domain=DOMAIN,
            listen_votes="tcp://127.0.0.1:0",
            listen_sync="tcp://127.0.0.1:0",
            on_message=self._take,
            report=self._report,
        )

    def _take(self, peer: t.PeerId, message: t.Message) -> bool:
        if peer == self.pairs[1].public_key and isinstance(message, t.Vote):
            self.views.add(message.view)
        return True

    def _report(self, event: str, fields: object) -> None:
        if event == "the mesh failed":
            self.failures.append(str(fields))


class Attackers:
    """Everybody who speaks to the victim; each method is one input or a few."""

    def __init__(self, victim: Victim, rng: random.Random) -> None:
        """Begin with no connection."""
        self._victim = victim
        self._rng = rng
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._raw: list[socket.socket] = []
        self._plain: list[zmq.Socket[bytes]] = []
        self._mad: dict[SocketClass, Link] = {}
        self._member = 2
        key, peer = victim.pairs[2].public_key, victim.pairs[0].public_key
        b32, b64 = rng.randbytes(32), rng.randbytes(64)
        self._controls = [
            encode_control(control)
            for control in (
                Hello(socket_class=1, key=key, nonce=b32),
                Hello(socket_class=2, key=b32, nonce=b32),
                Challenge(dialler_nonce=b32, listener_nonce=b32, key=peer),
                Proof(dialler_nonce=b32, listener_nonce=b32, signature=b64),
                Ready(dialler_nonce=b32, listener_nonce=b32, signature=b64),
                Reset(),
                Ping(listener_nonce=b32),
                Pong(listener_nonce=b32),
            )
        ]
        request = t.Request(want=t.Want.FINAL)
        self._frames = [encode_message(_vote(1)), encode_message(request)]

    def one(self) -> None:
        """Do one thing."""
        self._rng.choice((self._raw_bytes, self._plain_message, self._mad_member))()

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._raw:
            connection.close()
        for client in self._plain:
            client.close()
        for link in self._mad.values():
            link.close()
        self._context.term()

    def _class(self) -> SocketClass:
        return self._rng.choice((SocketClass.VOTES, SocketClass.SYNC))

    def _raw_bytes(self) -> None:
        rng = self._rng
        if len(self._raw) >= CONNECTIONS_MAX:
            self._raw.pop(rng.randrange(len(self._raw))).close()
        parts = urlsplit(self._victim.address(self._class()))
        connection = socket.create_connection((parts.hostname, parts.port), timeout=5)
        connection.settimeout(0.05)
        self._raw.append(connection)
        messages = b"".join(bytes([0, len(each)]) + each for each in self._controls)
        beginnings = (GREETING, GREETING + READY, GREETING + READY + messages)
        kind = rng.randrange(4)
        data = mutate(rng, beginnings) if kind < 2 else rng.choice(beginnings)
        if kind == 3:
            data = GREETING + READY + rng.randrange(1, 100) * UNFINISHED
        try:
            connection.sendall(data)
        except OSError:
            # Cut, or not read for the moment: both are as they should be.
            self._raw.remove(connection)
            connection.close()

    def _plain_message(self) -> None:
        rng = self._rng
        if len(self._plain) >= CONNECTIONS_MAX:
            self._plain.pop(rng.randrange(len(self._plain))).close()
        if not self._plain or rng.random() < 0.05:
            client = self._context.socket(zmq.DEALER)
            client.set(zmq.LINGER, 0)
            client.set(zmq.SNDTIMEO, 0)
            client.connect(self._victim.address(self._class()))
            self._plain.append(client)
        client = rng.choice(self._plain)
        for _ in range(rng.randrange(1, 20)):
            message = rng.choice(
                (
                    [b"", rng.choice(self._controls)],
                    [b"", mutate(rng, self._controls)],
                    [mutate(rng, self._frames)],
                    [mutate(rng, self._frames) for _ in range(rng.randrange(1, 6))],
                )
            )
            try:
                client.send_multipart(message)
            except zmq.Again:
                return

    def _mad_member(self) -> None:
        """Prove a member's key and send frames that were changed, until it is banned."""
        rng, socket_class = self._rng, self._class()
        link = self._mad.get(socket_class)
        peer = self._victim.pairs[0].public_key
        if link is None or rng.random() < 0.02:
            if link is not None:
                link.close()
            self._member = 2 + (self._member - 1) % (len(self._victim.pairs) - 2)
            link = self._mad[socket_class] = Link(
                context=self._context,
                pair=self._victim.pairs[self._member],
                domain=DOMAIN,
                socket_class=socket_class,
                bind="",
                limits=VOTES_LIMITS if socket_class == SocketClass.VOTES else SYNC_LIMITS,
                now_ms=now_ms(),
            )
            link.set_peers({peer: self._victim.address(socket_class)})
        link.receive(100, now_ms())
        link.tick(now_ms())
        if link.can_send(peer):
            is_flood = rng.random() < 0.5
            for _ in range(rng.randrange(1, 200)):
                frame = rng.choice(self._frames) if is_flood else mutate(rng, self._frames)
                if frame:
                    link.send(peer, frame, now_ms())


def run(seed: int, *, seconds: float, report: Callable[[str], None] = lambda _: None) -> Tally:
    """Speak to a mesh for so long; the order of what is said is the seed's, the instants are not.

    `report` is told of each violation as it is found.
    """
    tally = Tally()
    rng = random.Random(seed)
    pairs = [KeyPair.of(number.to_bytes(32, "big")) for number in range(1, MEMBERS + 1)]
    victim = Victim(pairs)
    attackers = Attackers(victim, rng)
    stop_at_s = time.monotonic() + seconds
    start_bytes = 0
    rounds = 0
    try:
        while time.monotonic() < stop_at_s and not tally.violations:
            rounds += 1
            for _ in range(50):
                attackers.one()
                tally.inputs += 1
            if not victim.hears(rounds):
                tally.violations.append(f"no vote of an honest member arrived in round {rounds}")
            tally.honest_votes = rounds
            tally.violations += victim.failures
            if rounds == WARM_ROUNDS:
                start_bytes = resident_bytes()
            tally.open_files = max(tally.open_files, open_files())
        tally.growth_bytes = resident_bytes() - start_bytes if start_bytes else 0
        if tally.growth_bytes > GROWTH_BYTES_MAX:
            tally.violations.append(f"memory grew by {tally.growth_bytes} bytes")
        if tally.open_files > FILES_MAX:
            tally.violations.append(f"{tally.open_files} files were open")
        tally.counts = dict(sorted(victim.mesh.counts().items()))
    finally:
        attackers.close()
        victim.stop()
    for violation in tally.violations:
        report(violation)
    return tally


def open_files() -> int:
    """Return how many descriptors this process holds."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _addresses(mesh: Mesh) -> PeerAddresses:
    return PeerAddresses(votes=mesh.votes_address, sync=mesh.sync_address, payloads="")


def _vote(view: int) -> t.Vote:
    return t.Vote(
        kind=t.Kind.NULLIFY,
        epoch=t.Epoch(0),
        view=t.View(view),
        pid=t.ZERO_HASH,
        signer=0,
        signature=t.Signature(bytes(64)),
    )
