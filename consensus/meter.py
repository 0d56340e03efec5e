"""What a node learns of its own speed by looking at the events and effects that pass.

Nothing here decides anything. Times are those of this node's monotonic clock: a certificate counts
from the first sight of the proposal to the certificate, finality to the block's durable row.
"""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from consensus.core import events as ev
from consensus.core.types import Certificate, FinalizedBlock, Hash32, Kind, Propose, Vote
from consensus.metrics import NodeMetrics

SEEN_MAX = 1_024
"""proposals, votes and transfers that are remembered until they are of use"""
WINDOW = 64
"""values of which a median is made"""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalBlock:
    """A block that has become final and durable here."""

    block: FinalizedBlock
    finality_ms: int | None
    """since its proposal was first seen; None: it was not, as when catching up"""


class Meter:
    """Counters and times; may be told of from any thread."""

    def __init__(self, metrics: NodeMetrics) -> None:
        """Tell `metrics` too."""
        self._metrics = metrics
        self._lock = threading.Lock()
        self._seen: dict[Hash32, int] = {}
        self._voted: dict[tuple[int, int], None] = {}
        """(epoch, view) of own votes that are not NULLIFY"""
        self._certified: dict[tuple[int, int, int], None] = {}
        """(kind, epoch, view) of certificates that were counted"""
        self._fetching: dict[Hash32, int] = {}
        self._windows: dict[str, deque[int]] = {}
        self._failures: dict[str, int] = {}
        self.view_changes = 0
        """views that ended by a nullification"""
        self.missed_votes = 0
        """final views in which this validator had given no vote when they became final here"""

    def stage_ms(self) -> dict[str, int]:
        """Return the median of the last values of each stage."""
        with self._lock:
            return {
                name: sorted(window)[len(window) // 2]
                for name, window in sorted(self._windows.items())
            }

    def add_time(self, stage: str, took_ms: int) -> None:
        """Take a time into account; names come from the program."""
        with self._lock:
            self._windows.setdefault(stage, deque(maxlen=WINDOW)).append(took_ms)
        self._metrics.add_time(stage, took_ms)

    def add_failure(self, call: str) -> int:
        """Count a call that failed; return how many of its kind have since one was answered."""
        with self._lock:
            self._failures[call] = self._failures.get(call, 0) + 1
            return self._failures[call]

    def take_failures(self, call: str) -> int:
        """Return how many calls of a kind failed before the one that is answered now."""
        with self._lock:
            return self._failures.pop(call, 0)

    def look_at_event(self, event: ev.Event, now_ms: int) -> None:
        """See a proposal or a payload come."""
        if isinstance(event, ev.Received):
            if isinstance(event.message, Propose):
                self._see(event.message, now_ms)
        elif isinstance(event, ev.PayloadArrived):
            started = self._fetching.pop(event.payload_commitment, None)
            if started is not None:
                self.add_time("transfer", now_ms - started)

    def look_at_effects(self, effects: Iterable[ev.Effect], now_ms: int) -> None:
        """See what the core asks for."""
        for effect in effects:
            if isinstance(effect, ev.Persist):
                for then in effect.then:
                    if isinstance(then, ev.Broadcast):
                        self._look_at_broadcast(then, now_ms)
            elif isinstance(effect, ev.FetchPayload):
                _remember(self._fetching, effect.payload_commitment, now_ms)

    def _look_at_broadcast(self, effect: ev.Broadcast, now_ms: int) -> None:
        message = effect.message
        if isinstance(message, Vote):
            with self._lock:
                self._vote(message)
        elif isinstance(message, Propose):
            self._see(message, now_ms)
            with self._lock:
                self._vote(message.vote)
        elif isinstance(message, Certificate):
            self._look_at_certificate(message, now_ms)

    def _look_at_certificate(self, certificate: Certificate, now_ms: int) -> None:
        """Every certificate is broadcast once, made here or relayed (C1), and repeated (R1)."""
        name = (certificate.kind, certificate.epoch, certificate.view)
        with self._lock:
            if name in self._certified:
                return
            _remember(self._certified, name, None)
            if certificate.kind == Kind.NULLIFY:
                self.view_changes += 1
            proposal = certificate.proposal
            seen_ms = None if proposal is None else self._seen.get(proposal.block_hash)
        if certificate.kind == Kind.NULLIFY:
            self._metrics.add_view_change()
        elif certificate.kind == Kind.NOTARIZE and seen_ms is not None:
            self.add_time("certificate", now_ms - seen_ms)

    def durable(
        self, group: Sequence[ev.Persist], took_ms: int, now_ms: int, is_member: bool
    ) -> list[FinalBlock]:
        """Take a finished write into account; return the blocks that are final by it."""
        self.add_time("sync", took_ms)
        found = []
        for persist in group:
            for block in persist.finalized:
                with self._lock:
                    seen_ms = self._seen.pop(block.block_hash, None)
                finality_ms = None if seen_ms is None else now_ms - seen_ms
                if finality_ms is not None:
                    self.add_time("finality", finality_ms)
                found.append(FinalBlock(block=block, finality_ms=finality_ms))
                self._count_missed(block.certificate, is_member)
            self._metrics.add_evidence(len(persist.evidence))
        return found

    def _count_missed(self, certificate: Certificate | None, is_member: bool) -> None:
        if certificate is None or not is_member:
            return
        with self._lock:
            if (certificate.epoch, certificate.view) in self._voted:
                return
            self.missed_votes += 1
        self._metrics.add_missed_vote()

    def _see(self, propose: Propose, now_ms: int) -> None:
        block_hash = propose.proposal.block_hash
        with self._lock:
            if block_hash not in self._seen:
                _remember(self._seen, block_hash, now_ms)

    def _vote(self, vote: Vote) -> None:
        if vote.kind != Kind.NULLIFY:
            _remember(self._voted, (vote.epoch, vote.view), None)


def _remember(table: dict[K, V], key: K, value: V) -> None:
    """Keep the newest SEEN_MAX."""
    table[key] = value
    if len(table) > SEEN_MAX:
        del table[next(iter(table))]
