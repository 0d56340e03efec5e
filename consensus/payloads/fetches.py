"""One fetch: whom it asks for which chunks, and when it gives up.

Spec: spec/dissemination.md#fetching. The named peers are asked first, several at once for
different chunks, then the others; who sends nothing in time is asked for less and later.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from consensus.core.types import Hash32
from consensus.payloads.chunks import chunk_count
from consensus.payloads.frames import Get
from consensus.payloads.limits import (
    ASKED_MS_MAX,
    ASKED_PER_SOURCE_MAX,
    FETCH_AGAIN_MS,
    FETCH_FIRST_MS,
    FETCH_IDLE_MS_MAX,
    FETCH_ROUNDS_MAX,
    PUSH_QUIET_MS,
    SOURCES_AT_ONCE_MAX,
    SOURCES_MAX,
)
from consensus.payloads.shelf import Entry


@dataclass(slots=True, kw_only=True)
class Source:
    """A peer that may have the payload."""

    peer: bytes
    is_named: bool
    rounds: int = 0
    """times that it was asked in vain"""
    is_missing: bool = False
    """it said that it has nothing"""
    asked: dict[int, int] = field(default_factory=dict)
    """chunk -> when it was asked for"""
    heard_ms: int = 0

    @property
    def is_spent(self) -> bool:
        """Say whether it is asked no more."""
        return self.is_missing or self.rounds >= FETCH_ROUNDS_MAX


class Fetch:
    """The state of one WANTED payload."""

    def __init__(self, entry: Entry, block_hash: Hash32, now_ms: int) -> None:
        """Begin; chunks that were pushed before count."""
        self.entry = entry
        self._block_hash = block_hash
        self._sources: dict[bytes, Source] = {}
        self._began_ms = now_ms
        self._news_ms = now_ms
        self._pushed_ms = now_ms - PUSH_QUIET_MS

    def name(self, peers: Iterable[bytes], block_hash: Hash32, now_ms: int) -> None:
        """Put peers at the head of those to ask; those that failed get another chance."""
        self._block_hash = block_hash
        self._news_ms = now_ms
        for source in self._sources.values():
            source.rounds, source.is_missing = 0, False
        for peer in peers:
            named = self._source(peer)
            if named is not None:
                named.is_named = True

    def arrived(self, peer: bytes, index: int, now_ms: int, *, is_new: bool) -> None:
        """Note a proved chunk, and whether its sender was asked for it."""
        if is_new:
            self._news_ms = now_ms
        source = self._sources.get(peer)
        if source is not None and source.asked.pop(index, None) is not None:
            source.heard_ms = now_ms
        elif is_new:
            self._pushed_ms = now_ms
            for other in self._sources.values():
                other.asked.pop(index, None)

    def missing(self, peer: bytes) -> None:
        """Note that a source has nothing."""
        source = self._sources.get(peer)
        if source is not None:
            source.is_missing = True
            source.asked.clear()

    def begin_again(self) -> None:
        """Forget which chunks were asked for: the payload has another length."""
        for source in self._sources.values():
            source.asked.clear()

    def lose(self, peer: bytes) -> None:
        """Ask a peer no more: it is gone or banned."""
        self._sources.pop(peer, None)

    def plan(self, now_ms: int, connected: Collection[bytes]) -> list[tuple[bytes, Get]]:
        """Return what to ask now, and of whom."""
        for peer in sorted(set(connected) - self._sources.keys()):
            self._source(peer)
        self._time_out(now_ms, connected)
        engaged = self._engaged(now_ms, connected)
        if not engaged:
            return []
        asked = {index for source in self._sources.values() for index in source.asked}
        count = chunk_count(self.entry.payload_bytes)
        chunks = self.entry.chunks
        open_indices = [i for i in range(count) if i not in chunks and i not in asked]
        gets = []
        for place, source in enumerate(engaged):
            share = -(-len(open_indices) // (len(engaged) - place))
            room = (ASKED_PER_SOURCE_MAX >> source.rounds) - len(source.asked)
            taken, open_indices = _split(open_indices, min(share, room))
            if taken and not source.asked:
                source.heard_ms = now_ms
            source.asked.update(dict.fromkeys(taken, now_ms))
            gets += [(source.peer, self._get(first, length)) for first, length in _runs(taken)]
        return gets

    def has_failed(self, now_ms: int, connected: Collection[bytes]) -> bool:
        """Say whether nobody is left to wait for; with nobody connected, that takes longest."""
        if now_ms - self._news_ms >= FETCH_IDLE_MS_MAX:
            return True
        is_early = now_ms - self._began_ms < FETCH_FIRST_MS
        if is_early or now_ms - self._pushed_ms < PUSH_QUIET_MS:
            return False
        present = [s for s in self._sources.values() if s.peer in connected]
        return bool(present) and all(s.is_spent for s in present)

    def _source(self, peer: bytes) -> Source | None:
        source = self._sources.get(peer)
        if source is None and len(self._sources) < SOURCES_MAX:
            source = self._sources[peer] = Source(peer=peer, is_named=False)
        return source

    def _time_out(self, now_ms: int, connected: Collection[bytes]) -> None:
        for source in self._sources.values():
            if not source.asked:
                continue
            is_silent = now_ms - source.heard_ms >= FETCH_AGAIN_MS
            is_late = now_ms - min(source.asked.values()) >= ASKED_MS_MAX
            if is_silent or is_late or source.peer not in connected:
                source.asked.clear()
                source.rounds += 1

    def _engaged(self, now_ms: int, connected: Collection[bytes]) -> list[Source]:
        """Choose whom to ask: the least tried, named before others, one while a push runs."""
        able = [s for s in self._sources.values() if not s.is_spent and s.peer in connected]
        if not able:
            return []
        best = min((s.rounds, not s.is_named) for s in able)
        tier = [s for s in able if (s.rounds, not s.is_named) == best]
        is_early = now_ms - self._began_ms < FETCH_FIRST_MS
        is_pushed = now_ms - self._pushed_ms < PUSH_QUIET_MS
        if is_early or is_pushed:
            return tier[:1] if tier[0].is_named else []
        return tier[:SOURCES_AT_ONCE_MAX]

    def _get(self, first: int, count: int) -> Get:
        return Get(
            block_hash=self._block_hash,
            commitment=self.entry.commitment,
            payload_bytes=self.entry.payload_bytes,
            first=first,
            count=count,
        )


def _split(indices: list[int], count: int) -> tuple[list[int], list[int]]:
    count = max(0, count)
    return indices[:count], indices[count:]


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Return ascending indices as (first, count) of runs without a gap."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and index == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs
