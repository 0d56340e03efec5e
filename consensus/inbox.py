"""What waits for the loop of a node: bounded messages of peers, and everything else.

Answers, payloads and read blocks are as many as were asked for, so they are never refused and go
first. Messages can be as many as peers like: at most so many wait, of one peer at most so many, and
of requests, which anybody may send, at most so many, so that votes find room; a refused one is
counted, and the core's retransmission repairs it. Any thread may put.
"""

import threading
from collections import deque

from consensus.core.events import Event, Received
from consensus.core.types import Message, PeerId, Request
from consensus.waiting import seconds

MESSAGES_MAX = 4_096
PEER_MESSAGES_MAX = 1_024
REQUESTS_MAX = 1_024


class Inbox:
    """Two queues before one reader."""

    def __init__(
        self,
        messages_max: int = MESSAGES_MAX,
        peer_messages_max: int = PEER_MESSAGES_MAX,
        requests_max: int = REQUESTS_MAX,
    ) -> None:
        """Begin empty."""
        self._messages_max, self._peer_messages_max = messages_max, peer_messages_max
        self._requests_max = requests_max
        self._condition = threading.Condition()
        self._events: deque[Event] = deque()
        self._messages: deque[Received] = deque()
        self._of_peer: dict[PeerId, int] = {}
        self._requests = 0
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
        with self._condition:
            waiting = self._of_peer.get(peer, 0)
            is_request = isinstance(message, Request)
            if (
                len(self._messages) >= self._messages_max
                or waiting >= self._peer_messages_max
                or (is_request and self._requests >= self._requests_max)
            ):
                self.refused_count += 1
                return False
            self._requests += is_request
            self._of_peer[peer] = waiting + 1
            self._messages.append(Received(peer=peer, message=message))
            self._condition.notify()
            return True

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
            self._requests -= isinstance(received.message, Request)
            left = self._of_peer[received.peer] - 1
            if left:
                self._of_peer[received.peer] = left
            else:
                del self._of_peer[received.peer]
            return received
