"""V1 to V4 at one replica: what it signs, and everything that must keep it from signing."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from consensus.core import events as ev
from consensus.core.safety import Rules
from consensus.core.tally import ViewState
from consensus.core.types import (
    ZERO_HASH,
    Evidence,
    Hash32,
    Kind,
    Propose,
    Request,
    View,
    Vote,
    Want,
)
from tests.consensus.lone import WALL_MS, Lone
from tests.consensus.net import key_of

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE


def follower(drift_ms: int = 5_000) -> Lone:
    """Return a replica that does not lead view 1 or 2."""
    for own in range(4):
        lone = Lone(own=own, drift_ms=drift_ms)
        if own not in (lone.leader(1), lone.leader(2)):
            return lone
    raise AssertionError("two views have at most two leaders")


def notarized(lone: Lone) -> tuple[Propose, Lone]:
    """Let view 1 be proposed and notarized."""
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose, lone.leader(1))
    lone.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    return propose, lone


def test_a_right_proposal_is_notarized_once() -> None:
    """V1: one vote, however often the proposal comes, and not before the verdict."""
    lone = follower()
    lone.answers = False
    propose = lone.propose(1, lone.header(1), 0)
    assert lone.hear(propose) == []
    judging = lone.calls[-1]
    assert isinstance(judging.request, ev.NewPayload)
    sent = lone.give(lone.answer(judging))
    assert [message.kind for message in sent if isinstance(message, Vote)] == [NOTARIZE]
    for sender in (1, 2, 3):
        lone.hear(propose, sender)
    assert lone.votes() == [(NOTARIZE, 1)]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"chain_id": 8},
        {"parent_hash": Hash32(b"x" * 32)},
        {"height": 2},
        {"epoch": 1},
        {"validator_set_id": ZERO_HASH},
        {"proposer": key_of(9)},
        {"timestamp_ms": 1_000},
        {"payload_bytes": 2**20 + 1},
        {"transaction_count": 2**10 + 1},
        {"system_hash": Hash32(b"x" * 32)},
        {"reserved": b"x" * 32},
        {"next_validator_set_hash": Hash32(b"x" * 32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_wrong_header_is_nullified(changes: dict[str, Any]) -> None:
    """V1, V2: each wrong field of a new block makes the view hopeless at once, unexecuted."""
    lone = follower()
    lone.hear(lone.propose(1, lone.header(1, **changes), 0))
    assert lone.votes() == [(NULLIFY, 1)]
    assert not [call for call in lone.calls if isinstance(call.request, ev.NewPayload)]


def test_an_invalid_block_is_nullified() -> None:
    """V2: INVALID, and only by the executor's word."""
    lone = follower()
    lone.verdict = ev.Verdict.INVALID
    lone.hear(lone.propose(1, lone.header(1), 0))
    assert lone.votes() == [(NULLIFY, 1)]


@pytest.mark.parametrize("verdict", [ev.Verdict.SYNCING, ev.Verdict.MALFORMED])
def test_no_verdict_is_no_reason(verdict: ev.Verdict) -> None:
    """V1: SYNCING and MALFORMED leave the proposal pending; later VALID gets the vote."""
    lone = follower()
    lone.answers = False
    lone.hear(lone.propose(1, lone.header(1), 0))
    judging = lone.calls[-1]
    judged = ev.PayloadJudged(verdict=verdict)
    lone.answers = True
    lone.give(ev.Answered(call_id=judging.call_id, boot_id=lone.boot_id, answer=judged))
    assert lone.votes() == []
    lone.wait(21)
    assert lone.votes() == [(NOTARIZE, 1)]


def test_a_time_ahead_waits() -> None:
    """V1: a timestamp beyond own clock + drift is pending until the clock is there."""
    lone = follower(drift_ms=20)
    lone.hear(lone.propose(1, lone.header(1, timestamp_ms=WALL_MS + 50), 0))
    assert lone.votes() == []
    lone.wait(29)
    assert lone.votes() == []
    lone.wait(1)
    assert lone.votes() == [(NOTARIZE, 1)]


