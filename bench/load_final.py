"""When transfers became final, found out without asking for each of them.

One listener follows the `finalized` events of a node and notes when each height came; if the node
goes away it follows the next one. After a run the sampled transfers are asked for once: the time of
their block is their time. A height that was missed while nobody was followed counts with the next
one that was seen, so a figure is never better than what a client would have seen.
"""

import bisect
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from engine.client import Client, NodeError

T = TypeVar("T")
PAUSE_S = 0.1
"""before another node is tried"""
HEIGHTS_MAX = 2**22


class AnyNode:
    """Asks one of several nodes; the next one where it does not answer. For one thread."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Begin with the first."""
        self._urls = list(dict.fromkeys(urls))
        self._at = 0
        self._client = Client(self._urls[0])

    @property
    def client(self) -> Client:
        """The node that is asked now."""
        return self._client

    def turn(self) -> None:
        """Ask the next node from now on."""
        self._client.close()
        self._at = (self._at + 1) % len(self._urls)
        self._client = Client(self._urls[self._at])

    def ask(self, question: Callable[[Client], T], rounds: int = 1) -> T:
        """Return the first answer; raises NodeError where no node has one in so many rounds."""
        left = rounds * len(self._urls)
        while True:
            try:
                return question(self._client)
            except NodeError:
                left -= 1
                self.turn()
                if not left:
                    raise
                time.sleep(PAUSE_S)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


class FinalHeights:
    """Follows finality in a thread that ends with the process, or after `stop`."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Prepare to follow the first of these that answers."""
        self._nodes = AnyNode(urls)
        self._heights: list[int] = []
        """ascending"""
        self._seen_ns: list[int] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="finality", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; the thread ends with its next event."""
        self._is_over.set()

    def seen_ns(self, height: int) -> int | None:
        """Return when a height was final at the latest (monotonic clock); None: not yet."""
        with self._lock:
            at = bisect.bisect_left(self._heights, height)
            return self._seen_ns[at] if at < len(self._heights) else None

    @property
    def highest(self) -> int:
        """The highest height that was seen, 0 at first."""
        with self._lock:
            return self._heights[-1] if self._heights else 0

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                # What is final already when the listening begins is final now.
                self._note(self._nodes.client.block("finalized").height)
                for _, kind, values in self._nodes.client.events():
                    if kind == "finalized":
                        self._note(int(values["height"]))
                    if self._is_over.is_set():
                        break
            except NodeError:
                self._nodes.turn()
                self._is_over.wait(PAUSE_S)

    def _note(self, height: int) -> None:
        now_ns = time.monotonic_ns()
        with self._lock:
            if (not self._heights or height > self._heights[-1]) and height < HEIGHTS_MAX:
                self._heights.append(height)
                self._seen_ns.append(now_ns)
