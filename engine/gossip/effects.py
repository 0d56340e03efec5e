"""What gossip asks of its shell and of the pool, and what it counts. Read `core.py` first."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.gossip.frames import NOTHING, Kind
from kernels.layout import U8

COUNTS = (
    "records_in", "records_duplicate", "records_taken", "records_refused", "records_offending",
    "records_pushed", "records_served", "records_served_in", "hashes_announced", "hashes_listed",
    "hashes_wanted", "dropped_quota", "records_deferred", "dropped_want_full",
    "dropped_backlog_full", "dropped_serve_quota", "dropped_hear_quota", "dropped_frame_quota",
    "dropped_page_busy", "dropped_not_judged",
    "dropped_banned", "pushes_deferred", "unanswered", "unasked", "bad_frames", "bans",
)  # fmt: skip
"""Names of what is counted, for /metrics; frames and bytes are counted by the link."""


class PoolView(Protocol):
    """What gossip reads of the pool."""

    def waits(self, hashes: U8) -> NDArray[np.bool_]:
        """Say for each of (n, 32) hashes whether it waits."""

    def find(self, hashes: U8) -> tuple[U8, U8]:
        """Return those of (n, 32) hashes that wait, (m, 32), and their records, (m, 192)."""

    def page(self, place: int, count_max: int) -> tuple[U8, int]:
        """Return the first hashes that wait from a place on, (m, 32), by arrival.

        Also returns the place at which the next page begins, 0 where there is none.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Send:
    """A frame for a peer; whoever could not send it tells `Gossip.not_sent`."""

    peer: bytes
    kind: Kind
    data: bytes
    hashes: U8 = field(default_factory=lambda: NOTHING)
    """of PUSH, ANNOUNCE and WANT: what the frame is about"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """Disconnect a peer and refuse it until a time."""

    peer: bytes
    until_ms: int
    reason: str


Effect = Send | Ban


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Records to be judged by the pool, from one or more peers."""

    records: U8
    """(n, 192)"""
    hashes: U8
    origins: tuple[tuple[bytes, int], ...]
    """peers, and how many records of each, in order"""
