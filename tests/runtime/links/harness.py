"""Several links in one thread, a clock that can be moved, and a relay between two of them."""

import time
from collections.abc import Callable, Iterable

import zmq

from runtime.keypair import KeyPair
from runtime.links import Link, LinkError, LinkLimits
from runtime.links.sockets import Context, Socket

DEADLINE_S = 30
"""after which a test that waits has failed; it says nothing of how long anything takes"""
DOMAIN = bytes(range(32))
LIMITS = LinkLimits(
    frame_bytes_max=65_536,
    queue_frames=100,
    peers_max=64,
    member_bytes_per_s=10**9,
    member_burst_bytes=10**9,
    stranger_bytes_per_s=0,
    stranger_burst_bytes=0,
)
OPEN_LIMITS = LinkLimits(
    frame_bytes_max=65_536,
    queue_frames=100,
    peers_max=64,
    member_bytes_per_s=10**9,
    member_burst_bytes=10**9,
    stranger_bytes_per_s=1,
    stranger_burst_bytes=4_000,
)


def pair(number: int) -> KeyPair:
    """Return the key of a node by number."""
    return KeyPair.of(number.to_bytes(32, "little"))


class Net:
    """Links of one test, each with what it received."""

    def __init__(self) -> None:
        """Begin with none."""
        self.context: Context = zmq.Context()
        self.links: list[Link] = []
        self.relays: list[Relay] = []
        self.received: dict[int, list[tuple[bytes, bytes]]] = {}
        self._offset_ms = 0

    def now_ms(self) -> int:
        """Return the time of all links."""
        return time.monotonic_ns() // 1_000_000 + self._offset_ms

    def skip(self, ms: int) -> None:
        """Let time pass for the links."""
        self._offset_ms += ms

    def link(
        self,
        number: int,
        *,
        members: Iterable[int] = (),
        limits: LinkLimits = LIMITS,
        bind: str = "tcp://127.0.0.1:0",
        curve: bool = False,
        domain: bytes = DOMAIN,
        socket_class: int = 1,
    ) -> Link:
        """Open the link of a node."""
        made = Link(
            context=self.context,
            pair=pair(number),
            domain=domain,
            socket_class=socket_class,
            bind=bind,
            limits=limits,
            members=[pair(member).public_key for member in members],
            now_ms=self.now_ms(),
            curve=curve,
        )
        self.links.append(made)
        self.received[id(made)] = []
        return made

    def restart(self, link: Link, number: int, *, members: Iterable[int]) -> Link:
        """End a link and open it anew at its address."""
        address = link.address
        self.close_link(link)
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                return self.link(number, members=members, bind=address)
            except LinkError:
                # ZeroMQ gives a port back in a thread of its own, a little later.
                assert time.monotonic() < deadline_s, f"{address} was never free again"
                self.turn()

    def relay(self, address: str) -> "Relay":
        """Put a relay before an address."""
        self.relays.append(Relay(self.context, address))
        return self.relays[-1]

    def close_link(self, link: Link) -> None:
        """End one link."""
        self.links.remove(link)
        link.close()

    def close(self) -> None:
        """End everything."""
        for link in self.links:
            link.close()
        for relay in self.relays:
            relay.close()
        self.context.term()

    def turn(self, only: Iterable[Link] | None = None) -> None:
        """Let each link, or only some, read and do what is due once."""
        for link in self.links if only is None else only:
            self.received[id(link)] += link.receive(1_000, self.now_ms())
            link.tick(self.now_ms())
        for relay in self.relays:
            relay.turn()
        time.sleep(0.001)

    def run(self, until: Callable[[], bool]) -> None:
        """Run all links until something holds; fails when it does not after DEADLINE_S."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not until():
            counts = [link.counts for link in self.links]
            assert time.monotonic() < deadline_s, f"this never came true; counts {counts}"
            self.turn()

    def run_for(self, turns: int) -> None:
        """Run all links for so many turns, each of a millisecond or more."""
        for _ in range(turns):
            self.turn()

    def frames(self, link: Link) -> list[bytes]:
        """Return the frames that a link received."""
        return [frame for _, frame in self.received[id(link)]]


def connect(net: Net, a: Link, b_key: bytes, address: str) -> None:
    """Dial an address from a link until the peer has proved itself there."""
    a.set_peers({b_key: address})
    net.run(lambda: a.can_send(b_key))


class Relay:
    """Forwards messages unchanged between those who dial it and a listener, and can lose some."""

    def __init__(self, context: Context, target: str) -> None:
        """Listen at a free port."""
        self._context = context
        self._target = target
        self._router = context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, 0)
        self.address = f"tcp://127.0.0.1:{self._router.bind_to_random_port('tcp://127.0.0.1')}"
        self._dealers: dict[bytes, Socket] = {}
        self.loses: Callable[[list[bytes]], bool] = lambda _: False
        self.upward: list[list[bytes]] = []
        """messages of diallers, as they passed"""

    def turn(self) -> None:
        """Forward what has come."""
        for place, parts in self._read(self._router):
            dealer = self._dealers.get(place)
            if dealer is None:
                dealer = self._dealers[place] = self._context.socket(zmq.DEALER)
                dealer.set(zmq.LINGER, 0)
                dealer.connect(self._target)
            self.upward.append(parts)
            if not self.loses(parts):
                dealer.send_multipart(parts)
        for place, dealer in self._dealers.items():
            for first, rest in self._read(dealer):
                if not self.loses([first, *rest]):
                    self._router.send_multipart([place, first, *rest])

    def passed(self, count: int) -> Callable[[], bool]:
        """Return a question: did so many messages of diallers come?"""
        return lambda: len(self.upward) >= count

    def close(self) -> None:
        """End it."""
        for dealer in self._dealers.values():
            dealer.close()
        self._router.close()

    @staticmethod
    def _read(source: Socket) -> Iterable[tuple[bytes, list[bytes]]]:
        while source.poll(0):
            first, *rest = source.recv_multipart()
            yield first, rest
