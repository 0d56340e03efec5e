"""A link: one class of socket of one node, authenticated, bounded, never waiting.

One bound ROUTER for those who dial us, one DEALER for each peer that we dial. Frames come only
from peers that proved an Ed25519 key, are sent without waiting, and are dropped with a count where
a queue, a quota or a limit says so. Not thread-safe: one thread owns a link.
Spec: spec/network.md. The parts: `handshake.py`, `admission.py`, `quotas.py`, `watch.py` (rules),
`listening.py`, `dialled.py`, `sockets.py`, `curve.py` (sockets).
"""

from collections.abc import Collection, Iterable, Mapping

import zmq

from runtime.keypair import KeyPair
from runtime.links.admission import Admission, Refused
from runtime.links.curve import curve_key
from runtime.links.dialled import Dialled
from runtime.links.handshake import Identity
from runtime.links.limits import WATCH_MS, LinkLimits
from runtime.links.listening import Listening
from runtime.links.quotas import Quotas
from runtime.links.sockets import Context, Raw, Socket, check_address, is_plain
from runtime.links.watch import Watch
from runtime.links.wire import DOMAIN_BYTES

MESSAGES_PER_TURN = 16
"""read of one socket before the next one has its turn"""
KERNEL_BYTES = 2**24
"""what the kernel and libzmq's buffers may hold of a connection beside its queue"""


