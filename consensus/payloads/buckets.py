"""A rate of bytes, with a burst: what a peer, or several together, may cost."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Bucket:
    """A token bucket of integers; it may go below zero by what is taken at last."""

    bytes_per_s: int
    burst_bytes: int
    level_bytes: int
    filled_ms: int

    @classmethod
    def full(cls, *, bytes_per_s: int, burst_bytes: int, now_ms: int) -> "Bucket":
        """Return one from which nothing was taken yet."""
        return cls(
            bytes_per_s=bytes_per_s,
            burst_bytes=burst_bytes,
            level_bytes=burst_bytes,
            filled_ms=now_ms,
        )

    def is_open(self, now_ms: int) -> bool:
        """Fill up to now; say whether something may be taken."""
        more = (now_ms - self.filled_ms) * self.bytes_per_s // 1000
        self.level_bytes = min(self.burst_bytes, self.level_bytes + more)
        self.filled_ms = now_ms
        return self.level_bytes > 0

    def take(self, taken_bytes: int) -> None:
        """Take what is sent."""
        self.level_bytes -= taken_bytes
