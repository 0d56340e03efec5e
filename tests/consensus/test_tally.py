"""Votes become certificates by power, once, and nothing else does."""

from dataclasses import replace

import pytest

from consensus.core import events as ev
from consensus.core.safety import Rules
from consensus.core.tally import ViewState, signers_of
from consensus.core.types import (
    ZERO_HASH,
    Certificate,
    Epoch,
    Hash32,
    Kind,
    Signature,
    View,
    Vote,
)
from spec import oracle
from tests.consensus.lone import Lone

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE


@pytest.mark.parametrize("powers", [[1], [1] * 4, [1] * 7, [30, 10, 10, 20, 30], [2**62, 1, 1]])
def test_quorums_share_more_than_a_third(powers: list[int]) -> None:
    """P1: q is the oracle's; two quorums overlap in more than W/3, and all honest ones make one."""
    total, q = sum(powers), Rules().quorum(sum(powers))
    assert q == oracle.quorum(powers)
    assert 3 * (2 * q - total) > total
    assert total - (total - 1) // 3 >= q


def test_power_counts_not_heads() -> None:
    """Three of four votes without the power are nothing; the whale and one more are enough."""
    lone = Lone([1, 1, 1, 10], own=0)
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose, lone.leader(1))
    pid = propose.vote.pid
    sent = [
        message
        for signer in (1, 2)
        for message in lone.hear(lone.vote(NULLIFY, 1, ZERO_HASH, signer))
    ]
    assert not [message for message in sent if isinstance(message, Certificate)]
    sent = lone.hear(lone.vote(NOTARIZE, 1, pid, 3), 3)
    made = [message for message in lone.sent if isinstance(message, Certificate)]
    if lone.leader(1) == 3:
        assert made or not sent
    assert all(message.kind == NOTARIZE for message in made)


def test_a_certificate_is_made_and_sent_once() -> None:
    """C1: at q, once; votes after it make no other one."""
    lone = Lone([1] * 7, own=0)
    made = []
    for signer in range(1, 7):
        sent = lone.hear(lone.vote(NULLIFY, 1, ZERO_HASH, signer), signer)
        made += [message for message in sent if isinstance(message, Certificate)]
    assert [certificate.signers for certificate in made] == [0b111110]
    assert lone.replica.view == 2


def test_a_foreign_certificate_is_relayed_once() -> None:
    """C1: received for the first time it is sent on; the second time it is not."""
    lone = Lone(own=0)
    certificate = lone.certificate(NULLIFY, 1)
    assert certificate in lone.hear(certificate)
    assert certificate not in lone.hear(certificate, 2)


@pytest.mark.parametrize("defect", ["power", "signature", "bit", "count", "set", "proposal"])
def test_a_wrong_certificate_is_blamed(defect: str) -> None:
    """M5: too little power, a bad signature, a bit beyond n, a wrong n: refused, sender blamed."""
    lone = Lone(own=0)
    good = lone.certificate(NULLIFY, 1)
    changes = {
        "kind": good.kind,
        "epoch": good.epoch,
        "view": good.view,
        "proposal": good.proposal,
        "validator_count": good.validator_count,
        "signers": good.signers,
        "signatures": good.signatures,
    }
    if defect == "power":
        changes |= {"signers": 0b110, "signatures": good.signatures[:2]}
    elif defect == "signature":
        changes["signatures"] = (Signature(b"x" * 64), *good.signatures[1:])
    elif defect == "bit":
        changes["signers"] = good.signers << 4
    elif defect == "count":
        changes["signatures"] = good.signatures[:2]
    elif defect == "set":
        changes["validator_count"] = 5
    else:
        changes["proposal"] = lone.proposal(1, lone.header(1), 0)
    sent = lone.hear(Certificate(**changes))  # type: ignore[arg-type]  # a table of fields
    assert sent == []
    assert lone.replica.view == 1
    assert len(lone.seen(ev.Penalize)) == 1


