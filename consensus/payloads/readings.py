"""Payloads that are being read back from the own executor, for whom, and how many at once.

To read one back costs the executor and this node the whole payload, however few chunks of it were
asked for. Members are read for as fast as it goes, since the chain may wait for them; strangers
share a rate and a part of the readings, and each has a rate of its own.
Spec: spec/dissemination.md#sending. Next: `transfer.py`.
"""

from dataclasses import dataclass, field

from consensus.core.types import Hash32
from consensus.payloads import frames
from consensus.payloads.buckets import Bucket
from consensus.payloads.limits import (
    READ_ASKERS_MAX,
    READ_COST_BYTES_MIN,
    READS_MAX,
    READS_PER_PEER_MAX,
    SERVED_BURST_PAYLOADS,
    STRANGER_BUCKETS_MAX,
    STRANGER_READ_BYTES_PER_S,
    STRANGERS_READ_BYTES_PER_S,
    STRANGERS_READS_MAX,
    MemoryLimits,
)


@dataclass(slots=True, kw_only=True)
class Reading:
    """One payload that is being read back."""

    stranger: bytes = b""
    """whom it counts for; empty: a member, or a push"""
    is_push: bool = False
    askers: list[tuple[bytes, frames.Get]] = field(default_factory=list)


class Readings:
    """All readings that are under way."""

    def __init__(self, memory: MemoryLimits) -> None:
        """Begin with none."""
        self._readings: dict[tuple[bytes, bytes], Reading] = {}
        self._quotas = _Quotas(memory)

    def __len__(self) -> int:
        """Return their number."""
        return len(self._readings)

    def push(self, block_hash: Hash32, commitment: Hash32) -> bool:
        """Read back what is to be pushed; return whether a reading has to begin."""
        reading, is_new = self._reading(block_hash, commitment, b"")
        reading.is_push = True
        return is_new

    def ask(self, peer: bytes, get: frames.Get, *, is_member: bool, now_ms: int) -> bool | None:
        """Let a peer wait for a payload; return whether a reading has to begin.

        None: too much is being read, or was read for strangers; nobody waits.
        """
        reading = self._readings.get((get.block_hash, get.commitment))
        if reading is None and not self._may_begin(peer, is_member, now_ms):
            return None
        if reading is not None and len(reading.askers) >= READ_ASKERS_MAX:
            return None
        stranger = b"" if is_member else peer
        reading, is_new = self._reading(get.block_hash, get.commitment, stranger)
        reading.askers.append((peer, get))
        return is_new

    def take(self, block_hash: Hash32, commitment: Hash32, payload_bytes: int) -> Reading | None:
        """End a reading that brought so many bytes; None: there was none."""
        reading = self._readings.pop((block_hash, commitment), None)
        if reading is not None and reading.stranger:
            self._quotas.settle(reading.stranger, payload_bytes)
        return reading

    def _reading(
        self, block_hash: Hash32, commitment: Hash32, stranger: bytes
    ) -> tuple[Reading, bool]:
        found = self._readings.get((block_hash, commitment))
        if found is not None:
            return found, False
        made = self._readings[block_hash, commitment] = Reading(stranger=stranger)
        return made, True

    def _may_begin(self, peer: bytes, is_member: bool, now_ms: int) -> bool:
        """Say whether one more may begin for a peer; takes what it costs a stranger."""
        readings = self._readings.values()
        of_peer = sum(any(p == peer for p, _ in reading.askers) for reading in readings)
        if len(readings) >= READS_MAX or of_peer >= READS_PER_PEER_MAX:
            return False
        if is_member:
            return True
        of_strangers = sum(bool(reading.stranger) for reading in readings)
        return of_strangers < STRANGERS_READS_MAX and self._quotas.take(peer, now_ms)


class _Quotas:
    """What strangers may still have read back: each of them, and all together."""

    def __init__(self, memory: MemoryLimits) -> None:
        """Begin with nothing taken."""
        self._burst_bytes = SERVED_BURST_PAYLOADS * max(
            READ_COST_BYTES_MIN, memory.payload_bytes_max
        )
        self._together: Bucket | None = None
        self._of_peer: dict[bytes, Bucket] = {}
        """in the order of their last reading"""

    def take(self, peer: bytes, now_ms: int) -> bool:
        """Take what a reading counts for at least; False: the peer, or all, had enough for now."""
        if self._together is None:
            self._together = self._full(STRANGERS_READ_BYTES_PER_S, now_ms)
        own = self._of_peer.pop(peer, None) or self._full(STRANGER_READ_BYTES_PER_S, now_ms)
        self._of_peer[peer] = own
        if len(self._of_peer) > STRANGER_BUCKETS_MAX:
            del self._of_peer[next(iter(self._of_peer))]
        if not (own.is_open(now_ms) and self._together.is_open(now_ms)):
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
