"""W1 to W4: what is durable before a vote leaves, and what a replica does after a crash."""

import pytest

from consensus.core import events as ev
from consensus.core import journal, state
from consensus.core.codec import encode_certificate, encode_vote
from consensus.core.types import (
    ZERO_HASH,
    Certificate,
    Final,
    Hash32,
    Kind,
    Propose,
    Request,
    Vote,
    VotesAnswer,
    Want,
)
from tests.consensus.lone import WALL_MS, Disk, Lone
from tests.consensus.net import DELAY_MS, Net, make_chain, set_hash
from tests.consensus.test_voting import follower, notarized

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE


def own_votes(message: object) -> list[Vote]:
    """Return the votes in a message."""
    vote = message.vote if isinstance(message, Propose) else message
    return [vote] if isinstance(vote, Vote) else []


def test_votes_leave_behind_their_records() -> None:
    """W1: in every Persist, each own vote of `then` and the entering certificate are durable."""
    lone = follower()
    durable = b"".join(lone.disk.journal)
    propose = lone.propose(1, lone.header(1), 0)
    notarization = lone.certificate(NOTARIZE, 1, propose.proposal)
    lone.hear(propose)
    lone.hear(notarization)
    lone.hear(lone.propose(2, lone.header(2, propose.header), 1))
    checked = 0
    for persist in lone.seen(ev.Persist):
        durable += b"".join(persist.append)
        for effect in persist.then:
            for vote in own_votes(getattr(effect, "message", None)):
                if vote.signer == lone.own:
                    assert encode_vote(vote) in durable
                    if vote.view == 2:
                        assert encode_certificate(notarization) in durable
                    checked += 1
    assert checked == 3


def test_nothing_leaves_outside_persist() -> None:
    """Messages, pushes and ForkchoiceUpdated stand only inside Persist.then."""
    net = Net(make_chain([1] * 4))
    node = net.nodes[0]
    top: list[ev.Effect] = []
    give = node.give

    def watched(event: ev.Event) -> list[ev.Effect]:
        effects = give(event)
        top.extend(effects)
        return effects

    node.give = watched  # type: ignore[method-assign]  # watch one node
    net.run(1_000)
    assert net.heights()[0] > 3
    for effect in top:
        assert not isinstance(effect, ev.Send | ev.Broadcast | ev.PushPayload)
        if isinstance(effect, ev.Call):
            assert not isinstance(effect.request, ev.ForkchoiceUpdated)


def restarted(lone: Lone, **changes: object) -> Lone:
    """Return the replica that a restart makes of a disk."""
    return Lone(own=lone.own, disk=lone.disk, now_ms=lone.now_ms, chain=lone.chain, **changes)  # type: ignore[arg-type]  # a table of options


def test_a_restart_signs_nothing_twice() -> None:
    """W2: after a crash the same proposal, another one and T_lead get no second vote."""
    lone = follower()
    lone.hear(lone.propose(1, lone.header(1), 0))
    again = restarted(lone)
    again.hear(lone.propose(1, lone.header(1, timestamp_ms=WALL_MS + 7), 0))
    again.hear(lone.propose(1, lone.header(1), 0))
    assert (NOTARIZE, 1) not in [v for v in again.votes() if v not in lone.votes()]
    resent = [m for m in again.wait(1_000) if isinstance(m, Vote) and m.kind == NOTARIZE]
    originals = [m for m in lone.sent if isinstance(m, Vote)]
    assert resent
    assert all(vote in originals for vote in resent)


@pytest.mark.parametrize("journalled", [True, False])
def test_no_finalize_after_a_forgotten_nullify(journalled: bool) -> None:
    """W2, V3: NULLIFY survives the crash; only a journal that lost it would allow FINALIZE."""
    lone = follower()
    lone.wait(111)
    assert lone.votes() == [(NULLIFY, 1)]
    if not journalled:
        lone.disk.journal = list(journal.empty_journal())
    again = restarted(lone)
    propose = lone.propose(1, lone.header(1), 0)
    again.hear(propose)
    again.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    assert ((FINALIZE, 1) in again.votes()) == (not journalled)


def test_the_boot_view_is_above_every_certificate() -> None:
    """W2: view = max(1 + highest certificate, highest vote); the entering certificate is sent."""
    propose, lone = notarized(follower())
    assert lone.replica.view == 2
    again = restarted(lone)
    assert again.replica.view == 2
    assert (NULLIFY, 1) not in again.votes()
    resent = again.wait(1_000)
    assert any(isinstance(m, Certificate) and m.view == 1 for m in resent)
    assert propose.proposal.view == 1


def test_the_header_outlives_all_nodes() -> None:
    """W1: the header that a NOTARIZE names is in the journal: FINALIZE after a total power cut."""
    lone = follower()
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    again = restarted(lone)
    again.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    assert (FINALIZE, 1) in again.votes()


