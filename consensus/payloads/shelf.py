"""What a node keeps of payloads, whole or in part, within a bound.

Spec: spec/dissemination.md#memory. Four standings: WANTED is being fetched, HELD is pinned until it
is dropped, CACHED is whole and was dropped or read back, UNASKED was pushed by a member and nobody
has asked for it yet. Only the first two are promises; the others give way. Next: `transfer.py`.
"""

from dataclasses import dataclass, field
from enum import Enum

from consensus.core.types import Hash32
from consensus.payloads.chunks import ChunkTree, chunk_count, tree_of_leaves
from consensus.payloads.limits import ENTRIES_MAX, UNASKED_PER_SENDER_MAX, MemoryLimits

ENTRY_COST_BYTES = 1_024
CHUNK_COST_BYTES = 512
"""head and path that stay with a chunk until its payload is whole"""


class Standing(Enum):
    """Why an entry is kept."""

    WANTED = "wanted"
    HELD = "held"
    CACHED = "cached"
    UNASKED = "unasked"


@dataclass(slots=True, kw_only=True)
class Entry:
    """One payload: its chunks while they arrive, then the bytes and their tree."""

    commitment: Hash32
    payload_bytes: int
    """proved once a chunk is here; before that what a header says, which may be wrong"""
    standing: Standing
    sender: bytes = b""
    """who pushed the first chunk of an UNASKED one; empty: left over from a fetch"""
    is_for_strangers: bool = False
    """read back for a stranger, and nobody else asked for it"""
    touched_ms: int
    chunks: dict[int, memoryview] = field(default_factory=dict)
    leaves: dict[int, Hash32] = field(default_factory=dict)
    payload: bytes | None = None
    tree: ChunkTree | None = None

    @property
    def cost_bytes(self) -> int:
        """What it counts for, the chunks that are still to come included."""
        return cost_of(self.payload_bytes)

    def add(self, index: int, data: memoryview, leaf: Hash32) -> None:
        """Keep a proved chunk; put the payload together when it was the last one."""
        assert self.payload is None, "a whole payload takes no chunk"
        assert index not in self.chunks, "a chunk is added once"
        self.chunks[index] = data
        self.leaves[index] = leaf
        count = chunk_count(self.payload_bytes)
        if len(self.chunks) < count:
            return
        payload = b"".join(self.chunks[i] for i in range(count))
        tree = tree_of_leaves(self.payload_bytes, [self.leaves[i] for i in range(count)])
        assert len(payload) == self.payload_bytes, "every chunk has its exact length"
        assert tree.commitment == self.commitment, "every chunk was proved"
        self.complete(payload, tree)

    def complete(self, payload: bytes, tree: ChunkTree) -> None:
        """Take the whole payload."""
        self.payload, self.tree = payload, tree
        self.payload_bytes = len(payload)
        self.chunks.clear()
        self.leaves.clear()


def cost_of(payload_bytes: int) -> int:
    """Return what a payload counts for."""
    return payload_bytes + ENTRY_COST_BYTES + CHUNK_COST_BYTES * chunk_count(payload_bytes)


