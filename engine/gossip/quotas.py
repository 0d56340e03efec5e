"""How much one peer may cost: counted amounts that come back with time, and points for misconduct.

Integers alone; time is an argument. Spec: spec/gossip.md#conduct.
"""

MS_PER_S = 1_000
BAN_POINTS = 100
POINTS_PER_S = 1
"""that wear off"""


class Bucket:
    """An amount that is spent and comes back at a rate."""

    def __init__(self, *, per_s: int, burst: int, now_ms: int) -> None:
        """Start full."""
        self._per_s = per_s
        self._burst_milli = burst * MS_PER_S
        self._left_milli = self._burst_milli
        self._at_ms = now_ms

    def take(self, count: int, now_ms: int) -> bool:
        """Spend so many; False, and nothing is spent, where there is less than that."""
        self._refill(now_ms)
        if self._left_milli < count * MS_PER_S:
            return False
        self._left_milli -= count * MS_PER_S
        return True

    def charge(self, count: int, now_ms: int) -> None:
        """Spend so many even where there is less; at most one whole burst is owed."""
        self._refill(now_ms)
        self._left_milli = max(self._left_milli - count * MS_PER_S, -self._burst_milli)

    def _refill(self, now_ms: int) -> None:
        passed_ms = max(0, now_ms - self._at_ms)
        self._left_milli = min(self._burst_milli, self._left_milli + passed_ms * self._per_s)
        self._at_ms = max(self._at_ms, now_ms)


class Score:
    """Points of one peer."""

    def __init__(self, now_ms: int) -> None:
        """Start without any."""
        self._points_milli = 0
        self._at_ms = now_ms

    def add(self, points: int, now_ms: int) -> bool:
        """Add points; say whether they are enough for a ban."""
        worn_milli = max(0, now_ms - self._at_ms) * POINTS_PER_S
        self._points_milli = max(0, self._points_milli - worn_milli) + points * MS_PER_S
        self._at_ms = max(self._at_ms, now_ms)
        return self._points_milli >= BAN_POINTS * MS_PER_S
