"""Messages of consensus between nodes: a thread with two links, votes and sync.

What decides how fast a view goes on travels on a link of its own, read first in each turn, so that
nothing that is asked for while catching up can hold it up. Methods may be called from any thread;
nothing waits: what does not fit is dropped and counted, and the core repeats what matters.
Spec: spec/network.md#messages-of-consensus.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping

import zmq

from consensus.core.codec import DecodeError, decode_message, encode_message
from consensus.core.types import Message, PeerId
from consensus.network.addresses import PeerAddresses
from consensus.network.outgoing import TO_ALL, Outgoing
from consensus.network.routes import (
    BAN_MS,
    SYNC_LIMITS,
    VOTES_LIMITS,
    goes_on_votes,
    is_of_strangers,
)
from runtime.keypair import KeyPair
from runtime.links import Link, SocketClass, check_address

TICK_MS = 50
"""the longest sleep of the thread"""
VOTES_PER_TURN = 256
SYNC_PER_TURN = 64
OUTGOING_PER_TURN = 256

Report = Callable[[str, Mapping[str, object]], None]
"""event and fields, for a log"""


def now_ms() -> int:
    """Return the time of a clock that never goes back."""
    return time.monotonic_ns() // 1_000_000


class Mesh:
    """The links of one node for votes and for everything else but payloads."""

    def __init__(
        self,
        *,
        pair: KeyPair,
        domain: bytes,
        listen_votes: str,
        listen_sync: str,
        on_message: Callable[[PeerId, Message], bool],
        report: Report,
        curve: bool = False,
    ) -> None:
        """Listen at two addresses ("": nowhere); raises LinkError.

        `on_message` is called in the mesh's thread; False: there is no room, the message is lost.
        `domain`: spec/network.md#handshake. `curve`: encrypt on loopback, too.
        """
        self._on_message = on_message
        self._report = report
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        opened: list[Link] = []
        try:
            for socket_class, bind, limits in (
                (SocketClass.VOTES, listen_votes, VOTES_LIMITS),
                (SocketClass.SYNC, listen_sync, SYNC_LIMITS),
            ):
                link = Link(
                    context=self._context,
                    pair=pair,
                    domain=domain,
                    socket_class=socket_class,
                    bind=bind,
                    limits=limits,
                    now_ms=now_ms(),
                    curve=curve,
                )
                opened.append(link)
        except BaseException:
            for link in opened:
                link.close()
            self._context.term()
            raise
        self._votes, self._sync = opened
        self.votes_address = self._votes.address
        self.sync_address = self._sync.address
        self._own_key = pair.public_key
        self._members: frozenset[bytes] = frozenset()
        self._addresses: dict[bytes, PeerAddresses] = {}
        self._shown: frozenset[bytes] = frozenset()
        self._shown_by_link: dict[str, frozenset[bytes]] = {
            "votes": frozenset(),
            "sync": frozenset(),
        }
        self._banned_in_turn: set[bytes] = set()
        """whose frames may have been read already"""
        self._outgoing = Outgoing()
        self._counts: dict[str, int] = {}
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mesh", daemon=True)

    def start(self) -> None:
        """Begin to send and to receive."""
        self._thread.start()

    def stop(self) -> None:
        """Close both links and end the thread; what is queued is lost."""
        if self._context.closed:
            return
        self._is_stopping.set()
        self._outgoing.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._votes.close()
        self._sync.close()
        self._context.term()
        self._outgoing.close()

    def set_peers(
        self, members: Collection[bytes], addresses: Mapping[bytes, PeerAddresses]
    ) -> None:
        """Send to these members from now on, and dial who has an address.

        `members`: the sets of this epoch and the next, without oneself. `addresses` may hold more:
        peers to sync from, with whom no votes are exchanged. "" stands for no address. Raises
        LinkError for what is no address.
        """
        for each in addresses.values():
            for address in filter(None, (each.votes, each.sync)):
                check_address(address)
        self._outgoing.set_peers(frozenset(members) - {self._own_key}, dict(addresses))

    def send(self, peer: PeerId, message: Message) -> None:
        """Send a message to one peer."""
        self._put(peer, message)

    def broadcast(self, message: Message) -> None:
        """Send a message to every member."""
        self._put(TO_ALL, message)

    def penalize(self, peer: PeerId, reason: str) -> None:
        """Ban a peer from both links for BAN_MS."""
        self._outgoing.penalize(peer, reason)

    def counts(self) -> Mapping[str, int]:
        """Return what has been counted so far: `votes.NAME` and `sync.NAME` of the links, own."""
        votes = {f"votes.{name}": count for name, count in self._votes.counts.copy().items()}
        sync = {f"sync.{name}": count for name, count in self._sync.counts.copy().items()}
        return {**votes, **sync, **self._counts.copy(), **self._outgoing.counts()}

    def connected(self) -> frozenset[bytes]:
        """Return the keys that are connected on either link, as of the last turn."""
        return self._shown

    def connected_by_link(self) -> Mapping[str, frozenset[bytes]]:
        """Return the same for each link: `votes` and `sync`."""
        return self._shown_by_link

    def _put(self, peer: bytes, message: Message) -> None:
        frame = encode_message(message)
        self._outgoing.put(peer, frame, is_vote=goes_on_votes(message, len(frame)))

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_stopping.is_set():
                self._turn()
        except BaseException as error:
            self._report("the mesh failed", {"error": f"{type(error).__name__}: {error}"})
            raise

    def _turn(self) -> None:
        """Wait for work, at most TICK_MS, and do some of each kind."""
        self._wait()
        now = now_ms()
        self._banned_in_turn.clear()
        self._take_orders(now)
        for is_vote, link, count in (
            (True, self._votes, VOTES_PER_TURN),
            (False, self._sync, SYNC_PER_TURN),
        ):
            for peer, frame in link.receive(count, now):
                self._take(peer, frame, now, is_vote=is_vote)
            for to, frame in self._outgoing.take(OUTGOING_PER_TURN, is_vote=is_vote):
                for peer in self._members if to == TO_ALL else (to,):
                    self._send(peer, frame, now, is_vote=is_vote)
            link.tick(now)
        self._show()

    def _wait(self) -> None:
        poller = zmq.Poller()
        poller.register(self._outgoing.woken, zmq.POLLIN)
        for link in (self._votes, self._sync):
            for link_socket in link.sockets():
                poller.register(link_socket, zmq.POLLIN)
        poller.poll(0 if self._outgoing.has_more() else TICK_MS)
        self._outgoing.slept()

    def _take_orders(self, now: int) -> None:
        peers = self._outgoing.new_peers()
        if peers is not None:
            self._members, self._addresses = peers
            self._votes.set_members(self._members)
            self._sync.set_members(self._members)
            votes = {key: each.votes for key, each in self._addresses.items() if each.votes}
            sync = {key: each.sync for key, each in self._addresses.items() if each.sync}
            self._votes.set_peers({key: votes[key] for key in sorted(self._members & votes.keys())})
            self._sync.set_peers(sync)
        for peer, reason in self._outgoing.penalties():
            self._ban(peer, reason, now)

    def _send(self, peer: bytes, frame: bytes, now: int, *, is_vote: bool) -> None:
        """Send a frame; what belongs on votes takes the other link where that one is closed."""
        if is_vote and (peer in self._members and self._votes.can_send(peer)):
            self._votes.send(peer, frame, now)
        else:
            self._sync.send(peer, frame, now)

    def _take(self, peer: bytes, frame: bytes, now: int, *, is_vote: bool) -> None:
        """Hand a frame's message to the node."""
        if peer in self._banned_in_turn:
            self._count("dropped_banned")
            return
        try:
            message = decode_message(frame)
        except DecodeError as error:
            self._count("dropped_undecodable")
            self._ban(peer, str(error), now)
            return
        is_known = is_vote or peer in self._members or peer in self._addresses
        if not is_known and not is_of_strangers(message):
            self._count("dropped_of_stranger")
        elif not self._on_message(PeerId(peer), message):
            self._count("dropped_inbox_full")

    def _ban(self, peer: bytes, reason: str, now: int) -> None:
        self._count("bans")
        self._banned_in_turn.add(peer)
        self._report("peer banned", {"peer": peer.hex(), "reason": reason, "ban_ms": BAN_MS})
        self._votes.ban(peer, now + BAN_MS)
        self._sync.ban(peer, now + BAN_MS)

    def _show(self) -> None:
        votes, sync = self._votes.connected(), self._sync.connected()
        self._shown_by_link = {"votes": votes, "sync": sync}
        connected = votes | sync
        for key in sorted(connected - self._shown):
            self._report("peer connected", {"peer": key.hex()})
        for key in sorted(self._shown - connected):
            self._report("peer disconnected", {"peer": key.hex()})
        self._shown = connected

    def _count(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1