def test_depth_waits_for_finality() -> None:
    """V1: a block more than K above the final one is pending; finality releases the vote."""
    lone = Lone(own=0, unfinalized_max=2)
    headers: list[Any] = []
    for view in (1, 2, 3):
        assert view < 3 or lone.leader(view) != lone.own, (
            "another one leads the view that is judged"
        )
        headers.append(lone.header(view, headers[-1] if headers else None))
        propose = lone.propose(view, headers[-1], view - 1)
        lone.hear(propose)
        if view < 3:
            lone.hear(lone.certificate(NOTARIZE, view, propose.proposal))
    assert (NOTARIZE, 3) not in lone.votes()
    lone.hear(lone.certificate(FINALIZE, 1, lone.proposal(1, headers[0], 0)))
    assert (NOTARIZE, 3) in lone.votes()


def test_a_missing_nullification_is_asked_of_the_leader() -> None:
    """V1: no vote while a view between parent and proposal is not nullified here."""
    lone = follower()
    leader = lone.leader(3)
    assert leader != lone.own, "another one leads the view that is judged"
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    # View 2 is left by its notarization; the leader of 3 builds on view 1 all the same.
    second = lone.propose(2, lone.header(2, propose.header), 1)
    lone.hear(lone.certificate(NOTARIZE, 2, second.proposal))
    third = lone.propose(3, lone.header(3, propose.header), 1)
    sent = lone.hear(third, leader)
    asked = [m for m in sent if isinstance(m, Request) and m.want == Want.VIEWS]
    assert [(m.first, m.last) for m in asked] == [(2, 2)]
    assert (NOTARIZE, 3) not in lone.votes()
    lone.hear(lone.certificate(NULLIFY, 2))
    assert (NOTARIZE, 3) in lone.votes()


def test_a_reproposal_is_judged_without_header_checks() -> None:
    """V1: the parent view's block again gets the vote, in a view of another leader, unexecuted."""
    lone = follower()
    propose, _ = notarized(lone)
    executed = len([c for c in lone.calls if isinstance(c.request, ev.NewPayload)])
    lone.hear(lone.propose(2, propose.header, 1))
    assert (NOTARIZE, 2) in lone.votes()
    assert len([c for c in lone.calls if isinstance(c.request, ev.NewPayload)]) == executed


def test_no_notarize_after_nullify() -> None:
    """V1: who gave the view up does not vote for a proposal that comes late."""
    lone = follower()
    lone.wait(50 + 60 + 1)
    assert lone.votes() == [(NULLIFY, 1)]
    lone.hear(lone.propose(1, lone.header(1), 0))
    assert lone.votes() == [(NULLIFY, 1)]


def test_nullify_may_follow_notarize() -> None:
    """V2: T_adv without a notarization, after an own NOTARIZE; T_lead alone is no reason then."""
    lone = follower()
    lone.hear(lone.propose(1, lone.header(1), 0))
    lone.wait(111)
    assert lone.votes() == [(NOTARIZE, 1)]
    lone.wait(100)
    assert lone.votes() == [(NOTARIZE, 1), (NULLIFY, 1)]


def test_an_equivocating_leader_is_given_up() -> None:
    """V2, X1: two proposals of one leader: NULLIFY at once, and evidence, once."""
    lone = follower()
    first = lone.propose(1, lone.header(1), 0)
    second = lone.propose(1, lone.header(1, timestamp_ms=WALL_MS + 2), 0)
    lone.hear(first)
    sent = lone.hear(second)
    assert lone.votes() == [(NOTARIZE, 1), (NULLIFY, 1)]
    assert [m for m in sent if isinstance(m, Evidence)] == lone.disk.evidence
    assert len(lone.disk.evidence) == 1
    lone.hear(second, 2)
    assert len(lone.disk.evidence) == 1


def test_a_forged_proposal_beside_two_genuine_ones_is_not_kept() -> None:
    """M4, X1: that the leader signed two is no reason to believe a third without a signature."""
    lone = follower()
    headers = [lone.header(1, timestamp_ms=WALL_MS + ms) for ms in (1, 2, 3, 4)]
    for header in headers[:2]:
        lone.hear(lone.propose(1, header, 0))
    genuine = lone.propose(1, headers[3], 0)
    forged = lone.propose(1, headers[2], 0)
    vote = replace(forged.vote, signature=genuine.vote.signature)
    lone.hear(replace(forged, vote=vote), 2)
    assert [item.peer for item in lone.seen(ev.Penalize)] == [key_of(2)]
    assert lone.hash(headers[2]) not in lone.replica._st.blocks
    lone.hear(genuine)
    assert lone.hash(headers[3]) in lone.replica._st.blocks


