"""One view as a replica sees it: who voted what, how much power that is, what is certified.

Adding a vote costs the same for 4 validators as for 1,024. A signer has one slot per kind; what
does not fit into it is evidence, never a second vote. Spec: spec/consensus.md#votes.
"""

from consensus.core.types import (
    Certificate,
    Hash32,
    Kind,
    PeerId,
    Proposal,
    Propose,
    View,
    Vote,
)

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE


class ViewState:
    """S1: all that is known of one view. Lists are indexed by kind; index 0 is unused."""

    __slots__ = (
        "certificates",
        "counts_for_backoff",
        "defect",
        "equivocated",
        "messages",
        "number",
        "own",
        "own_sent_ms",
        "powers",
        "proposals",
        "propose",
        "propose_peer",
        "slots",
    )

    def __init__(self, number: View) -> None:
        """Open a view of which nothing is known."""
        self.number = number
        self.slots: tuple[dict[int, Vote], ...] = ({}, {}, {}, {})
        """per kind: signer -> the one vote counted"""
        self.powers: tuple[dict[Hash32, int], ...] = ({}, {}, {}, {})
        """per kind: pid -> power of the votes counted"""
        self.certificates: list[Certificate | None] = [None, None, None, None]
        self.own: list[Vote | None] = [None, None, None, None]
        self.own_sent_ms = 0
        """when own votes of this view were last sent"""
        self.proposals: dict[Hash32, Proposal] = {}
        """pid -> proposal, of the leader and of certificates: at most PROPOSALS_MAX"""
        self.propose: Propose | None = None
        """the first proposal of the leader; a second one is equivocation"""
        self.propose_peer: PeerId | None = None
        """who sent it"""
        self.equivocated = False
        """the leader signed two proposals"""
        self.defect: str | None = None
        """why the proposal can never be voted for"""
        self.counts_for_backoff = False
        """E1: nullified, or notarized too late to be quick"""
        self.messages: dict[tuple[int, Hash32], bytes] = {}
        """what votes of this view sign, kept because every validator signs the same"""

    def add(self, vote: Vote, weight: int) -> tuple[int, Vote | None]:
        """Count a verified vote whose slot is free.

        Return the power for its proposal now, and an earlier vote that makes it evidence (X1). Such
        a vote is counted too: it is the first in its slot, and a quorum holds whatever a faulty
        signer says.
        """
        kind, signer = vote.kind, vote.signer
        assert signer not in self.slots[kind], "one slot per signer and kind"
        self.slots[kind][signer] = vote
        powers = self.powers[kind]
        power = powers.get(vote.pid, 0) + weight
        powers[vote.pid] = power
        if kind == NOTARIZE:
            return power, None
        return power, self.slots[NULLIFY if kind == FINALIZE else FINALIZE].get(signer)

    def assemble(self, kind: Kind, pid: Hash32, validator_count: int) -> Certificate:
        """C1: return the certificate of all votes counted for a proposal (or for NULLIFY)."""
        signers = 0
        signatures = []
        slots = self.slots[kind]
        for signer in sorted(slots):
            vote = slots[signer]
            if vote.pid == pid:
                signers |= 1 << signer
                signatures.append(vote.signature)
        return Certificate(
            kind=kind,
            epoch=next(iter(slots.values())).epoch,
            view=self.number,
            proposal=None if kind == NULLIFY else self.proposals[pid],
            validator_count=validator_count,
            signers=signers,
            signatures=tuple(signatures),
        )

    def certified(self) -> Proposal | None:
        """Return the proposal that is notarized, or final, which counts as much (C3)."""
        certificate = self.certificates[FINALIZE] or self.certificates[NOTARIZE]
        return None if certificate is None else certificate.proposal


def signers_of(certificate: Certificate) -> list[int]:
    """Return the indexes of the set bits, ascending: one per signature."""
    bits, found = certificate.signers, []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found