@pytest.mark.parametrize("kind", [NOTARIZE, FINALIZE])
def test_votes_that_were_counted_certify_nothing_else(kind: Kind) -> None:
    """M5: what was verified for one proposal is not taken as verified for another one."""
    lone = Lone(own=0)
    said, forged = (
        lone.proposal(1, lone.header(1, timestamp_ms=time_ms), 0) for time_ms in (2_000, 3_000)
    )
    signers = tuple(signer for signer in (1, 2, 3) if signer != lone.leader(1))[:2]
    for signer in signers:
        lone.hear(lone.vote(kind, 1, lone.pid(said), signer), signer)
    certificate = lone.certificate(kind, 1, forged)
    votes = lone.certificate(kind, 1, said)
    mixed = [
        votes.signatures[place] if signer in signers else certificate.signatures[place]
        for place, signer in enumerate((1, 2, 3))
    ]
    assert lone.hear(replace(certificate, signatures=tuple(mixed))) == []
    assert (lone.replica.view, len(lone.seen(ev.Penalize))) == (1, 1)


def test_a_bad_signature_is_no_vote() -> None:
    """A vote that does not verify is not counted and its sender blamed."""
    lone = Lone(own=0)
    for signer in (1, 2, 3):
        vote = lone.vote(NULLIFY, 2, ZERO_HASH, signer)
        forged = Vote(
            kind=NULLIFY,
            epoch=vote.epoch,
            view=View(1),
            pid=ZERO_HASH,
            signer=signer,
            signature=vote.signature,
        )
        lone.hear(forged, signer)
    assert lone.replica.view == 1
    assert len(lone.seen(ev.Penalize)) == 3


def test_a_quorum_may_come_before_its_proposal() -> None:
    """C1: votes for a proposal not seen yet wait for it, then make the certificate at once."""
    lone = Lone(own=0)
    propose = lone.propose(1, lone.header(1), 0)
    for signer in (1, 2, 3):
        lone.hear(lone.vote(NOTARIZE, 1, propose.vote.pid, signer), signer)
    assert lone.replica.view == 1
    sent = lone.hear(propose)
    assert [m.kind for m in sent if isinstance(m, Certificate)][:1] == [NOTARIZE]
    assert lone.replica.view == 2


def test_one_slot_per_signer_and_kind() -> None:
    """A second vote in a slot is a bug of the caller; FINALIZE beside NULLIFY is handed back."""

    def vote(kind: Kind, pid: Hash32) -> Vote:
        return Vote(
            kind=kind,
            epoch=Epoch(0),
            view=View(1),
            pid=pid,
            signer=3,
            signature=Signature(b"s" * 64),
        )

    state, pid = ViewState(View(1)), Hash32(b"p" * 32)
    assert state.add(vote(NULLIFY, ZERO_HASH), 5) == (5, None)
    assert state.add(vote(NOTARIZE, pid), 5) == (5, None)
    assert state.add(vote(FINALIZE, pid), 5) == (5, vote(NULLIFY, ZERO_HASH))
    with pytest.raises(AssertionError):
        state.add(vote(FINALIZE, Hash32(b"q" * 32)), 5)
    assert state.powers[FINALIZE] == {pid: 5}


def test_signers_ascend() -> None:
    """The bitmap's bits come out in the order of the signatures."""
    lone = Lone([1] * 10, own=9)
    certificate = lone.certificate(NULLIFY, 1, None, (0, 2, 3, 4, 5, 7, 8))
    assert signers_of(certificate) == [0, 2, 3, 4, 5, 7, 8]


def test_votes_from_ahead_are_counted_on_the_way() -> None:
    """Votes beyond the next view wait for it; those that make a certificate may enter the next."""
    lone = Lone([1] * 7, own=0)
    for signer in range(1, 7):
        lone.hear(lone.vote(NULLIFY, 3, ZERO_HASH, signer), signer)
    assert lone.replica.held()["ahead"] == 6
    lone.hear(lone.certificate(NULLIFY, 1))
    assert lone.replica.view == 4
    assert lone.replica.held()["ahead"] == 0