def test_what_may_be_signed_beside_what_was_signed() -> None:
    """V1 to V3: with every set of own votes of a view, current, past or future."""
    never = {NOTARIZE: {NOTARIZE, NULLIFY}, NULLIFY: {NULLIFY, FINALIZE}}
    never[FINALIZE] = {FINALIZE, NULLIFY}
    lone = follower()
    propose, _ = notarized(lone)
    certificate = lone.certificate(NOTARIZE, 1, propose.proposal)
    for count in range(4):
        for kinds in combinations(never, count):
            view = ViewState(View(7))
            for kind in kinds:
                view.own[kind] = lone.vote(kind, 7, ZERO_HASH, 0)
            view.certificates[NOTARIZE] = certificate
            for current in (6, 7, 8):
                is_free = {kind: not never[kind] & set(kinds) for kind in never}
                rules, now = Rules(), View(current)
                assert rules.may_notarize(view, now) is (is_free[NOTARIZE] and current == 7)
                assert rules.may_nullify(view, now) is (is_free[NULLIFY] and current == 7)
                assert rules.may_finalize(view) is is_free[FINALIZE]
            view.equivocated = True
            assert not rules.may_notarize(view, View(7))
            view.certificates[NOTARIZE] = None
            assert not rules.may_finalize(view)


def test_finalize_follows_notarization() -> None:
    """V3: FINALIZE when the notarization is held and the block VALID here."""
    _, lone = notarized(follower())
    assert lone.votes() == [(NOTARIZE, 1), (FINALIZE, 1)]


def test_no_finalize_after_nullify() -> None:
    """V3: NULLIFY given, the notarization comes late: no FINALIZE for that view, ever."""
    lone = follower()
    lone.wait(111)
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    lone.wait(1_000)
    assert (FINALIZE, 1) not in lone.votes()


def test_no_finalize_before_execution() -> None:
    """V3: a quorum's word is not one's own: FINALIZE waits for the own verdict."""
    lone = follower()
    lone.answers = False
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    lone.hear(propose)
    assert lone.votes() == []
    (judging,) = [call for call in lone.calls if isinstance(call.request, ev.NewPayload)]
    lone.give(lone.answer(judging))
    assert lone.votes() == [(FINALIZE, 1)]


def test_an_invalid_notarized_block_halts() -> None:
    """V4: a quorum certified what is INVALID here: nothing is signed any more, and it is said."""
    lone = follower()
    lone.verdict = ev.Verdict.INVALID
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    assert lone.votes() == [(NULLIFY, 1)]
    lone.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    assert lone.replica.is_halted
    assert [alarm.code for alarm in lone.seen(ev.Alarm)] == [ev.AlarmCode.INVALID_NOTARIZED]
    lone.wait(1_000)
    assert lone.votes() == [(NULLIFY, 1)]


def test_a_stale_parent_is_hopeless() -> None:
    """V1: a proposal on a view below the last final one would skip what cannot be skipped."""
    lone = follower()
    first = lone.propose(1, lone.header(1), 0)
    lone.hear(first)
    lone.hear(lone.certificate(FINALIZE, 1, first.proposal))
    assert lone.replica.view == 2
    lone.hear(lone.propose(2, lone.header(2), 0))
    assert lone.votes() == [(NOTARIZE, 1), (NULLIFY, 2)]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("not the leader", lambda lone: lone.propose(1, lone.header(1), 0, signer=lone.own)),
        (
            "another header",
            lambda lone: Propose(
                proposal=lone.propose(1, lone.header(1), 0).proposal,
                header=lone.header(1, timestamp_ms=WALL_MS + 9),
                vote=lone.propose(1, lone.header(1), 0).vote,
            ),
        ),
        (
            "another pid",
            lambda lone: Propose(
                proposal=lone.propose(1, lone.header(1), 0).proposal,
                header=lone.header(1),
                vote=lone.vote(NOTARIZE, 1, Hash32(b"x" * 32), lone.leader(1)),
            ),
        ),
    ],
)
def test_a_proposal_that_does_not_agree_is_blamed(
    name: str, spoil: Callable[[Lone], Propose]
) -> None:
    """M4: leader, header, proposal and vote must name the same; the sender is blamed, no vote."""
    lone = follower()
    lone.hear(spoil(lone))
    assert len(lone.seen(ev.Penalize)) == 1, name
    assert lone.votes() == []
