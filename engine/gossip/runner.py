"""Gossip as it runs: one thread that owns the link and the core, one that waits for the pool.

Frames are read as they come; what they brought is judged in batches, the next one collecting while
the last is judged. Admitted transactions are pushed PUSH_EVERY_MS after each other, so that single
ones share frames. Read `core.py` for the rules, `runtime/links/` for connections.
"""

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import zmq

from engine.constants import GOSSIP_CONTEXT, derive_key
from engine.gossip.addresses import PEERS_MAX
from engine.gossip.core import Gossip
from engine.gossip.effects import Ban, Batch, Effect
from engine.gossip.frames import FRAME_BYTES_MAX
from engine.gossip.outbox import Outbox, Wake
from engine.gossip.peer import GossipLimits
from engine.gossip.pool_view import MempoolView
from engine.service import Service
from engine_api.types import EngineApiError
from kernels.layout import U8
from runtime.keypair import KeyPair
from runtime.links import Link, LinkLimits, SocketClass

FRAMES_MAX = 32
"""read before admitted ones are pushed and the clock is looked at again"""
PUSH_EVERY_MS = 5
TICK_MS = 20
NOT_JUDGED_PAUSE_MS = 200
"""before the pool is asked again that could not judge"""
RECEIVED_BYTES_PER_S = 2**26
LIMITS = LinkLimits(
    frame_bytes_max=FRAME_BYTES_MAX,
    queue_frames=8,
    peers_max=PEERS_MAX,
    member_bytes_per_s=RECEIVED_BYTES_PER_S,
    member_burst_bytes=RECEIVED_BYTES_PER_S,
    stranger_bytes_per_s=0,
    stranger_burst_bytes=0,
)
NS_PER_MS = 1_000_000
Tell = Callable[[str, Mapping[str, object]], None]
"""Is told an event for the log, and its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipConfig:
    """Who this node is among its peers."""

    pair: KeyPair
    genesis_hash: bytes
    listen: str
    """tcp:// address; port 0 takes a free one"""
    peers: Mapping[bytes, str]
    """key -> tcp:// address of each, at most PEERS_MAX"""


