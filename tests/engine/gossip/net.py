"""Nodes that gossip in memory: the real core with a plain pool, frames carried by hand."""

from collections import deque
from itertools import pairwise
from random import Random

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from engine.gossip.core import Gossip
from engine.gossip.effects import Ban, Effect, Send
from engine.gossip.peer import GossipLimits
from engine.pool_rules import PoolReason
from kernels.layout import U8

STEP_MS = 50
FORGED = 0xFF
"""last byte of a record whose signature the plain pool calls invalid"""
UNFIT = 0xFE
"""last byte of a record that the plain pool refuses for a reason of its own"""


def hash_records(records: U8) -> U8:
    """Return the transaction hashes of (n, 192) records."""
    return hashes_of([row.tobytes() for row in records])


def hashes_of(records: list[bytes]) -> U8:
    """Return (n, 32) hashes."""
    joined = b"".join(blake3(record).digest() for record in records)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def records_of(rng: np.random.Generator, count: int, last: int = 0) -> U8:
    """Return (n, 192) random records that end with this byte."""
    records = rng.integers(0, 256, (count, 192), dtype=np.uint8)
    records[:, 191] = last
    return records


class PlainPool:
    """A pool in a dict; counts the records that it judged."""

    def __init__(self) -> None:
        """Start empty."""
        self.records: dict[bytes, bytes] = {}
        self.judged: deque[bytes] = deque()

    def judge(self, records: U8, hashes: U8) -> tuple[U8, U8]:
        """Return codes, and the hashes of what was taken in."""
        codes = np.zeros(len(records), np.uint8)
        for number, (row, name) in enumerate(zip(records, hashes, strict=True)):
            self.judged.append(name.tobytes())
            if row[191] == FORGED:
                codes[number] = PoolReason.SIGNATURE
            elif row[191] == UNFIT:
                codes[number] = PoolReason.NONCE_TOO_FAR
            elif name.tobytes() in self.records:
                codes[number] = PoolReason.DUPLICATE
            else:
                self.records[name.tobytes()] = row.tobytes()
        return codes, hashes[codes == PoolReason.ACCEPTED]

    def waits(self, hashes: U8) -> NDArray[np.bool_]:
        """Say which of (n, 32) hashes wait."""
        return np.array([row.tobytes() in self.records for row in hashes], np.bool_)

    def find(self, hashes: U8) -> tuple[U8, U8]:
        """Return those that wait, and their records."""
        here = hashes[self.waits(hashes)]
        joined = b"".join(self.records[row.tobytes()] for row in here)
        return here, np.frombuffer(joined, np.uint8).reshape(-1, 192)

    def page(self, place: int, count_max: int) -> tuple[U8, int]:
        """Return the first hashes from a place on, which is a rank here, and the next place."""
        hashes = np.frombuffer(b"".join(self.records), np.uint8).reshape(-1, 32)
        end = place + count_max
        return hashes[place:end], end if end < len(hashes) else 0


class Node:
    """One node of the network."""

    def __init__(self, number: int, limits: GossipLimits | None = None) -> None:
        """Stand alone."""
        self.key = bytes([number]) * 32
        self.pool = PlainPool()
        self.limits = limits
        self.neighbours: set[bytes] = set()
        self.bans: list[Ban] = []
        self.restart()

    def restart(self) -> None:
        """Forget everything but what waits in the pool."""
        self.gossip = Gossip(
            self.pool, hash_records=hash_records, random=Random(self.key[0]), limits=self.limits,
            known_entries=2**16,
        )  # fmt: skip


class Net:
    """Nodes and the frames between them."""

    def __init__(self, *nodes: Node) -> None:
        """Connect nobody."""
        self.nodes = {node.key: node for node in nodes}
        self.now_ms = 1_000
        self.lost: set[tuple[bytes, bytes]] = set()
        """(from, to) whose connection takes nothing at present"""
        self.is_cut = False
        """whether what is sent is on its way and never comes"""
        self.sessions: dict[tuple[bytes, bytes], bytes] = {}
        """what names the session of (dialler, listener), where it is not the first one"""
        self.sent: list[tuple[bytes, Send]] = []
        self._mail: deque[tuple[bytes, bytes, bytes]] = deque()

    def join(self, one: Node, other: Node) -> None:
        """Connect two nodes."""
        one.neighbours.add(other.key)
        other.neighbours.add(one.key)
        self._tell(one, other)

    def part(self, one: Node, other: Node) -> None:
        """Disconnect two nodes."""
        one.neighbours.discard(other.key)
        other.neighbours.discard(one.key)
        self._tell(one, other)

    def renew(self, dialler: Node, listener: Node) -> None:
        """Let a session take the place of the one that was there; nobody sees it missing."""
        self.sessions[dialler.key, listener.key] = self.now_ms.to_bytes(8, "big")
        self._tell(dialler, listener)

    def submit(self, node: Node, records: U8) -> None:
        """Bring in transactions of users of a node."""
        _, taken = node.pool.judge(records, hash_records(records))
        self.perform(node, node.gossip.push(taken, self.now_ms))

    def inject(self, sender: Node, receiver: Node, frame: bytes) -> None:
        """Deliver bytes that `sender` never would have sent by itself."""
        self.perform(receiver, receiver.gossip.receive(sender.key, frame, self.now_ms))

    def run(self, steps: int = 20) -> None:
        """Let time pass."""
        for _ in range(steps):
            self.now_ms += STEP_MS
            for key in sorted(self.nodes):
                node = self.nodes[key]
                self.perform(node, node.gossip.tick(self.now_ms))
            self._deliver()

    def perform(self, node: Node, effects: list[Effect]) -> None:
        """Do what a core asks for."""
        for effect in effects:
            if isinstance(effect, Ban):
                node.bans.append(effect)
                self.part(node, self.nodes[effect.peer])
                continue
            assert len(effect.data) <= 2**20
            is_lost = (node.key, effect.peer) in self.lost
            if is_lost or effect.peer not in node.neighbours:
                node.gossip.not_sent(effect, self.now_ms)
                continue
            self.sent.append((node.key, effect))
            if not self.is_cut:
                self._mail.append((node.key, effect.peer, effect.data))

    def _deliver(self) -> None:
        """Carry everything, and let pools judge, until nothing moves."""
        while self._mail:
            sender, receiver, data = self._mail.popleft()
            node = self.nodes[receiver]
            if sender in node.neighbours:
                self.perform(node, node.gossip.receive(sender, data, self.now_ms))
            self.judge(node)

    def judge(self, node: Node) -> None:
        """Let a node's pool judge one batch."""
        batch = node.gossip.take_batch()
        while batch is not None:
            codes, taken = node.pool.judge(batch.records, batch.hashes)
            self.perform(node, node.gossip.judged(batch, codes, self.now_ms))
            self.perform(node, node.gossip.push(taken, self.now_ms))
            batch = node.gossip.take_batch()

    def _tell(self, *nodes: Node) -> None:
        for node in nodes:
            sessions = {
                key: (
                    self.sessions.get((node.key, key), b"1"),
                    self.sessions.get((key, node.key), b"1"),
                )
                for key in node.neighbours
            }
            node.gossip.connect(sessions, self.now_ms)


def line(count: int, limits: GossipLimits | None = None) -> tuple[Net, list[Node]]:
    """Return nodes of which each knows the next one."""
    nodes = [Node(number + 1, limits) for number in range(count)]
    net = Net(*nodes)
    for one, other in pairwise(nodes):
        net.join(one, other)
    net.run(3)
    return net, nodes
