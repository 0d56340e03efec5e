"""How much a peer may send: token buckets by key, which a new connection does not refill."""

from runtime.links.limits import BUCKETS_MAX, FRAME_COST_BYTES, LinkLimits

MS_PER_S = 1_000


class TokenBucket:
    """So many tokens per second, so many at once; counted in thousandths, without a float."""

    __slots__ = ("_at_ms", "_burst", "_left", "_per_s")

    def __init__(self, *, per_s: int, burst: int, now_ms: int) -> None:
        """Begin full."""
        self._per_s = per_s
        self._burst = burst * MS_PER_S
        self._left = self._burst
        self._at_ms = now_ms

    def take(self, tokens: int, now_ms: int) -> bool:
        """Take so many tokens, or none and say so."""
        self._refill(now_ms)
        if tokens * MS_PER_S > self._left:
            return False
        self._left -= tokens * MS_PER_S
        return True

    def missing(self, now_ms: int) -> int:
        """Return how many thousandths of a token are missing; 0: as good as a new bucket."""
        self._refill(now_ms)
        return self._burst - self._left

    def _refill(self, now_ms: int) -> None:
        if now_ms > self._at_ms:
            self._left = min(self._burst, self._left + (now_ms - self._at_ms) * self._per_s)
            self._at_ms = now_ms


class Quotas:
    """One bucket per key and rank. Full ones are forgotten, the rest is bounded by BUCKETS_MAX."""

    def __init__(self, limits: LinkLimits) -> None:
        """Begin with nobody."""
        self._limits = limits
        self._buckets: dict[tuple[bytes, bool], TokenBucket] = {}

    def charge(self, key: bytes, frame_bytes: int, *, is_full: bool, now_ms: int) -> bool:
        """Charge a frame to its sender; False: beyond the quota, and nothing is charged.

        `is_full`: the sender has the quota of members.
        """
        bucket = self._buckets.get((key, is_full))
        if bucket is None:
            if len(self._buckets) >= BUCKETS_MAX:
                self._forget_one(now_ms)
            bucket = self._buckets[key, is_full] = self._new(is_full=is_full, now_ms=now_ms)
        return bucket.take(frame_bytes + FRAME_COST_BYTES, now_ms)

    def tick(self, now_ms: int) -> None:
        """Forget the buckets that are full again."""
        full = [name for name, bucket in self._buckets.items() if not bucket.missing(now_ms)]
        for name in full:
            del self._buckets[name]

    def __len__(self) -> int:
        """Return how many buckets are held."""
        return len(self._buckets)

    def _new(self, *, is_full: bool, now_ms: int) -> TokenBucket:
        limits = self._limits
        if is_full:
            per_s, burst = limits.member_bytes_per_s, limits.member_burst_bytes
        else:
            per_s, burst = limits.stranger_bytes_per_s, limits.stranger_burst_bytes
        return TokenBucket(per_s=per_s, burst=burst, now_ms=now_ms)

    def _forget_one(self, now_ms: int) -> None:
        fullest = min(self._buckets, key=lambda name: self._buckets[name].missing(now_ms))
        del self._buckets[fullest]
