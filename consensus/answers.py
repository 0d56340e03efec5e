"""What peers wait for that only the disk can tell: in turn, once each, in a part of its time.

To read a range costs the thread that writes votes a millisecond or more, and the core's limit is
one of each peer, so that many faulty members would keep it from all else. So peers take turns,
however much each asks for, a question that waits already is not queued again, and the thread rests
after each answer. What finds no room is counted and dropped: who needs it asks again.
Spec: spec/consensus.md#shell. Next: `disk.py`, whose thread owns this.
"""

from consensus.core.events import AnswerFromStore
from consensus.core.types import PeerId, Request
from consensus.waiting import NS_PER_MS

PEER_WAITING_MAX = 16
"""answers that one peer waits for"""
WAITING_MAX = 4_096
"""the same of all; beyond, one of each peer that waits for none, and of as many peers at most"""
RESTS_PER_ANSWER = 4
"""times that an answer took for which no other follows: a fifth of the thread's time at most"""
REST_MS_MAX = 100
"""so much at the most: time that the machine gave to others counts as well"""


class Answers:
    """A queue for each peer, and the time from which on the next of them is served."""

    def __init__(self, peer_max: int = PEER_WAITING_MAX, waiting_max: int = WAITING_MAX) -> None:
        """Begin empty."""
        self._peer_max, self._waiting_max = peer_max, waiting_max
        self._waiting: dict[PeerId, dict[Request, None]] = {}
        """by peer, whose turn is next at first; of each the oldest at first; nobody has none"""
        self._count = 0
        self._from_ns = 0
        self.refused_count = 0
        """answers that found no room"""

    def __len__(self) -> int:
        """Count what waits."""
        return self._count

    def put(self, effect: AnswerFromStore) -> None:
        """Let an answer wait, unless it does so already or finds no room."""
        asked = self._waiting.get(effect.peer)
        if asked is not None and effect.request in asked:
            return
        if not self._has_room(0 if asked is None else len(asked)):
            self.refused_count += 1
            return
        self._waiting.setdefault(effect.peer, {})[effect.request] = None
        self._count += 1

    def _has_room(self, of_peer: int) -> bool:
        """Say whether one more may wait, of a peer that waits for so many."""
        if self._count < self._waiting_max:
            return of_peer < self._peer_max
        return of_peer == 0 and len(self._waiting) < self._waiting_max

    def take(self, now_ns: int) -> AnswerFromStore | None:
        """Return the next answer to give; None: nobody waits, or it is a rest."""
        if not self._waiting or now_ns < self._from_ns:
            return None
        peer = next(iter(self._waiting))
        asked = self._waiting.pop(peer)
        request = next(iter(asked))
        del asked[request]
        self._count -= 1
        if asked:
            self._waiting[peer] = asked
        return AnswerFromStore(peer=peer, request=request)

    def rest(self, start_ns: int, end_ns: int) -> None:
        """Begin the rest after an answer that was worked at from `start_ns` to `end_ns`."""
        self._from_ns = end_ns + min(
            RESTS_PER_ANSWER * (end_ns - start_ns), REST_MS_MAX * NS_PER_MS
        )

    def wait_ms(self, now_ns: int) -> int | None:
        """Return how long the rest lasts, rounded up; None: nobody waits."""
        if not self._waiting:
            return None
        return -(-max(0, self._from_ns - now_ns) // NS_PER_MS)