class GossipRunner:
    """The gossip of one executor, from `start` to `stop`."""

    def __init__(
        self,
        service: Service,
        outbox: Outbox,
        config: GossipConfig,
        *,
        tell: Tell,
        limits: GossipLimits | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Listen at once and speak from `start` on; raises LinkError.

        outbox: listens to the pool of `service`.
        """
        self._service = service
        self._outbox = outbox
        self._tell = tell
        self._clock_ns = clock_ns
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.setsockopt(zmq.BLOCKY, 0)
        try:
            self._link = Link(
                context=self._context,
                pair=config.pair,
                domain=derive_key(GOSSIP_CONTEXT, config.genesis_hash),
                socket_class=SocketClass.GOSSIP,
                bind=config.listen,
                limits=LIMITS,
                members=config.peers,
                now_ms=self._now_ms(),
            )
            self._link.set_peers(config.peers)
        except BaseException:
            self._context.term()
            raise
        self.address = self._link.address
        self.core = Gossip(
            MempoolView(service.pool),
            hash_records=lambda records: service.backend.hash_messages(records),
            random=random.SystemRandom(),
            limits=limits,
        )
        self._wake = Wake()
        self._is_over = threading.Event()
        self._batches: queue.Queue[Batch | None] = queue.Queue(1)
        self._judged: deque[tuple[Batch, U8 | None]] = deque()
        self._is_judging = False
        self._judge_from_ms = 0
        self._push_from_ms = 0
        self._tick_from_ms = 0
        self._connected: frozenset[bytes] = frozenset()
        self._thread = threading.Thread(target=self._run, name="gossip")
        self._judge = threading.Thread(target=self._run_judge, name="gossip-admit")

    def start(self) -> str:
        """Begin to speak; return the address."""
        self._outbox.set_wake(self._wake)
        self._judge.start()
        self._thread.start()
        return self.address

    def stop(self) -> None:
        """Hang up; a batch that is being judged is waited for."""
        self._outbox.set_wake(None)
        self._is_over.set()
        self._wake.set()
        self._thread.join()
        self._batches.put(None)
        self._judge.join()
        self._wake.close()

    def counts(self) -> dict[str, int]:
        """Return what was counted, for /metrics; for any thread."""
        found = {f"gossip_{name}": count for name, count in dict(self.core.counts).items()}
        found |= {f"gossip_link_{name}": count for name, count in dict(self._link.counts).items()}
        found["gossip_peers"] = len(self._connected)
        found["gossip_dropped_outbox_full"] = self._outbox.dropped
        return found

    def connected(self) -> frozenset[bytes]:
        """Return the keys of the peers that are connected; for any thread."""
        return self._connected

    def _now_ms(self) -> int:
        return self._clock_ns() // NS_PER_MS

    # The thread that owns link and core

    def _run(self) -> None:
        poller = _Poller(self._wake)
        try:
            while not self._is_over.is_set():
                poller.wait(self._link.sockets(), self._wait_ms())
                self._turn()
        finally:
            self._link.close()
            self._context.term()

    def _wait_ms(self) -> int:
        """Return how long nothing is due."""
        now_ms = self._now_ms()
        due_ms = self._tick_from_ms
        if self._outbox.count:
            due_ms = min(due_ms, self._push_from_ms)
        return max(0, due_ms - now_ms)

    def _turn(self) -> None:
        now_ms = self._now_ms()
        if now_ms >= self._tick_from_ms:
            self._tick_from_ms = now_ms + TICK_MS
            self._link.tick(now_ms)
            self._learn_connected(now_ms)
            self._perform(self.core.tick(now_ms), now_ms)
        for key, frame in self._link.receive(FRAMES_MAX, now_ms):
            if key not in self._connected:
                self._learn_connected(now_ms)
            self._perform(self.core.receive(key, frame, now_ms), now_ms)
        while self._judged:
            batch, codes = self._judged.popleft()
            self._is_judging = False
            if codes is None:
                self._judge_from_ms = now_ms + NOT_JUDGED_PAUSE_MS
            self._perform(self.core.judged(batch, codes, now_ms), now_ms)
        if now_ms >= self._push_from_ms and self._outbox.count:
            self._push_from_ms = now_ms + PUSH_EVERY_MS
            self._perform(self.core.push(self._outbox.take(), now_ms), now_ms)
        if not self._is_judging and now_ms >= self._judge_from_ms:
            next_batch = self.core.take_batch()
            if next_batch is not None:
                self._is_judging = True
                self._batches.put(next_batch)

    def _learn_connected(self, now_ms: int) -> None:
        sessions = self._link.sessions()
        connected = frozenset(sessions)
        if connected != self._connected:
            for key in sorted(connected - self._connected):
                self._tell("gossip peer", {"key": key, "is_connected": True})
            for key in sorted(self._connected - connected):
                self._tell("gossip peer", {"key": key, "is_connected": False})
            self._connected = connected
        self.core.connect(sessions, now_ms)

    def _perform(self, effects: list[Effect], now_ms: int) -> None:
        for effect in effects:
            if isinstance(effect, Ban):
                self._link.ban(effect.peer, effect.until_ms)
                self._tell("gossip ban", {"key": effect.peer, "reason": effect.reason})
                self._learn_connected(now_ms)
            elif not self._link.send(effect.peer, effect.data, now_ms):
                self.core.not_sent(effect, now_ms)

    # The thread that waits for the pool

    def _run_judge(self) -> None:
        while (batch := self._batches.get()) is not None:
            codes: U8 | None = None
            try:
                codes = self._service.admit(batch.records.tobytes())
            except EngineApiError as error:
                self._tell("gossip not judged", {"why": str(error), "count": len(batch.hashes)})
            self._judged.append((batch, codes))
            self._wake.set()


class _Poller:
    """Waits for sockets, which change, and for a wake."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._poller = zmq.Poller()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._poller.register(wake.handle, zmq.POLLIN)

    def wait(self, sockets: list[zmq.Socket[bytes]], timeout_ms: int) -> None:
        """Return when one of these can be read, or when woken, or after the time."""
        if sockets != self._sockets:
            for socket in self._sockets:
                self._poller.unregister(socket)
            for socket in sockets:
                self._poller.register(socket, zmq.POLLIN)
            self._sockets = list(sockets)
        ready: list[tuple[Any, int]] = self._poller.poll(timeout_ms)
        if any(source == self._wake.handle for source, _ in ready):
            self._wake.clear()
