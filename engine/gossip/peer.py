"""What a node keeps of one connected peer: records that wait for judgement, open questions, debts.

Everything here has a bound by count. Read `core.py` for what happens to it.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from engine.constants import TRANSACTION_BYTES
from engine.gossip.frames import HASHES_MAX, NOTHING, RECORDS_MAX
from engine.gossip.quotas import Bucket, Score
from kernels.layout import U8


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipLimits:
    """How much peers may cost; the defaults are far above what an honest peer needs."""

    batch_records: int = 8_192
    """judged at once"""
    waiting_records: int = 32_768
    """of one peer, that wait for judgement: 224 bytes each"""
    wanted_hashes: int = 8 * HASHES_MAX
    """of one peer, announced or listed, and not yet asked for"""
    backlog_hashes: int = 8 * HASHES_MAX
    """for one peer: pushes that were not taken, to be pushed or announced"""
    frames_per_s: int = 1_000
    frames_burst: int = 4_000
    """of one peer, of any kind: a small frame takes 0.1 ms"""
    heard_per_s: int = 200_000
    heard_burst: int = 400_000
    """hashes announced by one peer"""
    records_per_s: int = 200_000
    records_burst: int = 400_000
    """pushed by one peer"""
    served_per_s: int = 100_000
    served_burst: int = 200_000
    """records that one peer wants, whether they are here or not"""
    refused_weight: int = 3
    """what a refused record costs beyond its first unit"""


class HashQueue:
    """Hashes in order of arrival, a bounded number of them."""

    def __init__(self, count_max: int) -> None:
        """Start empty."""
        self._parts: deque[U8] = deque()
        self._count_max = count_max
        self._count = 0

    def __len__(self) -> int:
        """Count the hashes."""
        return self._count

    def add(self, hashes: U8) -> int:
        """Take what there is room for; return how many were not taken."""
        taken = hashes[: self._count_max - self._count]
        if len(taken):
            self._parts.append(np.array(taken))
            self._count += len(taken)
        return len(hashes) - len(taken)

    def take(self, count_max: int) -> U8:
        """Take the oldest ones out, at most so many."""
        parts, left = [NOTHING], count_max
        while self._parts and left:
            part = self._parts.popleft()
            if len(part) > left:
                self._parts.appendleft(part[left:])
                part = part[:left]
            parts.append(part)
            left -= len(part)
        self._count -= count_max - left
        return np.concatenate(parts)


class Peer:
    """One connected peer."""

    def __init__(self, key: bytes, bit: int, limits: GossipLimits, now_ms: int) -> None:
        """Nothing has been said yet. bit: its place in `Known`."""
        self.key = key
        self.bit = bit
        self.score = Score(now_ms)
        self.frames = Bucket(per_s=limits.frames_per_s, burst=limits.frames_burst, now_ms=now_ms)
        self.heard = Bucket(per_s=limits.heard_per_s, burst=limits.heard_burst, now_ms=now_ms)
        self.pushed = Bucket(per_s=limits.records_per_s, burst=limits.records_burst, now_ms=now_ms)
        self.served = Bucket(per_s=limits.served_per_s, burst=limits.served_burst, now_ms=now_ms)
        self.to_want = HashQueue(limits.wanted_hashes)
        self.backlog = HashQueue(limits.backlog_hashes)
        self.backlog_from_ms = 0
        """when the backlog is tried again, at the earliest"""
        self.backlog_since_ms = 0
        """when a push was not taken for the first time in a while"""
        self.wanted: U8 | None = None
        """what the open WANT asked for"""
        self.asked: int | None = None
        """the place that the open ASK asked from"""
        self.next_ask: int | None = None
        """the place of the page to ask for when nothing else is on its way"""
        self.pages = 0
        """of the inventory that is being asked for"""
        self.late: deque[tuple[U8, int]] = deque()
        """what WANTs asked for that are over unanswered, and until when an answer may still come"""
        self.late_asks = 0
        """ASKs that are over without an answer"""
        self.wanted_until_ms = 0
        self.asked_until_ms = 0
        self.their_ask: int | None = None
        """the place from which the peer waits for our inventory"""
        self._waiting: deque[tuple[U8, U8]] = deque()
        self.waiting_count = 0
        self.was_cut = False
        """a session took the place of another one: its inventory is to be asked for from the
        beginning, when the answer that is open has come or has not"""
        self._sessions: tuple[bytes, ...] = (b"", b"")

    def has_new_session(self, sessions: tuple[bytes, bytes]) -> bool:
        """Learn what names its sessions; say whether one has taken the place of another."""
        pairs = list(zip(self._sessions, sessions, strict=True))
        self._sessions = tuple(new or old for old, new in pairs)
        return any(old and new and old != new for old, new in pairs)

    def take_answer(self, hashes: U8) -> bool:
        """End the oldest question that (n, 32) hashes may answer; False: they answer none.

        A slow peer answers in the order of the questions, so that none at all answer the first one.
        """
        names = {row.tobytes() for row in hashes}
        for number, (wanted, _) in enumerate(self.late):
            if names <= {row.tobytes() for row in wanted}:
                del self.late[number]
                return True
        if self.wanted is not None and names <= {row.tobytes() for row in self.wanted}:
            self.wanted = None
            return True
        return False

    def queue(self, records: U8, hashes: U8) -> None:
        """Let records wait for judgement; the caller has looked at the bound."""
        if len(records):
            self._waiting.append((records, hashes))
            self.waiting_count += len(records)

    def take_waiting(self, count_max: int) -> tuple[U8, U8]:
        """Take the oldest records and their hashes out, at most so many."""
        records = [np.empty((0, TRANSACTION_BYTES), np.uint8)]
        hashes, left = [NOTHING], count_max
        while self._waiting and left:
            rows, names = self._waiting.popleft()
            if len(rows) > left:
                self._waiting.appendleft((rows[left:], names[left:]))
                rows, names = rows[:left], names[:left]
            records.append(rows)
            hashes.append(names)
            left -= len(rows)
        self.waiting_count -= count_max - left
        return np.concatenate(records), np.concatenate(hashes)


assert GossipLimits().waiting_records >= 2 * RECORDS_MAX, "an answer has room beside a push"
