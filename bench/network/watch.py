"""What a network shows while it runs: status pages, final heights, blocks, use of the machine.

One thread per validator asks its /status; one more reads the header of every final height from
whichever executor answers. What anybody reported as final is kept, so that a second block at one
height, or a final one that is lost later, is found.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.load_final import AnyNode
from bench.network.homes import Place
from bench.network.processes import Validator, peak_bytes, sample
from consensus.client import ClientError, read_page
from engine.client import NodeError

POLL_S = 0.25
BLOCK_POLL_S = 0.2
ROLES = ("consensus", "executor")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSeen:
    """A final block and when it was first seen to be final."""

    height: int
    hash: str
    transaction_count: int
    timestamp_ms: int
    seen_ns: int


@dataclass(slots=True, kw_only=True)
class Usage:
    """What the processes of one validator used, over all their lives."""

    cpu_ms: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    peak_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    _lives: dict[tuple[int, int], int] = field(default_factory=dict)
    """(pid, start) -> CPU counted already"""

    def add(self, role: str, pid: int) -> None:
        """Take a process into account.

        What it was a parent of counts with it, except where that has a role of its own: consensus
        is the parent of its executors, those that were killed among them.
        """
        found = sample(pid)
        if found is None:
            return
        life = pid, found.started_ticks
        used_ms = found.cpu_ms + (found.ended_ms if role != "consensus" else 0)
        self.cpu_ms[role] += used_ms - self._lives.get(life, 0)
        self._lives[life] = used_ms
        self.peak_bytes[role] = max(self.peak_bytes[role], peak_bytes(pid))

    def take(self, validator: Validator) -> None:
        """Take both processes of a validator into account."""
        if validator.is_running:
            self.add("consensus", validator.pid)
            for pid in validator.executor_pids():
                self.add("executor", pid)


class Watch:
    """Looks at all validators, from `start` to `stop`."""

    def __init__(self, places: Sequence[Place]) -> None:
        """Prepare."""
        self._places = places
        self._lock = threading.Lock()
        self._status: dict[int, Mapping[str, Any]] = {}
        self._last: dict[int, Mapping[str, Any]] = {}
        self._trouble: dict[int, str] = {}
        self._reported: dict[int, str] = {}
        """height -> hash that somebody reported as final"""
        self._blocks: list[BlockSeen] = []
        self._first_seen_ns: dict[int, int] = {}
        self.conflicts: list[str] = []
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._poll, args=(place,), daemon=True) for place in places
        ]
        self._threads.append(threading.Thread(target=self._read_blocks, daemon=True))

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more; threads that wait for an answer end with it."""
        self._is_over.set()

    def status(self, number: int) -> Mapping[str, Any]:
        """Return the page of a validator as it is now, empty where it does not answer."""
        with self._lock:
            return self._status.get(number, {})

    def last(self, number: int) -> Mapping[str, Any]:
        """Return the last page that a validator showed, empty before the first."""
        with self._lock:
            return self._last.get(number, {})

    def trouble(self, number: int) -> str:
        """Say why a validator does not answer at this moment; empty when it does."""
        with self._lock:
            return self._trouble.get(number, "not asked yet")

    def height(self, number: int) -> int:
        """Return the last final height that a validator reported."""
        return int(self.status(number).get("finalized", {}).get("height", 0))

    def executor_height(self, number: int) -> int:
        """Return the last final height that a validator's executor had."""
        return int(self.status(number).get("executor", {}).get("finalized_height", 0))

    @property
    def highest(self) -> int:
        """Highest height that anybody reported as final."""
        with self._lock:
            return max(self._reported, default=0)

    def reported(self) -> dict[int, str]:
        """Return height -> hash of all that was reported as final."""
        with self._lock:
            return dict(self._reported)

    def blocks(self) -> list[BlockSeen]:
        """Return the final blocks that were read, ascending from height 1."""
        with self._lock:
            return list(self._blocks)

    def seen_ns(self, height: int) -> int | None:
        """Return when a height, or a higher one, was first reported as final; None: not yet."""
        with self._lock:
            times = [at for seen, at in self._first_seen_ns.items() if seen >= height]
        return min(times, default=None)

    def note_final(self, who: str, height: int, name: str) -> None:
        """Take down that somebody says that a block is final."""
        with self._lock:
            known = self._reported.setdefault(height, name)
            self._first_seen_ns.setdefault(height, time.monotonic_ns())
            if known != name:
                self.conflicts.append(f"height {height}: {known} is final, and {name} for {who}")

    def _poll(self, place: Place) -> None:
        while not self._is_over.wait(POLL_S):
            try:
                status = read_page(f"http://{place.pages}", "/status")
            except ClientError as error:
                with self._lock:
                    self._status.pop(place.number, None)
                    self._trouble[place.number] = error.why
                continue
            with self._lock:
                self._status[place.number] = self._last[place.number] = status
                self._trouble[place.number] = ""
            final = status["finalized"]
            self.note_final(place.home.name, int(final["height"]), str(final["hash"]))

    def _read_blocks(self) -> None:
        nodes = AnyNode([place.query_url for place in self._places])
        height = 1
        while not self._is_over.wait(BLOCK_POLL_S):
            while height <= self.highest and not self._is_over.is_set():
                try:
                    block = nodes.client.block(str(height))
                except NodeError:
                    # Its executor is away, or has not finalized this height yet.
                    nodes.turn()
                    break
                if not block.is_final:
                    break
                seen_ns = self.seen_ns(height)
                assert seen_ns is not None, "somebody reported it"
                self.note_final("an executor", height, block.hash)
                with self._lock:
                    self._blocks.append(
                        BlockSeen(
                            height=height,
                            hash=block.hash,
                            transaction_count=block.transaction_count,
                            timestamp_ms=block.timestamp_ms,
                            seen_ns=seen_ns,
                        )
                    )
                height += 1
        nodes.close()