def test_a_leader_sends_its_journalled_proposal() -> None:
    """B3: after a crash the leader re-sends the bytes of its proposal and never builds another."""
    for own in range(4):
        lone = Lone(own=own)
        if lone.leader(1) == own:
            break
    lone.wait(41)
    (made,) = [m for m in lone.sent if isinstance(m, Propose)]
    again = restarted(lone)
    again.wait(400)
    resent = [m for m in again.sent if isinstance(m, Propose)]
    assert resent
    assert all(message == made for message in resent if message.proposal.view == 1)
    assert not [c for c in again.calls if isinstance(c.request, ev.GetPayload)]


def test_the_journal_is_cut_at_finalizations() -> None:
    """W4: at a finalization the journal becomes the finalization and what is above it."""
    lone = Lone(own=follower().own, cut_bytes=0)
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    replayed = journal.replay(tuple(lone.disk.journal))
    assert (replayed.cut_epoch, replayed.cut_view) == (0, 1)
    assert replayed.votes == []
    assert [held.kind for held in replayed.certificates] == [FINALIZE]
    again = restarted(lone)
    assert (again.replica.final_height, again.replica.view) == (1, 2)


def give_up_view_two(lone: Lone) -> tuple[Propose, Propose]:
    """Give NOTARIZE and NULLIFY in view 2, then let so many views follow that it is given up."""
    first = lone.propose(1, lone.header(1), 0)
    lone.hear(first)
    lone.hear(lone.certificate(NOTARIZE, 1, first.proposal))
    second = lone.propose(2, lone.header(2, first.header), 1)
    lone.hear(second)
    lone.wait(211)
    assert {(NOTARIZE, 2), (NULLIFY, 2)} <= set(lone.votes())
    last = next(view for view in range(13, 99) if lone.leader(view + 1) != lone.own)
    for view in range(2, last + 1):
        lone.hear(lone.certificate(NULLIFY, view))
    return first, second


def test_a_view_that_was_given_up_stays_so_after_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """V3, W4: the cut says that votes of a view above the final one are forgotten, too."""
    monkeypatch.setattr(state, "VIEWS_HELD_MAX", 8)
    lone = follower()
    first, second = give_up_view_two(lone)
    lone.replica._journal_cut_bytes = 0
    lone.hear(lone.certificate(FINALIZE, 1, first.proposal))
    assert lone.replica.final_height == 1
    lone.disk.executor_final = (1, first.proposal.block_hash)
    again = Lone(own=lone.own, disk=lone.disk, now_ms=lone.now_ms)
    again.hear(second)
    again.hear(again.certificate(NOTARIZE, 2, second.proposal))
    assert (FINALIZE, 2) not in again.votes()


def test_a_vote_of_a_view_that_was_given_up_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """W3: an own FINALIZE in a late finalization was forgotten, not lost: no observer."""
    monkeypatch.setattr(state, "VIEWS_HELD_MAX", 8)
    lone = follower()
    first, _ = give_up_view_two(lone)
    assert (FINALIZE, 1) in lone.votes()
    others = [index for index in range(4) if index != lone.own][:2]
    signers = tuple(sorted((lone.own, *others)))
    lone.hear(lone.certificate(FINALIZE, 1, first.proposal, signers))
    assert lone.replica.final_height == 1
    assert not lone.replica.is_observer


def test_every_prefix_of_the_journal_boots() -> None:
    """A torn tail loses whole records at the end: every such journal makes a sane replica."""
    _, lone = notarized(follower())
    lone.hear(lone.propose(2, lone.header(2), 0))
    lone.wait(500)
    records = tuple(lone.disk.journal)
    assert len(records) > 4
    for length in range(1, len(records) + 1):
        again = Lone(own=lone.own, disk=Disk(records[:length]))
        assert 1 <= again.replica.view <= lone.replica.view


@pytest.mark.parametrize(
    "records",
    [(), (b"",), (b"\2",), (*journal.empty_journal(), b"\x09"), (*journal.empty_journal(), b"\2x")],
)
def test_a_damaged_journal_is_refused(records: tuple[bytes, ...]) -> None:
    """W3: whole records that make no sense are no journal: the shell must make an observer."""
    with pytest.raises(journal.DamagedJournal):
        journal.replay(records)


def test_a_lost_signature_makes_an_observer() -> None:
    """W3: an own genuine vote that the journal lacks: durable mark, alarm, nothing signed."""
    lone = Lone(own=follower().own, asks=True)
    lost = lone.vote(NOTARIZE, 3, Hash32(b"p" * 32), lone.own)
    lone.hear(VotesAnswer(epoch=lost.epoch, signer=lone.own, votes=()), 1)
    lone.hear(VotesAnswer(epoch=lost.epoch, signer=lone.own, votes=()), 2)
    early = lone.vote(NOTARIZE, 1, Hash32(b"p" * 32), lone.own)
    lone.hear(early)
    assert lone.replica.is_observer
    assert [a.code for a in lone.seen(ev.Alarm)] == [ev.AlarmCode.LOST_SIGNATURE]
    assert journal.replay(tuple(lone.disk.journal)).observer_since_ms is not None
    lone.wait(1_000)
    assert lone.votes() == []
    assert restarted(lone).replica.is_observer