class Link:
    """One class of socket of one node. Only one thread may use it, `counts` excepted."""

    def __init__(
        self,
        *,
        context: Context,
        pair: KeyPair,
        domain: bytes,
        socket_class: int,
        bind: str,
        limits: LinkLimits,
        members: Iterable[bytes] = (),
        now_ms: int,
        curve: bool = False,
    ) -> None:
        """Listen at `bind` (port 0: a free one; "": nowhere) and dial nobody; raises LinkError.

        `domain`: 32 bytes, see spec/network.md#handshake. `curve`: encrypt on loopback, too.
        """
        assert len(domain) == DOMAIN_BYTES, len(domain)
        self._context = context
        self._limits = limits
        self._always_curve = curve
        self._now_ms = now_ms
        self._watched_ms = now_ms
        self._turn = 0
        self._identity = Identity(pair=pair, domain=domain, socket_class=socket_class)
        self._admission = Admission(
            own_key=pair.public_key, limits=limits, members=frozenset(members)
        )
        self._quotas = Quotas(limits)
        self._watch = Watch(
            connections_max=limits.peers_max,
            debt_bytes_max=limits.queue_frames * limits.frame_bytes_max + KERNEL_BYTES,
        )
        self._addresses: dict[bytes, str] = {}
        self._dialled: dict[bytes, Dialled] = {}
        self.counts: dict[str, int] = dict.fromkeys(
            ("frames_in", "frames_out", "bytes_in", "bytes_out"), 0
        )
        self._listening = self._listen(bind) if bind else None
        self.address = "" if self._listening is None else self._listening.address
        """the bound one"""

    def sockets(self) -> list[Socket]:
        """Return what to poll for reading; may change with `set_peers`, `ban` and `tick`."""
        bound = [] if self._listening is None else [self._listening.socket]
        return bound + [dialled.socket for dialled in self._dialled.values()]

    def set_peers(self, addresses: Mapping[bytes, str]) -> None:
        """Dial these keys at these addresses, hang up on all others; raises LinkError."""
        for address in addresses.values():
            check_address(address)
        self._addresses = dict(addresses)
        self._addresses.pop(self._identity.pair.public_key, None)
        self._admission.dialled = frozenset(self._addresses)
        for key, dialled in list(self._dialled.items()):
            if self._addresses.get(key) != dialled.address:
                self._hang_up(key)
        self._dial_missing()
        self._admission_changed()

    def set_members(self, keys: Collection[bytes]) -> None:
        """Give these keys the quota of members; the others are strangers.

        A key that left is cut where strangers are refused, unless we dial it.
        """
        self._admission.set_members(keys)
        self._admission_changed()

    def receive(self, frames_max: int, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Read at most so many messages, of all sockets in turn; return (key of the peer, frame).

        What is not returned was control, or is counted in `counts`.
        """
        self._now_ms = now_ms
        frames: list[tuple[bytes, bytes]] = []
        left = frames_max
        sources = self._readable()
        while sources and left > 0:
            still: list[tuple[bytes, Listening | Dialled]] = []
            for peer, source in sources:
                share = min(left, MESSAGES_PER_TURN)
                read = self._read_some(source, peer, share, frames)
                left -= read
                if read == share:
                    still.append((peer, source))
            sources = still
        return frames

    def send(self, peer: bytes, frame: bytes, now_ms: int) -> bool:
        """Send a frame without waiting; False: it was dropped, and counted by reason."""
        assert frame, "a frame has a byte or more"
        self._now_ms = now_ms
        if len(frame) > self._limits.frame_bytes_max:
            return self._not_sent("too_large")
        dialled = self._dialled.get(peer)
        if dialled is not None and dialled.is_open:
            failure = dialled.send(frame)
        elif self._listening is not None:
            failure = self._listening.send(peer, frame, now_ms)
        else:
            failure = "no_session"
        if failure is not None:
            return self._not_sent(failure)
        self._count("frames_out")
        self._count("bytes_out", len(frame))
        return True

    def can_send(self, peer: bytes) -> bool:
        """Say whether a frame has a way now; that of somebody who dialled us may be full."""
        dialled = self._dialled.get(peer)
        if dialled is not None and dialled.is_open:
            return dialled.can_send()
        return self._listening is not None and self._listening.has(peer)

    def connected(self) -> frozenset[bytes]:
        """Return the keys that have proved themselves, in either direction."""
        keys = {key for key, dialled in self._dialled.items() if dialled.is_open}
        if self._listening is not None:
            keys.update(self._listening.peers())
        return frozenset(keys)

    def sessions(self) -> dict[bytes, tuple[bytes, bytes]]:
        """Return what names the sessions of each connected key, empty where there is none.

        The first is that of the connection that we dialled, the second of the one that it did. With
        another name it is another connection: what was on its way in the earlier one is lost.
        """
        dialled, listening = self._dialled, self._listening
        return {
            key: (
                dialled[key].session if key in dialled else b"",
                b"" if listening is None else listening.session_of(key),
            )
            for key in self.connected()
        }

    def ban(self, peer: bytes, until_ms: int) -> None:
        """Cut a peer and refuse it until then."""
        self._admission.bans.add(peer, until_ms)
        self._count("bans")
        if peer in self._dialled:
            self._hang_up(peer)
        self._admission_changed()

    def tick(self, now_ms: int) -> None:
        """Do what is due: handshakes, pings, ends of bans. Call it every 200 ms or sooner."""
        self._now_ms = now_ms
        if self._admission.bans.tick(now_ms):
            self._dial_missing()
            self._admission_changed()
        for dialled in self._dialled.values():
            dialled.tick(now_ms)
        if self._listening is not None:
            self._count("ended_silent", self._listening.tick(now_ms))
        if now_ms >= self._watched_ms + WATCH_MS:
            self._watched_ms = now_ms
            self._quotas.tick(now_ms)
            for reason, count in self._watch.tick(now_ms).items():
                self._count(reason, count)

    def close(self) -> None:
        """Close every socket; what is queued is lost."""
        for key in list(self._dialled):
            self._hang_up(key)
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _listen(self, address: str) -> Listening:
        return Listening(
            context=self._context,
            identity=self._identity,
            limits=self._limits,
            admission=self._admission,
            bind_address=address,
            is_curve=self._always_curve or not is_plain(address),
            watch=self._watch,
            now_ms=self._now_ms,
        )

    def _dial_missing(self) -> None:
        for key, address in self._addresses.items():
            if key in self._dialled or self._admission.bans.holds(key, self._now_ms):
                continue
            is_curve = self._always_curve or not is_plain(address)
            if is_curve and curve_key(key) is None:
                self._count("refused_no_key")
                continue
            self._dialled[key] = Dialled(
                context=self._context,
                identity=self._identity,
                limits=self._limits,
                peer=key,
                address=address,
                is_curve=is_curve,
                watch=self._watch,
                now_ms=self._now_ms,
            )

    def _hang_up(self, key: bytes) -> None:
        self._dialled.pop(key).close()

    def _admission_changed(self) -> None:
        """Cut whoever may not be here any more, and tell the ZAP handler."""
        listening, admission = self._listening, self._admission
        if listening is None:
            return
        for key in listening.peers():
            is_welcome = admission.is_full(key) or admission.takes_strangers
            if not is_welcome or admission.bans.holds(key, self._now_ms):
                listening.cut(key, self._now_ms)
        listening.admission_changed()

    def _readable(self) -> list[tuple[bytes, Listening | Dialled]]:
        """Return what has something to read, with the peer of a dialled one; each first in turn."""
        sources: list[tuple[bytes, Listening | Dialled]] = list(self._dialled.items())
        if self._listening is not None:
            sources.append((b"", self._listening))
        poller = zmq.Poller()
        for _, source in sources:
            poller.register(source.socket, zmq.POLLIN)
        ready = dict(poller.poll(0))
        found = [each for each in sources if each[1].socket in ready]
        self._turn += 1
        first = self._turn % max(1, len(found))
        return found[first:] + found[:first]

    def _read_some(
        self,
        source: Listening | Dialled,
        peer: bytes,
        count: int,
        frames: list[tuple[bytes, bytes]],
    ) -> int:
        """Read at most so many messages of a socket into `frames`; return how many were there."""
        for done in range(count):
            raw = source.read()
            if raw is None:
                return done
            try:
                taken = self._take(source, peer, raw)
            except Refused as refused:
                is_handshake = raw.control is not None
                self._count(f"{'refused' if is_handshake else 'dropped'}_{refused.reason}")
                continue
            if taken is not None:
                frames.append(taken)
        return count

    def _take(
        self, source: Listening | Dialled, peer: bytes, raw: Raw
    ) -> tuple[bytes, bytes] | None:
        """Return sender and frame of a message that may be believed; raises Refused."""
        if isinstance(source, Listening):
            taken = source.take(raw, self._now_ms)
        else:
            frame = source.take(raw, self._now_ms)
            taken = None if frame is None else (peer, frame)
        if taken is None:
            return None
        key, frame = taken
        if not frame or len(frame) > self._limits.frame_bytes_max:
            raise Refused("malformed")
        is_full = self._admission.is_full(key)
        if not self._quotas.charge(key, len(frame), is_full=is_full, now_ms=self._now_ms):
            raise Refused("quota")
        self._count("frames_in")
        self._count("bytes_in", len(frame))
        return taken

    def _not_sent(self, reason: str) -> bool:
        self._count(f"dropped_{reason}")
        return False

    def _count(self, name: str, count: int = 1) -> None:
        if count:
            self.counts[name] = self.counts.get(name, 0) + count
