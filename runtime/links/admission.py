"""Who may speak on a link: members, those whom we dial, strangers where there is room, no banned.

Rules without sockets. Spec: spec/network.md#admission.
"""

from collections.abc import Collection

from runtime.links.limits import BANS_MAX, LinkLimits


class Refused(Exception):
    """A peer is not let in, or what it sent is not taken; `reason` is what is counted."""

    def __init__(self, reason: str) -> None:
        """Keep the reason: one word, the end of the name `refused_<reason>`."""
        super().__init__(reason)
        self.reason = reason


class Bans:
    """Keys that are refused until a time; at most BANS_MAX of them."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._until_ms: dict[bytes, int] = {}

    def add(self, key: bytes, until_ms: int) -> None:
        """Ban until then; a longer ban stays."""
        if key not in self._until_ms and len(self._until_ms) >= BANS_MAX:
            del self._until_ms[min(self._until_ms, key=lambda name: self._until_ms[name])]
        self._until_ms[key] = max(until_ms, self._until_ms.get(key, until_ms))

    def holds(self, key: bytes, now_ms: int) -> bool:
        """Say whether a key is banned now."""
        until_ms = self._until_ms.get(key)
        return until_ms is not None and now_ms < until_ms

    def tick(self, now_ms: int) -> list[bytes]:
        """Forget the bans that have ended, and return their keys."""
        ended = [key for key, until_ms in self._until_ms.items() if now_ms >= until_ms]
        for key in ended:
            del self._until_ms[key]
        return ended

    def banned(self) -> frozenset[bytes]:
        """Return the banned keys."""
        return frozenset(self._until_ms)


class Admission:
    """Decides for one link who is let in and who has the quota of members."""

    def __init__(self, *, own_key: bytes, limits: LinkLimits, members: Collection[bytes]) -> None:
        """Begin with these members, dialling nobody."""
        self._own_key = own_key
        self._limits = limits
        self.members = frozenset(members) - {own_key}
        self.dialled: frozenset[bytes] = frozenset()
        self.bans = Bans()

    @property
    def takes_strangers(self) -> bool:
        """Say whether a key that is neither a member nor dialled may prove itself at all."""
        return self._limits.stranger_bytes_per_s > 0

    def is_full(self, key: bytes) -> bool:
        """Say whether a key has the quota of members."""
        return key in self.members or key in self.dialled

    def set_members(self, keys: Collection[bytes]) -> None:
        """Replace the members."""
        self.members = frozenset(keys) - {self._own_key}

    def check(self, key: bytes, strangers: int, now_ms: int) -> None:
        """Raise Refused where a key may not come in; `strangers`: how many are in already."""
        if key == self._own_key:
            raise Refused("own_key")
        if self.bans.holds(key, now_ms):
            raise Refused("banned")
        if self.is_full(key):
            return
        if not self.takes_strangers:
            raise Refused("stranger")
        if strangers >= self._limits.peers_max - len(self.members):
            raise Refused("no_room")
