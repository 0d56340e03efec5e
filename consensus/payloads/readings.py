"""Payloads that are being read back from the own executor, for whom, and how many at once.

To read one back costs the executor and this node the whole payload, however few chunks of it were
asked for. A member has a rate that it does not reach while it catches up, and room whatever others
ask for, since the chain may wait for it; strangers share a rate and a part of the readings, and
each has a smaller rate of its own.
Spec: spec/dissemination.md#sending. Next: `transfer.py`.
"""

from dataclasses import dataclass, field

from consensus.core.types import Hash32
from consensus.payloads import frames
from consensus.payloads.buckets import Bucket
from consensus.payloads.limits import (
    MEMBER_READ_BYTES_PER_S,
    READ_ASKERS_MAX,
    READ_BUCKETS_MAX,
    READ_COST_BYTES_MIN,
    READS_MAX,
    READS_PER_PEER_MAX,
    SERVED_BURST_PAYLOADS,
    STRANGER_READ_BYTES_PER_S,
    STRANGERS_READ_BYTES_PER_S,
    STRANGERS_READS_MAX,
    MemoryLimits,
)


@dataclass(slots=True, kw_only=True)
class Reading:
    """One payload that is being read back."""

    payer: bytes = b""
    """whom it counts for; empty: a push"""
    is_strangers: bool = False
    is_push: bool = False
    askers: list[tuple[bytes, frames.Get]] = field(default_factory=list)


class Readings:
    """All readings that are under way."""

    def __init__(self, memory: MemoryLimits) -> None:
        """Begin with none."""
        self._readings: dict[tuple[bytes, bytes], Reading] = {}
        burst_bytes = SERVED_BURST_PAYLOADS * max(READ_COST_BYTES_MIN, memory.payload_bytes_max)
        self._members = _Quotas(max(burst_bytes, MEMBER_READ_BYTES_PER_S), MEMBER_READ_BYTES_PER_S)
        self._strangers = _Quotas(
            burst_bytes, STRANGER_READ_BYTES_PER_S, STRANGERS_READ_BYTES_PER_S
        )

    def __len__(self) -> int:
        """Return their number."""
        return len(self._readings)

    def push(self, block_hash: Hash32, commitment: Hash32) -> bool:
        """Read back what is to be pushed; return whether a reading has to begin."""
        reading, is_new = self._reading(block_hash, commitment)
        reading.is_push = True
        return is_new

    def ask(self, peer: bytes, get: frames.Get, *, is_member: bool, now_ms: int) -> bool | None:
        """Let a peer wait for a payload; return whether a reading has to begin.

        None: too much is being read, or was read for this peer or for strangers; nobody waits.
        """
        reading = self._readings.get((get.block_hash, get.commitment))
        if reading is None and not self._may_begin(peer, is_member, now_ms):
            return None
        if reading is not None and len(reading.askers) >= READ_ASKERS_MAX:
            return None
        reading, is_new = self._reading(get.block_hash, get.commitment)
        if is_new:
            reading.payer, reading.is_strangers = peer, not is_member
        reading.askers.append((peer, get))
        return is_new

    def take(self, block_hash: Hash32, commitment: Hash32, payload_bytes: int) -> Reading | None:
        """End a reading that brought so many bytes; None: there was none."""
        reading = self._readings.pop((block_hash, commitment), None)
        if reading is not None and reading.payer:
            quotas = self._strangers if reading.is_strangers else self._members
            quotas.settle(reading.payer, payload_bytes)
        return reading

    def _reading(self, block_hash: Hash32, commitment: Hash32) -> tuple[Reading, bool]:
        found = self._readings.get((block_hash, commitment))
        if found is not None:
            return found, False
        made = self._readings[block_hash, commitment] = Reading()
        return made, True

    def _may_begin(self, peer: bytes, is_member: bool, now_ms: int) -> bool:
        """Say whether one more may begin for a peer; takes what it costs at least."""
        readings = self._readings.values()
        of_peer = sum(any(p == peer for p, _ in reading.askers) for reading in readings)
        if of_peer >= READS_PER_PEER_MAX:
            return False
        if is_member:
            has_room = len(readings) < READS_MAX or not of_peer
            return has_room and self._members.take(peer, now_ms)
        of_strangers = sum(reading.is_strangers for reading in readings)
        has_room = len(readings) < READS_MAX and of_strangers < STRANGERS_READS_MAX
        return has_room and self._strangers.take(peer, now_ms)


class _Quotas:
    """What peers may still have read back: each of them, and all together."""

    def __init__(self, burst_bytes: int, each_per_s: int, together_per_s: int = 0) -> None:
        """Begin with nothing taken; rates in bytes, 0 for none."""
        self._burst_bytes = burst_bytes
        self._each_per_s, self._together_per_s = each_per_s, together_per_s
        self._together: Bucket | None = None
        self._of_peer: dict[bytes, Bucket] = {}
        """in the order of their last reading"""

    def take(self, peer: bytes, now_ms: int) -> bool:
        """Take what a reading counts for at least; False: the peer, or all, had enough for now."""
        if self._together is None and self._together_per_s:
            self._together = self._full(self._together_per_s, now_ms)
        own = self._of_peer.pop(peer, None) or self._full(self._each_per_s, now_ms)
        self._of_peer[peer] = own
        if len(self._of_peer) > READ_BUCKETS_MAX:
            del self._of_peer[next(iter(self._of_peer))]
        buckets = [own] if self._together is None else [own, self._together]
        if not all(bucket.is_open(now_ms) for bucket in buckets):
            return False
        self._charge(peer, READ_COST_BYTES_MIN)
        return True

    def settle(self, peer: bytes, payload_bytes: int) -> None:
        """Take what a reading was longer than was counted for it when it began."""
        self._charge(peer, max(0, payload_bytes - READ_COST_BYTES_MIN))

    def _charge(self, peer: bytes, taken_bytes: int) -> None:
        for bucket in (self._together, self._of_peer.get(peer)):
            if bucket is not None:
                bucket.take(taken_bytes)

    def _full(self, bytes_per_s: int, now_ms: int) -> Bucket:
        return Bucket.full(bytes_per_s=bytes_per_s, burst_bytes=self._burst_bytes, now_ms=now_ms)
