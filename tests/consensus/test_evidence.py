"""X1, X2: what is proof, what is legal, and that each offence counts once."""

import itertools

import pytest

from consensus.core import events as ev
from consensus.core.evidence import EVIDENCE_PER_SIGNER_MAX, Offence, offence_of
from consensus.core.types import (
    ZERO_HASH,
    Epoch,
    Evidence,
    Hash32,
    Kind,
    Signature,
    View,
    Vote,
)
from tests.consensus.lone import Lone

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE
P, Q = Hash32(b"p" * 32), Hash32(b"q" * 32)
PROOFS = {
    (NOTARIZE, P, NOTARIZE, Q): Offence.NOTARIZED_TWICE,
    (FINALIZE, P, FINALIZE, Q): Offence.FINALIZED_TWICE,
    (FINALIZE, P, NULLIFY, ZERO_HASH): Offence.FINALIZED_AND_NULLIFIED,
}
SAYINGS = [(NOTARIZE, P), (NOTARIZE, Q), (FINALIZE, P), (FINALIZE, Q), (NULLIFY, ZERO_HASH)]


def vote(kind: Kind, pid: Hash32, *, view: int = 1, epoch: int = 0, signer: int = 1) -> Vote:
    """Return a vote whose signature nobody looks at."""
    return Vote(
        kind=kind,
        epoch=Epoch(epoch),
        view=View(view),
        pid=pid,
        signer=signer,
        signature=Signature(bytes(64)),
    )


@pytest.mark.parametrize(("first", "second"), list(itertools.product(SAYINGS, SAYINGS)))
def test_exactly_three_pairs_are_proof(
    first: tuple[Kind, Hash32], second: tuple[Kind, Hash32]
) -> None:
    """X1: over all pairs of sayings only those three are offences; all others are legal."""
    rows = [(*first, *second), (*second, *first)]
    rows += [tuple(Q if x == P else P if x == Q else x for x in row) for row in rows]  # type: ignore[misc]  # rows keep their length
    wanted = {PROOFS.get(row) for row in rows} - {None}
    found = offence_of(vote(*first), vote(*second))
    assert found == (wanted.pop() if wanted else None)


@pytest.mark.parametrize("change", [{"view": 2}, {"epoch": 1}, {"signer": 2}])
def test_other_views_epochs_and_signers_are_legal(change: dict[str, int]) -> None:
    """X1: the two votes are of one signer in one epoch and view."""
    assert offence_of(vote(NOTARIZE, P), vote(NOTARIZE, Q, **change)) is None


def test_equivocation_is_stored_and_gossiped_once() -> None:
    """X2: two genuine votes become evidence, durable and sent, however often they come."""
    lone = Lone(own=0)
    lone.hear(lone.vote(NOTARIZE, 1, P, 1))
    sent = lone.hear(lone.vote(NOTARIZE, 1, Q, 1))
    assert [m for m in sent if isinstance(m, Evidence)] == lone.disk.evidence
    lone.hear(lone.vote(NOTARIZE, 1, Hash32(b"r" * 32), 1))
    lone.hear(lone.disk.evidence[0])
    assert len(lone.disk.evidence) == 1


def test_the_second_vote_of_a_slot_does_not_count() -> None:
    """A forked signer's power counts once per kind and view."""
    lone = Lone([1, 1, 1, 1], own=0)
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(lone.vote(FINALIZE, 1, P, 1))
    lone.hear(propose)
    for signer in (1, 2):
        lone.hear(lone.vote(FINALIZE, 1, propose.vote.pid, signer))
    assert lone.replica.final_height == 0
    lone.hear(lone.vote(FINALIZE, 1, propose.vote.pid, 3))
    # Two of four are no quorum: signer 1 said something else first.
    assert lone.replica.final_height == 0


def test_finalize_and_nullify_prove_guilt() -> None:
    """X1: across kinds, in either order."""
    for kinds in ((NULLIFY, FINALIZE), (FINALIZE, NULLIFY)):
        lone = Lone(own=0)
        for kind in kinds:
            lone.hear(lone.vote(kind, 1, ZERO_HASH if kind == NULLIFY else P, 1))
        assert len(lone.disk.evidence) == 1


def test_votes_inside_certificates_are_looked_at() -> None:
    """I9: a vote held beside a certificate that has the signer's other vote is evidence."""
    lone = Lone(own=0)
    lone.hear(lone.vote(NOTARIZE, 1, Q, 1))
    lone.hear(lone.certificate(NOTARIZE, 1, lone.proposal(1, lone.header(1), 0)))
    assert len(lone.disk.evidence) == 1


def test_legal_votes_are_no_evidence() -> None:
    """NOTARIZE then NULLIFY, and NOTARIZE p then FINALIZE q, accuse nobody."""
    lone = Lone(own=0)
    lone.hear(lone.vote(NOTARIZE, 1, P, 1))
    lone.hear(lone.vote(NULLIFY, 1, ZERO_HASH, 1))
    lone.hear(lone.vote(NOTARIZE, 1, P, 2))
    lone.hear(lone.vote(FINALIZE, 1, Q, 2))
    assert lone.disk.evidence == []


def test_foreign_evidence_is_verified() -> None:
    """X2: forged evidence is refused and its sender blamed; genuine is stored and sent on."""
    lone = Lone(own=0)
    first, second = lone.vote(NOTARIZE, 5, P, 2), lone.vote(NOTARIZE, 5, Q, 2)
    forged = Evidence(first=first, second=vote(NOTARIZE, Q, view=5, signer=2))
    lone.hear(forged)
    lone.hear(Evidence(first=first, second=first))
    assert len(lone.seen(ev.Penalize)) == 2
    assert lone.disk.evidence == []
    genuine = Evidence(first=first, second=second)
    assert genuine in lone.hear(genuine)
    assert lone.disk.evidence == [genuine]


def test_one_signers_share_is_bounded() -> None:
    """X2: beyond EVIDENCE_PER_SIGNER_MAX of an epoch nothing is stored; others still count."""
    lone = Lone(own=0)
    for view in range(1, EVIDENCE_PER_SIGNER_MAX + 10):
        pair = [lone.vote(NOTARIZE, view, pid, 2) for pid in (P, Q)]
        lone.hear(Evidence(first=pair[0], second=pair[1]))
    assert len(lone.disk.evidence) == EVIDENCE_PER_SIGNER_MAX
    pair = [lone.vote(NOTARIZE, 1, pid, 3) for pid in (P, Q)]
    lone.hear(Evidence(first=pair[0], second=pair[1]))
    assert len(lone.disk.evidence) == EVIDENCE_PER_SIGNER_MAX + 1


def test_a_second_proposal_that_comes_after_finality_is_evidence() -> None:
    """X1: the leader's other proposal of a view that is final already still proves its guilt."""
    lone = Lone(own=0)
    first = lone.propose(1, lone.header(1), 0)
    lone.hear(first)
    lone.hear(lone.certificate(FINALIZE, 1, first.proposal))
    lone.hear(lone.propose(1, lone.header(1, timestamp_ms=10_099), 0))
    leader = lone.leader(1)
    assert [piece.first.signer for piece in lone.disk.evidence] == [leader]
