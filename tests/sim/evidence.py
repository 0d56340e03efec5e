"""I9: who equivocates where an honest node can see it is reported, and nobody else is."""

from typing import TYPE_CHECKING

from consensus.core.types import Evidence, Kind, Propose, Vote

if TYPE_CHECKING:
    from tests.sim.invariants import Checks
    from tests.sim.node import Node
    from tests.sim.world import World

EVIDENCE_WITHIN_MS = 1000


class EvidenceChecks:
    """Votes of faulty validators as honest nodes hear them, and the evidence that is owed."""

    def __init__(self, world: "World", checks: "Checks") -> None:
        """Nothing was heard."""
        self.world = world
        self.checks = checks
        self.arithmetic = checks.arithmetic
        self._heard: dict[int, dict[tuple[int, int, int], list[bytes | None]]] = {}
        self.owed: dict[int, dict[tuple[int, int, int], int]] = {}
        """host -> (signer, epoch, view) -> when evidence is due"""

    def forget(self, node: "Node") -> None:
        """Begin or end a life of a node: what only its memory held owes nothing."""
        self._heard[node.host] = {}
        self.owed[node.host] = {}

    def check_owed(self, node: "Node") -> None:
        """Check that nothing which a node owes is overdue."""
        owed = self.owed[node.host]
        if min(owed.values()) < self.world.now_ms:
            key = min(owed, key=lambda item: owed[item])
            text = f"node {node.index} saw signer {key} equivocate and stores no evidence"
            self.checks.fail("I9", text)

    def proposed(self, node: "Node", message: Propose) -> None:
        """See a proposal arrive, whose vote counts like any other if the whole holds."""
        if self._is_whole(message):
            self.heard(node, message.vote)

    def heard(self, node: "Node", message: Vote) -> None:
        """Note a vote of a faulty validator; two that conflict owe evidence."""
        replica = node.replica
        assert replica is not None, "only running nodes hear"
        if message.epoch != replica.epoch or node.index in self.world.byzantine:
            return
        if message.signer not in self.arithmetic.epoch(message.epoch).faulty_signers:
            return
        # By certificate: a node whose blocks come late knows of finality long before it stores it,
        # and 8 views below that it has forgotten who voted what.
        if not replica.final_view < message.view <= replica.view + 1:
            return
        if replica.is_halted or not self.arithmetic.is_signed(message):
            return
        key = (message.signer, message.epoch, message.view)
        heard = self._heard[node.host].setdefault(key, [None] * 4)
        first = heard[message.kind]
        if first is None:
            heard[message.kind] = message.pid
        is_crime = first not in (None, message.pid) or (
            heard[Kind.NULLIFY] is not None and heard[Kind.FINALIZE] is not None
        )
        if is_crime and not self._is_told(node, key):
            self.owed[node.host].setdefault(key, self.world.now_ms + EVIDENCE_WITHIN_MS)

    def _is_whole(self, message: Propose) -> bool:
        """Say whether the parts of a proposal belong together and are its leader's."""
        proposal, vote = message.proposal, message.vote
        length = self.world.scenario.heights_per_epoch
        boundary = max(0, (proposal.epoch - 1) * length)
        facts, final = self.arithmetic.epoch(proposal.epoch), self.checks.final
        if boundary >= len(final) or vote.signer >= len(facts.nodes):
            return False
        leader = self.arithmetic.leader(proposal.epoch, proposal.view, final[boundary])
        return (
            facts.nodes[vote.signer] == leader
            and proposal.parent_view < proposal.view
            and (vote.kind, vote.epoch, vote.view) == (Kind.NOTARIZE, proposal.epoch, proposal.view)
            and vote.pid == self.arithmetic.proposal_id(proposal)
            and proposal.block_hash == self.arithmetic.block_hash(message.header)
        )

    def _is_told(self, node: "Node", key: tuple[int, int, int]) -> bool:
        return any(
            (item.first.signer, item.first.epoch, item.first.view) == key
            for item in node.store.evidence
        )

    def stored(self, node: "Node", item: Evidence) -> None:
        """I9: evidence holds and is never against an honest validator."""
        if node.index in self.world.byzantine:
            return
        a, b = item.first, item.second
        where = f"evidence at node {node.index} of view {a.epoch}/{a.view}"
        if (a.signer, a.epoch, a.view) != (b.signer, b.epoch, b.view):
            self.checks.fail("I9", f"{where}: two votes that have nothing to do with each other")
        is_double = a.kind == b.kind != Kind.NULLIFY and a.pid != b.pid
        if not is_double and {a.kind, b.kind} != {Kind.NULLIFY, Kind.FINALIZE}:
            self.checks.fail("I9", f"{where}: {a.kind.name} and {b.kind.name} are legal together")
        if not (self.arithmetic.is_signed(a) and self.arithmetic.is_signed(b)):
            self.checks.fail("I9", f"{where}: a signature does not hold")
        if self.arithmetic.epoch(a.epoch).nodes[a.signer] not in self.world.byzantine:
            self.checks.fail("I9", f"{where}: against an honest validator")
        self.owed[node.host].pop((a.signer, a.epoch, a.view), None)