def test_a_mark_is_not_before_the_last_final_block() -> None:
    """W3: a clock that was set back would let boundaries of the past end the observation."""
    lone = follower()
    header = lone.header(1, timestamp_ms=WALL_MS + 4_000)
    propose = lone.propose(1, header, 0)
    lone.hear(propose, lone.leader(1))
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    assert lone.replica.final_height == 1
    lone.hear(lone.vote(NOTARIZE, 2, Hash32(b"p" * 32), lone.own))
    assert lone.replica.is_observer
    since_ms = journal.replay(tuple(lone.disk.journal)).observer_since_ms
    assert since_ms == header.timestamp_ms


def test_a_forged_loss_is_ignored() -> None:
    """W3: only a valid signature is proof."""
    lone = follower()
    genuine = lone.vote(NOTARIZE, 1, Hash32(b"p" * 32), lone.own)
    forged = Vote(
        kind=NOTARIZE,
        epoch=genuine.epoch,
        view=genuine.view,
        pid=Hash32(b"q" * 32),
        signer=lone.own,
        signature=genuine.signature,
    )
    lone.hear(forged)
    assert not lone.replica.is_observer
    assert len(lone.seen(ev.Penalize)) == 1


def test_votes_below_the_cut_are_no_proof() -> None:
    """W3: what the journal may lack proves nothing."""
    lone = Lone(own=follower().own, cut_bytes=0)
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    again = restarted(lone)
    again.hear(lone.vote(NULLIFY, 1, ZERO_HASH, lone.own))
    assert not again.replica.is_observer


def test_a_boot_asks_before_it_signs() -> None:
    """W3: nothing is signed before a quorum answered or the bound passed."""
    own = follower().own
    lone = Lone(own=own, asks=True)
    lone.hear(lone.propose(1, lone.header(1), 0))
    assert lone.votes() == []
    answer = VotesAnswer(epoch=lone.epoch.number, signer=own, votes=())
    others = [index for index in range(4) if index != own]
    lone.hear(answer, others[0])
    assert lone.votes() == []
    lone.hear(answer, others[1])
    assert lone.votes() == [(NOTARIZE, 1)]
    silent = Lone(own=own, asks=True)
    silent.hear(silent.propose(1, silent.header(1), 0))
    silent.wait(4 * 20)
    assert silent.votes() == [(NOTARIZE, 1)]


def test_all_nodes_survive_a_power_cut() -> None:
    """W1, W2: every node restarts from its disk at once and the chain goes on."""
    net = Net(make_chain([1] * 4))
    net.run(1_003)
    before = min(net.heights())
    for node in net.nodes:
        node.boot()
    net.run(1_003 + 2_000 + DELAY_MS)
    assert min(net.heights()) > before + 10
    assert all(not node.evidence and not node.alarms for node in net.nodes)


def test_a_lost_signature_of_a_far_view_is_seen() -> None:
    """W3: a restored old journal meets a vote of its own far above its view: an observer."""
    lone = Lone(own=follower().own, asks=True)
    lost = lone.vote(NULLIFY, 500, ZERO_HASH, lone.own)
    lone.hear(VotesAnswer(epoch=lost.epoch, signer=lone.own, votes=(lost,)), 1)
    assert lone.replica.is_observer
    lone.hear(lone.propose(1, lone.header(1), 0))
    lone.wait(1_000)
    assert lone.votes() == []


def test_who_comes_from_behind_asks_again() -> None:
    """W3: a node that did not vote for a boundary asks for own votes in the next epoch."""
    chain = make_chain([1] * 4, None, heights_per_epoch=1)
    for took_part in (True, False):
        lone = Lone(own=follower().own, chain=chain)
        wanted = set_hash(chain.validators[1])
        propose = lone.propose(1, lone.header(1, next_validator_set_hash=wanted), 0)
        certificate = lone.certificate(FINALIZE, 1, propose.proposal)
        if took_part:
            lone.hear(propose)
        sent = lone.hear(Final(header=propose.header, certificate=certificate))
        assert lone.replica.epoch == 1
        asked = [m for m in sent if isinstance(m, Request) and m.want == Want.VOTES_OF]
        assert [m.epoch for m in asked] == ([] if took_part else [1])


def test_the_journal_of_another_key_is_refused() -> None:
    """W3: votes of another validator make no journal of this one."""
    lone = follower()
    lone.wait(111)
    with pytest.raises(journal.DamagedJournal):
        Lone(own=(lone.own + 1) % 4, disk=lone.disk)


def test_a_whale_goes_on_after_its_own_nullify() -> None:
    """C1, W2: who is a quorum alone makes the certificate again from the vote in its journal."""
    for small in range(20, 40):
        whale = Lone([100, small, 1], own=0)
        if whale.leader(1) != 0:
            break
    whale.wait(111)
    assert whale.votes()[0] == (NULLIFY, 1)
    assert whale.replica.view >= 2
    # The certificate is made of a durable vote and becomes durable only with the next vote (W1).
    records = tuple(whale.disk.journal)[:2]
    assert [vote.kind for vote in journal.replay(records).votes] == [NULLIFY]
    again = Lone([100, small, 1], own=0, disk=Disk(records))
    assert again.replica.view >= 2
