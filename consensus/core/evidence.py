"""X1, X2: proof that a validator signed what no honest one signs, and what is no proof.

Evidence: NOTARIZE of two proposals, FINALIZE of two proposals, FINALIZE and NULLIFY, each of one
signer in one view. Legal and never slashed: NOTARIZE and NULLIFY (giving up a view after voting in
it), NOTARIZE p and FINALIZE p' (the leader equivocated and the others chose p').
Spec: spec/consensus.md#evidence.
"""

from enum import IntEnum

from consensus.core.epochs import EpochContext
from consensus.core.types import Crypto, Evidence, Kind, PublicKey, Vote

EVIDENCE_PER_SIGNER_MAX = 64
"""pieces kept of one signer in one epoch: more proofs of the same guilt change nothing"""


class Offence(IntEnum):
    """What two votes of one signer and view prove."""

    NOTARIZED_TWICE = 1
    FINALIZED_TWICE = 2
    FINALIZED_AND_NULLIFIED = 3


def offence_of(first: Vote, second: Vote) -> Offence | None:
    """X1: return what two votes prove if both are genuine, or None: they are legal."""
    if (first.epoch, first.view, first.signer) != (second.epoch, second.view, second.signer):
        return None
    kinds = {first.kind, second.kind}
    if kinds == {Kind.FINALIZE, Kind.NULLIFY}:
        return Offence.FINALIZED_AND_NULLIFIED
    if len(kinds) == 1 and first.pid != second.pid:
        if first.kind == Kind.NOTARIZE:
            return Offence.NOTARIZED_TWICE
        if first.kind == Kind.FINALIZE:
            return Offence.FINALIZED_TWICE
    return None


def is_genuine(crypto: Crypto, epoch: EpochContext, vote: Vote) -> bool:
    """Say whether a vote of this epoch has a member as signer and a valid signature."""
    if vote.epoch != epoch.number or vote.signer >= len(epoch.keys):
        return False
    message = epoch.vote_message(vote.kind, vote.view, vote.pid)
    return crypto.verify(epoch.keys[vote.signer], message, vote.signature)


class EvidencePool:
    """X2: counts each offence once per (signer, epoch, view, type)."""

    def __init__(self) -> None:
        """Begin without any."""
        self._seen: dict[int, dict[PublicKey, set[tuple[int, Offence]]]] = {}

    def is_new(self, epoch: EpochContext, evidence: Evidence, offence: Offence) -> bool:
        """Say whether this offence still counts: not seen, and the signer's share is not full."""
        vote = evidence.first
        seen = self._seen.get(vote.epoch, {}).get(epoch.keys[vote.signer], set())
        return (vote.view, offence) not in seen and len(seen) < EVIDENCE_PER_SIGNER_MAX

    def add(self, epoch: EpochContext, evidence: Evidence, offence: Offence) -> None:
        """Remember an offence that `is_new`."""
        vote = evidence.first
        of_epoch = self._seen.setdefault(vote.epoch, {})
        of_epoch.setdefault(epoch.keys[vote.signer], set()).add((vote.view, offence))

    def forget_below(self, epoch: int) -> None:
        """Drop epochs that are beyond the evidence window."""
        for number in [number for number in self._seen if number < epoch]:
            del self._seen[number]

    def __len__(self) -> int:
        """Count the offences remembered."""
        return sum(len(seen) for of in self._seen.values() for seen in of.values())
