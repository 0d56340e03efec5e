"""What waits for the loop of a node: bounded messages of peers, and everything else.

Answers, payloads and read blocks are as many as were asked for, so they are never refused and go
first. Messages can be as many as peers like: at most so many wait, and of one peer at most so many.
Of requests, which anybody may send, fewer wait, so that votes find room; and a few messages of each
peer that may send others, the validators, find room whatever the rest of them sent. A refused one
is counted, and the core's retransmission repairs it. Any thread may put.
"""

import threading
from collections import Counter, deque

from consensus.core.events import Event, Received
from consensus.core.state import REQUESTS_MAX as ANSWERED_MAX
from consensus.core.types import Message, PeerId, Request
from consensus.waiting import seconds

MESSAGES_MAX = 4_096
PEER_MESSAGES_MAX = 1_024
PEER_MESSAGES_KEPT = 16
"""of a peer, requests aside, that find room beyond MESSAGES_MAX: what it says in a view or two"""
REQUESTS_MAX = 1_024
PEER_REQUESTS_MAX = ANSWERED_MAX
"""more of one peer would not be answered at once"""


class Inbox:
    """Two queues before one reader."""

    def __init__(
        self,
        messages_max: int = MESSAGES_MAX,
        peer_messages_max: int = PEER_MESSAGES_MAX,
        peer_messages_kept: int = PEER_MESSAGES_KEPT,
        requests_max: int = REQUESTS_MAX,
        peer_requests_max: int = PEER_REQUESTS_MAX,
    ) -> None:
        """Begin empty."""
        self._messages_max, self._requests_max = messages_max, requests_max
        self._peer_messages_max, self._peer_messages_kept = peer_messages_max, peer_messages_kept
        self._peer_requests_max = peer_requests_max
        self._condition = threading.Condition()
        self._events: deque[Event] = deque()
        self._messages: deque[Received] = deque()
        self._of_peer: Counter[PeerId] = Counter()
        self._requests: Counter[PeerId] = Counter()
        self._request_count = 0
        self._is_woken = False
        self.refused_count = 0
        """messages that found no room"""

    def __len__(self) -> int:
        """Count what waits."""
        return len(self._events) + len(self._messages)

    def put(self, event: Event) -> None:
        """Add an event that is never refused."""
        with self._condition:
            self._events.append(event)
            self._condition.notify()

    def offer(self, peer: PeerId, message: Message) -> bool:
        """Add a message; False: no room, it is dropped."""
        is_request = isinstance(message, Request)
        with self._condition:
            if not (self._has_room(peer) and (not is_request or self._may_ask(peer))):
                self.refused_count += 1
                return False
            self._of_peer[peer] += 1
            if is_request:
                self._requests[peer] += 1
                self._request_count += 1
            self._messages.append(Received(peer=peer, message=message))
            self._condition.notify()
            return True

    def _has_room(self, peer: PeerId) -> bool:
        """Say whether one more message of a peer may wait."""
        is_full = len(self._messages) >= self._messages_max
        return self._of_peer[peer] < (
            self._peer_messages_kept if is_full else self._peer_messages_max
        )

    def _may_ask(self, peer: PeerId) -> bool:
        """Say whether one more request of a peer may wait: none is kept room for."""
        return (
            len(self._messages) < self._messages_max
            and self._request_count < self._requests_max
            and self._requests[peer] < self._peer_requests_max
        )

    def wake(self) -> None:
        """Let `take` return now."""
        with self._condition:
            self._is_woken = True
            self._condition.notify()

    def take(self, wait_ms: int) -> Event | None:
        """Return the next event, after at most so long, or None."""
        with self._condition:
            if not self._events and not self._messages and not self._is_woken and wait_ms > 0:
                self._condition.wait(seconds(wait_ms))
            self._is_woken = False
            if self._events:
                return self._events.popleft()
            if not self._messages:
                return None
            received = self._messages.popleft()
            _take_one(self._of_peer, received.peer)
            if isinstance(received.message, Request):
                _take_one(self._requests, received.peer)
                self._request_count -= 1
            return received


def _take_one(counts: Counter[PeerId], peer: PeerId) -> None:
    """Count one less; nothing is remembered of who has nothing."""
    counts[peer] -= 1
    if not counts[peer]:
        del counts[peer]