class Shelf:
    """The entries by commitment; their cost together never exceeds the limit.

    `gone` collects entries that had to give way; the owner empties it.
    """

    def __init__(self, memory: MemoryLimits) -> None:
        """Make an empty shelf."""
        self._memory = memory
        self._entries: dict[bytes, Entry] = {}
        self._by_standing: dict[Standing, dict[bytes, Entry]] = {s: {} for s in Standing}
        """each in the order of use, the least recent first"""
        self.used_bytes = 0
        self.gone: list[Entry] = []

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def get(self, commitment: bytes) -> Entry | None:
        """Return an entry, whole or not."""
        return self._entries.get(commitment)

    def of(self, standing: Standing) -> list[Entry]:
        """Return the entries of one standing, the least recently used first."""
        return list(self._by_standing[standing].values())

    def touch(self, entry: Entry, now_ms: int) -> None:
        """Note that an entry was used."""
        entry.touched_ms = now_ms
        order = self._by_standing[entry.standing]
        order[entry.commitment] = order.pop(entry.commitment)

    def change(self, entry: Entry, standing: Standing) -> None:
        """Give an entry another standing."""
        del self._by_standing[entry.standing][entry.commitment]
        entry.standing = standing
        if standing is Standing.HELD:
            entry.is_for_strangers = False
        self._by_standing[standing][entry.commitment] = entry

    def remove(self, entry: Entry) -> None:
        """Forget an entry."""
        del self._entries[entry.commitment]
        del self._by_standing[entry.standing][entry.commitment]
        self.used_bytes -= entry.cost_bytes

    def put(self, entry: Entry, *, is_own: bool = False) -> bool:
        """Take a new entry, letting others give way as its standing allows; False: no room.

        Never False for an own build (`is_own`): it displaces even what is fetched or held.
        """
        assert entry.commitment not in self._entries, "an entry is put once"
        if entry.standing is Standing.UNASKED and not self._has_share(entry):
            return False
        if entry.is_for_strangers:
            self._make_share_of_strangers(entry.cost_bytes)
        if not self._make_room(entry.cost_bytes, 1, entry.standing, entry.sender, is_own):
            assert not is_own, "limits leave room for one payload"
            return False
        self._entries[entry.commitment] = entry
        self._by_standing[entry.standing][entry.commitment] = entry
        self.used_bytes += entry.cost_bytes
        return True

    def resize(self, entry: Entry, payload_bytes: int) -> bool:
        """Correct the length that a header gave wrongly; False: no room, nothing changed."""
        assert not entry.chunks, "a proved length does not change"
        more = cost_of(payload_bytes) - entry.cost_bytes
        if more > 0 and not self._make_room(more, 0, entry.standing, entry.sender, False):
            return False
        self.used_bytes += more
        entry.payload_bytes = payload_bytes
        return True

    def _has_share(self, entry: Entry) -> bool:
        """Let the sender's oldest go until the new one is within the sender's share."""
        limit = self._memory.unasked_per_sender_bytes_max
        own = [e for e in self.of(Standing.UNASKED) if e.sender == entry.sender]
        used = sum(e.cost_bytes for e in own)
        if entry.cost_bytes > limit + cost_of(0):
            return False
        while own and (len(own) >= UNASKED_PER_SENDER_MAX or used + entry.cost_bytes > limit):
            oldest = own.pop(0)
            used -= oldest.cost_bytes
            self._give_way(oldest)
        return True

    def _make_share_of_strangers(self, cost_bytes: int) -> None:
        """Let the least recent go of what strangers had read back: else they empty the cache."""
        limit = self._memory.strangers_cached_bytes_max
        theirs = [e for e in self.of(Standing.CACHED) if e.is_for_strangers]
        used = sum(e.cost_bytes for e in theirs)
        for entry in theirs:
            if used + cost_bytes <= limit:
                return
            used -= entry.cost_bytes
            self._give_way(entry)

    def _make_room(
        self, cost_bytes: int, count: int, standing: Standing, sender: bytes, is_own: bool
    ) -> bool:
        while (
            self.used_bytes + cost_bytes > self._memory.kept_bytes_max
            or len(self._entries) + count > ENTRIES_MAX
        ):
            victim = self._victim(standing, sender, cost_bytes, is_own)
            if victim is None:
                return False
            self._give_way(victim)
        return True

    def _victim(
        self, standing: Standing, sender: bytes, cost_bytes: int, is_own: bool
    ) -> Entry | None:
        cached = self._by_standing[Standing.CACHED]
        if cached:
            return next(iter(cached.values()))
        unasked = self._by_standing[Standing.UNASKED]
        if unasked:
            used: dict[bytes, int] = {}
            for entry in unasked.values():
                used[entry.sender] = used.get(entry.sender, 0) + entry.cost_bytes
            if standing is Standing.UNASKED:
                used[sender] = used.get(sender, 0) + cost_bytes
            heaviest = max(used, key=lambda key: (used[key], key))
            return next((e for e in unasked.values() if e.sender == heaviest), None)
        if is_own:
            for kind in (Standing.WANTED, Standing.HELD):
                for entry in self._by_standing[kind].values():
                    return entry
        return None

    def _give_way(self, entry: Entry) -> None:
        self.remove(entry)
        self.gone.append(entry)
