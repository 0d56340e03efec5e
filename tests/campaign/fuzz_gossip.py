"""Foreign frames to the conduct of gossip, in process: it never fails and holds bounded memory.

A node is sent changed frames, frames in the wrong place, and now and then time passes. Whatever
comes, each call returns effects; a peer that misbehaves is banned and comes back as somebody else.
"""

import random

import numpy as np

from engine.gossip.core import BAN_MS, Gossip
from engine.gossip.effects import Ban
from engine.gossip.frames import BadFrame, Kind, decode_frame, encode_frame
from engine.gossip.peer import GossipLimits
from tests.engine.gossip.net import PlainPool, hash_records

PEERS = 6
LIMITS = GossipLimits(batch_records=64, waiting_records=12_000)


def examples(rng: random.Random) -> list[bytes]:
    """Return a good frame of each kind, and more."""
    records = np.frombuffer(rng.randbytes(192 * 5), np.uint8).reshape(5, 192)
    hashes = hash_records(records)
    return [
        encode_frame(Kind.PUSH, records),
        encode_frame(Kind.PUSH, records[:1]),
        encode_frame(Kind.FOUND, records[:0]),
        encode_frame(Kind.FOUND, records[1:3]),
        encode_frame(Kind.ANNOUNCE, hashes),
        encode_frame(Kind.WANT, hashes[:2]),
        encode_frame(Kind.ASK),
        encode_frame(Kind.ASK, place=2**63),
        encode_frame(Kind.INVENTORY, hashes),
        encode_frame(Kind.INVENTORY, hashes[:0]),
        encode_frame(Kind.INVENTORY, hashes, 2**64 - 1),
    ]


def decode(data: bytes) -> None:
    """Decode a frame; what is taken has this one encoding."""
    frame = decode_frame(data)
    items = frame.items if frame.kind != Kind.ASK else frame.items[:0]
    assert encode_frame(frame.kind, items, frame.place) == data, "another encoding"


class Conduct:
    """A node under foreign frames; call it with one frame after the other."""

    def __init__(self, rng: random.Random) -> None:
        """Start with some peers."""
        self._rng = rng
        self._pool = PlainPool()
        self._node = Gossip(
            self._pool, hash_records=hash_records, random=rng, limits=LIMITS, known_entries=2**10
        )
        self._now_ms = 1_000
        self._peers = [rng.randbytes(32) for _ in range(PEERS)]

    def __call__(self, data: bytes) -> None:
        """Send a frame from some peer, and let time pass. Raises BadFrame for one that is none."""
        rng = self._rng
        self._now_ms += rng.choice((0, 0, 1, 50, 50, 50, 2_000, BAN_MS))
        sessions = {key: (b"", bytes([rng.randrange(256) < 8])) for key in self._peers}
        self._node.connect(sessions, self._now_ms)
        effects = self._node.receive(rng.choice(self._peers), data, self._now_ms)
        effects += self._node.tick(self._now_ms)
        batch = self._node.take_batch() if rng.random() < 0.3 else None
        if batch is not None:
            codes, taken = self._pool.judge(batch.records, batch.hashes)
            effects += self._node.judged(batch, codes, self._now_ms)
            effects += self._node.push(taken, self._now_ms)
        for effect in effects:
            if isinstance(effect, Ban):
                self._peers = [key for key in self._peers if key != effect.peer]
                self._peers.append(rng.randbytes(32))
                continue
            decode(effect.data)
            if rng.random() < 0.1:
                self._node.not_sent(effect, self._now_ms)
        assert self._node.waiting_count <= PEERS * LIMITS.waiting_records
        self._pool.judged.clear()
        while len(self._pool.records) > 1_000:
            self._pool.records.popitem()
        decode(data)


ERRORS = (BadFrame,)
