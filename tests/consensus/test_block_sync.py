"""Q1, M6, C2, F2: ranges, requests, finality of ancestors, and an executor that restarts."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from consensus.core import events as ev
from consensus.core.block_sync import VIEWS_ANSWERED_MAX
from consensus.core.blocks import BLOCKS_MAX
from consensus.core.state import (
    REQUESTS_MAX,
    STRANGER_REQUESTS_MAX,
    STRANGERS_REQUESTS_MAX,
    VIEWS_AHEAD_MAX,
    VIEWS_HELD_MAX,
)
from consensus.core.types import (
    ZERO_HASH,
    BlockAnswer,
    BootId,
    Certificate,
    Epoch,
    Final,
    Hash32,
    Header,
    Kind,
    PeerId,
    Propose,
    RangeAnswer,
    Request,
    Vote,
    VotesAnswer,
    Want,
)
from tests.consensus.lone import Lone
from tests.consensus.net import Net, key_of, make_chain
from tests.consensus.test_voting import follower, notarized

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE


def chain_of(lone: Lone, count: int) -> list[Header]:
    """Return headers of heights 1 to count, each on the one before."""
    headers: list[Header] = []
    for view in range(1, count + 1):
        headers.append(lone.header(view, headers[-1] if headers else None))
    return headers


def range_of(lone: Lone, count: int) -> RangeAnswer:
    """Return a right range from height 1 on."""
    headers = chain_of(lone, count)
    certificate = lone.certificate(FINALIZE, count, lone.proposal(count, headers[-1], count - 1))
    return RangeAnswer(headers=tuple(headers), certificate=certificate)


def test_one_certificate_makes_a_range_final() -> None:
    """Q1: 20 headers under one finalization; the executor judges and finalizes one by one."""
    lone = Lone(own=0)
    lone.hear(range_of(lone, 20))
    assert lone.replica.final_height == 20
    assert lone.replica.view == 21
    stored = [(b.header.height, b.certificate is not None) for b in lone.disk.finalized]
    assert stored == [(h, h == 20) for h in range(1, 21)]
    told = [c.request for c in lone.calls if isinstance(c.request, ev.ForkchoiceUpdated)]
    order = [lone.disk.finalized[h].block_hash for h in range(20)]
    finalized = [request.finalized for request in told if request.finalized in order]
    assert [h for i, h in enumerate(finalized) if i == 0 or finalized[i - 1] != h] == order


@pytest.mark.parametrize("defect", ["gap", "link", "tip", "kind", "power"])
def test_a_range_that_does_not_hang_together_is_blamed(defect: str) -> None:
    """Q1: every header is linked, the certificate is a finalization of the last one."""
    lone = Lone(own=0)
    good = range_of(lone, 5)
    headers, certificate = list(good.headers), good.certificate
    if defect == "gap":
        del headers[2]
    elif defect == "link":
        headers[2] = replace(headers[2], timestamp_ms=1)
    elif defect == "tip":
        headers.pop()
    elif defect == "kind":
        certificate = lone.certificate(NOTARIZE, 5, certificate.proposal)
    else:
        certificate = lone.certificate(FINALIZE, 5, certificate.proposal, (1, 2))
    lone.hear(RangeAnswer(headers=tuple(headers), certificate=certificate))
    assert lone.replica.final_height == 0
    assert len(lone.seen(ev.Penalize)) == 1


def test_a_finalization_finalizes_its_ancestors() -> None:
    """C2: three notarized views become final with the third."""
    lone = Lone(own=0)
    headers = chain_of(lone, 3)
    for view, header in enumerate(headers, 1):
        propose = lone.propose(view, header, view - 1)
        lone.hear(propose)
        lone.hear(lone.certificate(NOTARIZE, view, propose.proposal))
    assert lone.replica.final_height == 0
    lone.hear(lone.certificate(FINALIZE, 3, lone.proposal(3, headers[2], 2)))
    assert lone.replica.final_height == 3


def test_missing_headers_of_a_finalization_are_asked_for() -> None:
    """C2, Q1: a finalization of an unknown block asks for it and for the range below it."""
    lone = Lone(own=0)
    headers = chain_of(lone, 3)
    sent = lone.hear(lone.certificate(FINALIZE, 3, lone.proposal(3, headers[2], 2)))
    wants = {m.want for m in sent if isinstance(m, Request)}
    assert wants == {Want.BLOCK, Want.RANGE}
    lone.hear(BlockAnswer(header=headers[2]))
    lone.hear(range_of(lone, 3))
    assert lone.replica.final_height == 3


def test_a_finalization_stands_for_a_notarization() -> None:
    """C3: a proposal on a view of which only the finalization is held gets the vote."""
    lone = follower()
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    lone.hear(lone.propose(2, lone.header(2, propose.header), 1))
    assert (NOTARIZE, 2) in lone.votes()


def test_every_question_comes_round_to_everybody() -> None:
    """Q2: whatever else is asked meanwhile, n repetitions of a question reach all peers."""
    lone = Lone([1] * 7, own=0)
    for view, header in enumerate(chain_of(lone, 2), 1):
        lone.hear(lone.certificate(NOTARIZE, view, lone.proposal(view, header, view - 1)))
    others = {PeerId(key) for key in lone.epoch.keys if key != key_of(0)}
    asked: dict[tuple[Want, Hash32], set[PeerId]] = {}
    lone.effects.clear()
    for _ in others:
        lone.wait(lone.chain.parameters.retransmit_interval_ms)
    for sent in lone.seen(ev.Send):
        if isinstance(sent.message, Request) and sent.message.want in (Want.BLOCK, Want.RANGE):
            question = (sent.message.want, sent.message.block_hash)
            asked.setdefault(question, set()).add(sent.peer)
    assert len(asked) == 3, "two headers and a range are missing"
    assert all(peers == others for peers in asked.values()), asked


def test_unasked_headers_are_not_kept() -> None:
    """A BlockAnswer counts only for a hash that was asked for."""
    lone = Lone(own=0)
    before = lone.replica.held()["blocks"]
    lone.hear(BlockAnswer(header=lone.header(1)))
    assert lone.replica.held()["blocks"] == before


def test_requests_are_answered() -> None:
    """M6: views, votes of a signer, blocks and the latest finalization."""
    propose, lone = notarized(follower())
    answers = lone.hear(Request(want=Want.VIEWS, first=1, last=5), 2)
    assert any(isinstance(m, Certificate) and m.view == 1 for m in answers)
    assert any(isinstance(m, Propose) for m in answers)
    assert {m.kind for m in answers if isinstance(m, Vote)} == {NOTARIZE, FINALIZE}
    leader = lone.leader(1)
    (votes,) = lone.hear(Request(want=Want.VOTES_OF, first=leader), 2)
    assert isinstance(votes, VotesAnswer)
    assert propose.vote in votes.votes
    block_hash = lone.hash(propose.header)
    (block,) = lone.hear(Request(want=Want.BLOCK, block_hash=block_hash), 2)
    assert block == BlockAnswer(header=propose.header)
    assert lone.hear(Request(want=Want.FINAL), 2) == []
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    (final,) = lone.hear(Request(want=Want.FINAL), 2)
    assert isinstance(final, Final)
    lone.hear(Request(want=Want.RANGE, first=1), 3)
    lone.hear(Request(want=Want.BOUNDARY, epoch=Epoch(0)), 3)
    wants = {effect.request.want for effect in lone.seen(ev.AnswerFromStore)}
    assert wants == {Want.RANGE, Want.BOUNDARY}


def test_requests_have_a_quota() -> None:
    """Limits: REQUESTS_MAX of one peer between two retransmissions; others are not hurt."""
    lone = Lone(own=0)
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    request = Request(want=Want.BLOCK, block_hash=lone.hash(propose.header))
    answered = sum(bool(lone.hear(request, 1)) for _ in range(2 * REQUESTS_MAX))
    assert answered == REQUESTS_MAX
    assert lone.hear(request, 2)
    lone.wait(201)
    assert lone.hear(request, 1)


def test_strangers_share_a_quota() -> None:
    """Limits: whoever is no validator of this epoch or the next and not configured gets a share.

    However many keys strangers have, the others are answered as before, and after a
    retransmission strangers are again.
    """
    chain = make_chain([1] * 4, [1] * 5)
    lone = Lone(chain=chain, own=0)
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    request = Request(want=Want.BLOCK, block_hash=lone.hash(propose.header))
    strangers = range(100, 100 + 2 * STRANGERS_REQUESTS_MAX)

    def answered(peers: Iterable[int], times: int) -> list[int]:
        return [sum(bool(lone.hear(request, peer)) for _ in range(times)) for peer in peers]

    assert answered(strangers[:1], 2 * STRANGER_REQUESTS_MAX) == [STRANGER_REQUESTS_MAX]
    assert sum(answered(strangers[1:], 1)) == STRANGERS_REQUESTS_MAX - STRANGER_REQUESTS_MAX
    assert lone.replica.held()["request_counts"] <= STRANGERS_REQUESTS_MAX
    for friend in (1, 4):
        assert answered([friend], 2 * REQUESTS_MAX) == [REQUESTS_MAX]
    lone.replica._st.other_peers = (PeerId(key_of(strangers[-1])),)
    assert answered(strangers[-1:], 2 * REQUESTS_MAX) == [REQUESTS_MAX]
    lone.wait(1_000)
    assert answered(strangers[:1], 1) == [1]


def test_laggards_are_answered_once_per_retransmission() -> None:
    """R1: repeated votes of decided views get the latest finalization, rate-limited."""
    lone = Lone(own=0)
    lone.hear(range_of(lone, 20))
    vote = lone.vote(NULLIFY, 2, ZERO_HASH, 1)
    answers = [lone.hear(vote, 1) for _ in range(5)]
    assert any(isinstance(m, Final) for m in answers[0])
    assert answers[1:] == [[]] * 4


def flood(lone: Lone) -> None:
    """Let one Byzantine leader and one Byzantine signer say as much as they can."""
    for view in range(1, 40):
        for stamp in range(12):
            header = lone.header(view, timestamp_ms=10_001 + stamp)
            lone.hear(lone.propose(view, header, 0), 1)
    for view in range(1, 3_000, 7):
        lone.hear(lone.vote(NULLIFY, view, ZERO_HASH, 1), 1)
        lone.hear(Request(want=Want.VIEWS, first=view, last=view), 1)


def test_memory_is_bounded_under_flood() -> None:
    """Limits: proposals ahead, second proposals, far votes and requests leave small tables."""
    lone = Lone(own=0)
    flood(lone)
    held = lone.replica.held()
    assert held["views"] <= VIEWS_AHEAD_MAX + 2
    assert held["blocks"] <= BLOCKS_MAX
    assert held["ahead"] <= 1
    assert held["request_counts"] <= 1
    assert held["refused"] > 0


def test_views_without_finality_are_bounded() -> None:
    """Limits: nullified views beyond VIEWS_HELD_MAX push out the lowest, never the newest."""
    lone = Lone(own=0)
    for view in range(1, VIEWS_HELD_MAX + 50):
        lone.hear(lone.certificate(NULLIFY, view))
    assert lone.replica.view == VIEWS_HELD_MAX + 50
    assert lone.replica.held()["views"] <= VIEWS_HELD_MAX + 1


def test_a_range_of_views_is_answered_in_parts() -> None:
    """M6: at most VIEWS_ANSWERED_MAX views of one request."""
    lone = Lone(own=0)
    for view in range(1, 2 * VIEWS_ANSWERED_MAX):
        lone.hear(lone.certificate(NULLIFY, view))
    answers = lone.hear(Request(want=Want.VIEWS, first=1, last=2**63), 1)
    views = {m.view for m in answers if isinstance(m, Certificate)}
    assert views == set(range(1, VIEWS_ANSWERED_MAX + 1))


def test_a_restarted_executor_is_asked_and_fed_again() -> None:
    """F1: a new boot_id: GetStatus, then NewPayload of what it lacks, in height order."""
    lone = Lone(own=0)
    headers = chain_of(lone, 3)
    for view, header in enumerate(headers, 1):
        propose = lone.propose(view, header, view - 1)
        lone.hear(propose)
        lone.hear(lone.certificate(NOTARIZE, view, propose.proposal))
    before = len(lone.calls)
    lone.boot_id = BootId(b"n" * 16)
    fourth = lone.propose(4, lone.header(4, headers[2]), 3)
    lone.hear(fourth)
    lone.wait(100)
    calls = [call.request for call in lone.calls[before:]]
    assert any(isinstance(request, ev.GetStatus) for request in calls)
    again = [r.header.height for r in calls if isinstance(r, ev.NewPayload)]
    assert [h for h in again if h < 4][:3] == [1, 2, 3]


def test_another_chain_in_the_executor_stops_every_call() -> None:
    """Status: another genesis is refused, loudly, and nothing is built or judged there."""
    lone = follower()
    lone.genesis_said = Hash32(b"x" * 32)
    lone.boot_id = BootId(b"n" * 16)
    lone.hear(lone.propose(1, lone.header(1), 0))
    before = len(lone.calls)
    lone.wait(1_000)
    assert {a.code for a in lone.seen(ev.Alarm)} == {ev.AlarmCode.WRONG_EXECUTOR}
    assert {type(call.request) for call in lone.calls[before:]} == {ev.GetStatus}


def test_errors_are_tried_again() -> None:
    """An error is no verdict: NewPayload fails, is repeated after t_r, and then gets the vote."""
    lone = follower()
    lone.answers = False
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    judging = lone.calls[-1]
    lone.answers = True
    lone.give(ev.CallFailed(call_id=judging.call_id, error=ev.CallError.INTERNAL))
    assert lone.votes() == []
    lone.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    lone.wait(201)
    assert (FINALIZE, 1) in lone.votes()


def test_a_lost_payload_is_fetched() -> None:
    """PAYLOAD_NOT_HELD makes the core fetch the bytes from peers."""
    lone = follower()
    lone.answers = False
    lone.hear(lone.propose(1, lone.header(1), 0), 2)
    judging = lone.calls[-1]
    fetches = len(lone.seen(ev.FetchPayload))
    lone.answers = True
    lone.give(ev.CallFailed(call_id=judging.call_id, error=ev.CallError.PAYLOAD_NOT_HELD))
    assert len(lone.seen(ev.FetchPayload)) == fetches + 1
    assert lone.votes() == [(NOTARIZE, 1)]


def test_a_payload_that_nobody_had_is_asked_of_others() -> None:
    """PayloadFailed: asked again, of other peers, after a while."""
    lone = follower()
    perform: Any = lone.perform

    def deaf(effect: ev.Effect) -> None:
        if isinstance(effect, ev.FetchPayload):
            lone.effects.append(effect)
        else:
            perform(effect)

    lone.perform = deaf  # type: ignore[method-assign]  # a shell that finds no payload
    lone.hear(lone.propose(1, lone.header(1), 0), 2)
    (first,) = lone.seen(ev.FetchPayload)
    assert first.peers == (PeerId(key_of(2)),)
    lone.give(ev.PayloadFailed(payload_commitment=first.payload_commitment))
    lone.wait(21)
    assert len(lone.seen(ev.FetchPayload)) == 2
    assert len(lone.seen(ev.FetchPayload)[1].peers) == 2


def test_a_laggard_catches_up_over_its_store_and_peers() -> None:
    """Q1: a node cut off for 100 blocks reaches the tip, its executor with it."""
    net = Net(make_chain([1] * 4, heights_per_epoch=16))
    net.run(300)
    net.cut_off.add(3)
    net.run(7_000)
    behind = net.heights()
    assert behind[0] - behind[3] > 64
    net.cut_off.clear()
    net.run(9_000)
    assert net.heights()[3] >= net.heights()[0] - 2
    assert net.nodes[3].executor_final[0] >= net.heights()[0] - 3


def test_an_invalid_final_block_halts() -> None:
    """V4: a final block that the own executor calls INVALID: halt, and say it."""
    lone = Lone(own=0)
    lone.verdict = ev.Verdict.INVALID
    lone.hear(range_of(lone, 3))
    assert lone.replica.is_halted
    assert {a.code for a in lone.seen(ev.Alarm)} == {ev.AlarmCode.INVALID_NOTARIZED}


def test_an_executor_with_another_final_block_is_refused() -> None:
    """F2: at the height of our final block the executor's must have the same hash."""
    lone = Lone(own=0)
    lone.hear(range_of(lone, 3))
    again = Lone(own=0, disk=lone.disk)
    assert ev.AlarmCode.WRONG_EXECUTOR not in {a.code for a in again.seen(ev.Alarm)}
    lone.disk.executor_final = (3, b"x" * 32)
    wrong = Lone(own=0, disk=lone.disk)
    assert {a.code for a in wrong.seen(ev.Alarm)} == {ev.AlarmCode.WRONG_EXECUTOR}


def test_an_empty_store_is_not_asked_in_a_loop() -> None:
    """Loaded without blocks is asked again after t_r, not at once."""
    lone = Lone(own=0)
    lone.hear(range_of(lone, 3))
    again = Lone(own=0, disk=lone.disk)
    assert len(again.seen(ev.LoadFinalized)) == 1
    again.give(ev.Loaded(blocks=()))
    assert len(again.seen(ev.LoadFinalized)) == 1
    again.wait(201)
    assert len(again.seen(ev.LoadFinalized)) == 2
    again.give(ev.Loaded(blocks=tuple(lone.disk.finalized)))
    told = [c.request for c in again.calls if isinstance(c.request, ev.ForkchoiceUpdated)]
    assert told[-1].finalized == lone.disk.finalized[-1].block_hash
