"""Effects of one event, put in the one order in which they are safe.

Everything that leaves for a peer stands behind the records of the same event in one `Persist`, so
that no component has to think of W1 when it sends. Spec: spec/consensus.md#journal.
"""

from consensus.core.events import (
    Broadcast,
    Effect,
    Persist,
    Send,
    SendEffect,
    WakeAt,
)
from consensus.core.types import Boundary, Evidence, FinalizedBlock, Message, PeerId


class Outbox:
    """Collects until `take`."""

    __slots__ = (
        "appended_bytes",
        "boundary",
        "evidence",
        "finalized",
        "now_effects",
        "records",
        "then",
        "wake_ms",
    )

    def __init__(self) -> None:
        """Begin empty."""
        self.records: list[bytes] = []
        self.finalized: list[FinalizedBlock] = []
        self.boundary: Boundary | None = None
        self.evidence: list[Evidence] = []
        self.then: list[SendEffect] = []
        self.now_effects: list[Effect] = []
        self.appended_bytes = 0
        """to the journal since it was last cut"""
        self.wake_ms: int | None = None
        """the last WakeAt"""

    def record(self, record: bytes) -> None:
        """Append to the journal before anything of this event leaves."""
        self.records.append(record)
        self.appended_bytes += len(record)

    def send(self, peer: PeerId, message: Message) -> None:
        """Send after the sync."""
        self.then.append(Send(peer=peer, message=message))

    def broadcast(self, message: Message) -> None:
        """Send to all after the sync."""
        self.then.append(Broadcast(message=message))

    def is_empty(self) -> bool:
        """Say whether nothing was put in since `take`."""
        return not (self.then or self.records or self.now_effects or self.evidence)

    def take(self, cut: tuple[bytes, ...] | None, wake_ms: int) -> list[Effect]:
        """Return what one event came to and begin anew.

        `cut` holds the whole journal, this event's records included, or is None.
        """
        effects: list[Effect] = []
        if self.then or self.records or self.finalized or self.evidence or cut or self.boundary:
            effects.append(
                Persist(
                    finalized=tuple(self.finalized),
                    boundary=self.boundary,
                    evidence=tuple(self.evidence),
                    append=() if cut is not None else tuple(self.records),
                    cut=cut,
                    then=tuple(self.then),
                )
            )
            self.records, self.finalized, self.evidence, self.then = [], [], [], []
            self.boundary = None
            if cut is not None:
                self.appended_bytes = 0
        if self.now_effects:
            effects += self.now_effects
            self.now_effects = []
        if wake_ms != self.wake_ms:
            self.wake_ms = wake_ms
            effects.append(WakeAt(at_ms=wake_ms))
        return effects
