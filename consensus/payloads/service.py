"""The thread that disseminates payloads: `transfer.py` with a link, a clock and the executor.

Spec: spec/dissemination.md. One thread owns the link and lets the core do its work; another one
reads payloads back, since that may take long. Methods may be called from any thread and never wait
for the network: a mutex is held for one step of the core, never while a chunk is hashed.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

import zmq

from consensus.core.events import FetchPayload, PayloadArrived, PayloadFailed, PushPayload
from consensus.core.types import Hash32
from consensus.network.addresses import PeerAddresses
from consensus.payloads.chunks import tree_of
from consensus.payloads.limits import (
    BAN_MS,
    CHUNKS_PER_TURN,
    FRAMES_PER_TURN,
    IDLE_POLL_MS,
    READS_QUEUE_MAX,
    STOP_MS_MAX,
    WORK_POLL_MS,
    MemoryLimits,
)
from consensus.payloads.link import open_link
from consensus.payloads.outputs import Arrived, Ban, Failed, Read, SendFrame
from consensus.payloads.transfer import Transfer, proof_of
from runtime.keypair import KeyPair

NS_PER_MS = 1_000_000
MS_PER_S = 1_000

Report = Callable[[str, Mapping[str, object]], None]
ReadStored = Callable[[Hash32, Hash32], bytes | None]


class Payloads:
    """Payload dissemination of one node."""

    def __init__(
        self,
        *,
        pair: KeyPair,
        domain: bytes,
        listen: str,
        payload_bytes_max: int,
        held_bytes_max: int,
        read_stored: ReadStored,
        on_event: Callable[[PayloadArrived | PayloadFailed], None],
        report: Report,
        curve: bool = False,
    ) -> None:
        """Bind the socket; nothing moves before `start`. Raises LinkError.

        `read_stored(block_hash, payload_commitment)` is called in a thread of its own, one call at
        a time; what it returns is compared with the commitment here. `on_event` and `report` are
        called in the network's thread and must not wait. `curve`: encrypt on loopback, too.
        """
        memory = MemoryLimits.of(payload_bytes_max=payload_bytes_max, held_bytes_max=held_bytes_max)
        self._own_key = pair.public_key
        self._read_stored, self._on_event, self._report = read_stored, on_event, report
        self._mutex = threading.Lock()
        self._core = Transfer(memory)
        self._context = zmq.Context()
        self._link = open_link(
            context=self._context,
            pair=pair,
            domain=domain,
            bind=listen,
            payload_bytes_max=payload_bytes_max,
            now_ms=_now_ms(),
            curve=curve,
        )
        self.payloads_address = self._link.address
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._peers: tuple[frozenset[bytes], dict[bytes, str]] | None = None
        """what `set_peers` said and the thread has not done yet"""
        self._penalties: list[tuple[bytes, str]] = []
        self._reads: queue.Queue[Read | None] = queue.Queue(READS_QUEUE_MAX)
        self._connected: frozenset[bytes] = frozenset()
        self._link_counts: dict[str, int] = {}
        self._is_stopping = False
        self._threads: list[threading.Thread] = []

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads."""
        assert not self._threads, "started once"
        for name, run in (("payloads", self._run), ("payload reads", self._run_reads)):
            thread = threading.Thread(target=self._loudly, args=(run,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads and close the sockets; a reading under way is waited for, for a while."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._wake()
        with suppress(queue.Full):  # the reader looks at the flag, too
            self._reads.put_nowait(None)
        for thread in self._threads:
            thread.join(STOP_MS_MAX // MS_PER_S)
        if not self._threads:
            self._link.close()
        self._wake_in.close()
        self._wake_out.close()
        self._context.term()

    def _loudly(self, run: Callable[[], None]) -> None:
        """Run a thread; a bug in it is reported before it ends the thread."""
        try:
            run()
        except BaseException as error:
            self._report("payloads_failed", {"error": repr(error)})
            raise

    # --- wishes of the node, from any thread ----------------------------------------------------

    def set_peers(
        self, members: Collection[bytes], addresses: Mapping[bytes, PeerAddresses]
    ) -> None:
        """Say who is pushed to and may push, and whom to dial, sync peers included."""
        own = self._own_key
        keys = frozenset(members) - {own}
        dialled = {
            key: address.payloads
            for key, address in addresses.items()
            if address.payloads and key != own
        }
        with self._step() as core:
            core.set_members(keys)
            self._peers = (keys, dialled)

    def penalize(self, peer: bytes, reason: str) -> None:
        """Ban a peer for a while."""
        with self._step():
            self._penalties.append((peer, reason))

    def hold(self, commitment: Hash32, payload: bytes) -> None:
        """Pin a payload; hashes it here, 0.4 ms per MB, so call it where that is no harm.

        Raises ValueError when these bytes do not have that commitment.
        """
        tree = tree_of(payload)
        if tree.commitment != commitment:
            raise ValueError(f"{len(payload)} bytes do not have commitment {commitment.hex()}")
        with self._step() as core:
            core.hold(tree, payload, _now_ms())

    def push(self, effect: PushPayload) -> None:
        """Send a payload to every member."""
        with self._step() as core:
            core.push(effect, _now_ms())

    def fetch(self, effect: FetchPayload) -> None:
        """Get a payload; one event follows."""
        with self._step() as core:
            core.fetch(effect, _now_ms())

    def drop(self, commitment: Hash32) -> None:
        """Stop fetching and pinning a payload."""
        with self._step() as core:
            core.drop(commitment, _now_ms())

    def get(self, commitment: Hash32) -> bytes | None:
        """Return a pinned payload."""
        with self._mutex:
            return self._core.get(commitment)

    def counts(self) -> Mapping[str, int]:
        """Return what happened so far, and the present sizes."""
        with self._mutex:
            return {**self._link_counts, **self._core.counts, **self._core.gauges()}

    def connected(self) -> frozenset[bytes]:
        """Return who is connected, as of the last turn."""
        return self._connected

    @contextmanager
    def _step(self) -> Iterator[Transfer]:
        with self._mutex:
            yield self._core
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: it has ended
            self._wake_in.send(b"\0")

    # --- the network's thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                now_ms = _now_ms()
                self._apply(now_ms)
                has_received = self._receive(now_ms)
                self._link.tick(now_ms)
                self._pass_time(now_ms)
                has_sent = self._send_chunks(now_ms)
                if not (has_received or has_sent):
                    self._sleep()
        finally:
            self._link.close()

    def _apply(self, now_ms: int) -> None:
        """Do on the link what other threads asked for."""
        with self._mutex:
            peers, self._peers = self._peers, None
            penalties, self._penalties = self._penalties, []
        if peers is not None:
            self._link.set_members(peers[0])
            self._link.set_peers(peers[1])
        for peer, reason in penalties:
            self._ban(peer, reason, now_ms)

    def _receive(self, now_ms: int) -> bool:
        received = self._link.receive(FRAMES_PER_TURN, now_ms)
        for peer, frame in received:
            with self._mutex:
                chunk = self._core.screen(peer, frame, now_ms)
            if chunk is not None:
                leaf = proof_of(chunk)
                with self._mutex:
                    self._core.accept(peer, chunk, leaf, now_ms)
        return bool(received)

    def _pass_time(self, now_ms: int) -> None:
        connected = self._link.connected()
        with self._mutex:
            for peer in self._connected - connected:
                self._core.lose(peer)
            self._core.tick(now_ms, connected)
            outputs = self._core.take_outputs()
            self._link_counts = dict(self._link.counts)
        self._connected = connected
        for output in outputs:
            if isinstance(output, SendFrame):
                self._link.send(output.peer, output.frame, now_ms)
            elif isinstance(output, Arrived):
                self._on_event(PayloadArrived(payload_commitment=output.commitment))
            elif isinstance(output, Failed):
                self._report("payload_failed", {"reason": output.reason})
                self._on_event(PayloadFailed(payload_commitment=output.commitment))
            elif isinstance(output, Ban):
                self._ban(output.peer, output.reason, now_ms)
            else:
                self._begin_read(output)

    def _ban(self, peer: bytes, reason: str, now_ms: int) -> None:
        self._report("payload_peer_banned", {"peer": peer.hex(), "reason": reason})
        self._link.ban(peer, now_ms + BAN_MS)
        with self._mutex:
            self._core.lose(peer)

    def _begin_read(self, read: Read) -> None:
        try:
            self._reads.put_nowait(read)
        except queue.Full:  # own pushes alone are not counted by the core's bound
            self._report("payload_read_refused", {"block_hash": read.block_hash.hex()})
            with self._mutex:
                self._core.stored(read.block_hash, read.commitment, None, _now_ms())

    def _send_chunks(self, now_ms: int) -> bool:
        """Send a few chunks, then look at what came: no transfer holds up the others."""
        for count in range(CHUNKS_PER_TURN):
            with self._mutex:
                chosen = self._core.next_chunk(now_ms, self._link.can_send)
            if chosen is None:
                return count > 0
            self._link.send(*chosen, now_ms)
        return True

    def _sleep(self) -> None:
        with self._mutex:
            timeout_ms = WORK_POLL_MS if self._core.is_busy else IDLE_POLL_MS
        poller = zmq.Poller()
        for readable in self._link.sockets():
            poller.register(readable, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        poller.poll(timeout_ms)
        with suppress(BlockingIOError):  # it was not this one that woke us
            self._wake_out.recv(4096)

    # --- the reader's thread --------------------------------------------------------------------

    def _run_reads(self) -> None:
        while True:
            read = self._reads.get()
            if read is None or self._is_stopping:
                return
            payload = self._read_stored(read.block_hash, read.commitment)
            found = None if payload is None else (tree_of(payload), payload)
            with self._step() as core:
                core.stored(read.block_hash, read.commitment, found, _now_ms())


def _now_ms() -> int:
    return time.monotonic_ns() // NS_PER_MS
