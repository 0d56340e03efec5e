"""Votes in, certificates out: M3, M5, E2, C1, C3, X1. The busiest file, so it stays lean.

Spec: spec/consensus.md#votes. Next: `voting.py`.
"""

from consensus.core.epochs import EpochContext
from consensus.core.events import AlarmCode
from consensus.core.evidence import is_genuine, offence_of
from consensus.core.state import (
    EVIDENCE_VIEWS,
    PROPOSALS_MAX,
    VIEWS_AHEAD_MAX,
    State,
)
from consensus.core.tally import FINALIZE, NOTARIZE, NULLIFY, ViewState, signers_of
from consensus.core.types import (
    ZERO_HASH,
    Certificate,
    Evidence,
    Hash32,
    Kind,
    PeerId,
    Propose,
    Request,
    View,
    Vote,
    Want,
)


def on_vote(st: State, peer: PeerId, vote: Vote) -> None:
    """M3: count a vote of the current epoch, or answer a peer that is behind."""
    number = vote.view
    if number > st.view + 1:
        _keep_ahead(st, peer, vote)
        return
    state = st.views.get(number)
    if state is None:
        if number <= st.last_final_view or number <= st.given_up_view:
            answer_laggard(st, peer)
            return
    else:
        slot = state.slots[vote.kind].get(vote.signer)
        if slot is not None and slot.pid == vote.pid:
            # Sent again: the sender lacks what these votes came to (R1).
            if number < st.view:
                answer_laggard(st, peer)
            return
    if not _is_possible(st, vote):
        st.penalize(peer, "a vote that no validator of this epoch can mean")
        return
    take_vote(st, peer, state or st.view_state(number), vote)


def _is_possible(st: State, vote: Vote) -> bool:
    """Say whether a vote has a member as signer, a real view, and a proposal exactly if due."""
    if vote.signer >= len(st.epoch.keys) or vote.view < 1:
        return False
    return (vote.kind == NULLIFY) == (vote.pid == ZERO_HASH)


def take_vote(st: State, peer: PeerId, state: ViewState, vote: Vote) -> bool:
    """Verify a vote that is not held yet and count it; say whether it is genuine and counted."""
    kind, signer, pid = vote.kind, vote.signer, vote.pid
    message = st.message(state, kind, pid)
    if not st.crypto.verify(st.epoch.keys[signer], message, vote.signature):
        st.penalize(peer, "a vote with a bad signature")
        return False
    if signer == st.own_index:
        _own_vote_seen(st, state, kind, pid)
        return False
    earlier = state.slots[kind].get(signer)
    if earlier is not None:
        _equivocation(st, state, earlier, vote)
        return False
    power, conflict = state.add(vote, st.epoch.weights[signer])
    if conflict is not None:
        report(st, Evidence(first=conflict, second=vote))
    if power >= st.epoch.quorum:
        form(st, state, kind, pid)
    return True


def form(st: State, state: ViewState, kind: Kind, pid: Hash32) -> None:
    """C1: make a certificate of the votes counted, once, if they suffice and are of use."""
    if state.certificates[kind] is not None or state.number <= st.last_final_view:
        return
    if state.powers[kind].get(pid, 0) < st.epoch.quorum:
        return
    if kind == NULLIFY or pid in state.proposals:
        accept(st, state.assemble(kind, pid, len(st.epoch.keys)))


def form_after_boot(st: State) -> None:
    """C1: make the certificates for which the journal's votes suffice, as a whale's own do."""
    for number in sorted(st.views):
        state = st.views.get(number)
        if state is not None:
            for kind in Kind:
                for pid in list(state.powers[kind]):
                    form(st, state, kind, pid)


def _own_vote_seen(st: State, state: ViewState, kind: Kind, pid: Hash32) -> None:
    """W3: a genuine own signature came back; one that the journal lacks proves a loss."""
    own = state.own[kind]
    if own is not None and own.pid == pid:
        return
    st.own_vote_lost(kind, state.number)


def _equivocation(st: State, state: ViewState, earlier: Vote, vote: Vote) -> None:
    """X1: two votes for one slot; from the leader they also spoil the view (V2)."""
    report(st, Evidence(first=earlier, second=vote))
    if vote.kind == NOTARIZE and vote.signer == st.leader(state.number):
        state.equivocated = True
        st.dirty = True


def report(st: State, evidence: Evidence) -> None:
    """X2: store and gossip verified evidence, once per (signer, epoch, view, type)."""
    offence = offence_of(evidence.first, evidence.second)
    epoch = st.epochs.get(evidence.first.epoch)
    assert offence is not None, "only what is no legal pair is reported"
    assert epoch is not None, "votes are verified under an epoch that is known"
    if st.evidence.is_new(epoch, evidence, offence):
        st.evidence.add(epoch, evidence, offence)
        st.outbox.evidence.append(evidence)
        st.outbox.broadcast(evidence)


def on_evidence(st: State, peer: PeerId, evidence: Evidence) -> None:
    """X2: verify foreign evidence inside the window."""
    first, second = evidence.first, evidence.second
    offence = offence_of(first, second)
    if offence is None:
        st.penalize(peer, "evidence of nothing")
        return
    epoch = st.epochs.get(first.epoch)
    if epoch is None or first.signer >= len(epoch.keys):
        st.refused_count += 1
        return
    if not st.evidence.is_new(epoch, evidence, offence):
        return
    if is_genuine(st.crypto, epoch, first) and is_genuine(st.crypto, epoch, second):
        report(st, evidence)
    else:
        st.penalize(peer, "evidence with a bad signature")


def _keep_ahead(st: State, peer: PeerId, vote: Vote) -> None:
    """Keep the highest vote of each signer beyond the next view, and ask how it got there."""
    kept = st.ahead.get(vote.signer)
    if kept is not None and kept[1].view >= vote.view:
        return
    if not _is_possible(st, vote) or not is_genuine(st.crypto, st.epoch, vote):
        st.penalize(peer, "a vote with a bad signature")
        return
    if vote.signer == st.own_index:
        st.own_vote_lost(vote.kind, vote.view)  # W3: this node never was in that view
        return
    st.ahead[vote.signer] = (peer, vote)
    ask_views(st, peer, View(st.last_final_view + 1), View(vote.view - 1))


def ask_views(st: State, peer: PeerId | None, first: View, last: View) -> None:
    """Ask one peer for what it holds of a range of views, at most once per retransmission."""
    if peer is None or peer == st.own_peer or st.is_limited(st.asked_peers, peer):
        return
    request = Request(want=Want.VIEWS, epoch=st.epoch.number, first=first, last=max(first, last))
    st.outbox.send(peer, request)


# --- proposals ----------------------------------------------------------------------------------


def on_propose(st: State, peer: PeerId, propose: Propose) -> None:
    """M4: keep a proposal of the leader's: one per view, VIEWS_AHEAD_MAX views ahead."""
    proposal, vote = propose.proposal, propose.vote
    number = proposal.view
    if number <= max(st.last_final_view, st.given_up_view):
        on_vote(st, peer, vote)  # X1: the proposal is of no use, its signature may be evidence
        return
    if number > st.view + VIEWS_AHEAD_MAX:
        st.refused_count += 1
        ask_views(st, peer, View(st.last_final_view + 1), View(number - 1))
        return
    state = st.views.get(number)
    kept = None if state is None else state.propose
    if kept is not None and kept.vote.pid == vote.pid and kept.proposal == proposal:
        if number < st.view:
            answer_laggard(st, peer)
        return
    if state is not None and len(state.proposals) >= PROPOSALS_MAX:
        st.refused_count += 1
        return
    if not _is_leaders(st, propose):
        st.penalize(peer, "a proposal that is not the leader's")
        return
    state = st.view_state(number)
    earlier = state.slots[NOTARIZE].get(vote.signer)
    if earlier is not None and earlier.pid == vote.pid:
        genuine = True
    else:
        genuine = take_vote(st, peer, state, vote)
    # A second proposal is counted nowhere and known all the same: its votes may make a certificate.
    if not genuine and not (state.equivocated and is_genuine(st.crypto, st.epoch, vote)):
        return
    keep_proposal(st, peer, state, propose)


def _is_leaders(st: State, propose: Propose) -> bool:
    """Say whether every part names the same block, proposal, view and leader."""
    proposal, vote = propose.proposal, propose.vote
    return (
        proposal.view >= 1
        and proposal.parent_view < proposal.view
        and vote.kind == NOTARIZE
        and vote.epoch == proposal.epoch
        and vote.view == proposal.view
        and vote.signer == st.leader(proposal.view)
        and vote.pid == st.pid(proposal)
        and st.hash_of(propose.header) == proposal.block_hash
    )


def keep_proposal(st: State, peer: PeerId, state: ViewState, propose: Propose) -> None:
    """Keep a verified proposal; only the first one of a view may get this node's vote."""
    proposal, pid = propose.proposal, propose.vote.pid
    if pid not in state.proposals and len(state.proposals) < PROPOSALS_MAX:
        state.proposals[pid] = proposal
    block = st.add_block(propose.header, proposal.block_hash)
    block.view = max(block.view, proposal.view)
    if peer not in block.peers:
        block.peers = (peer, *block.peers[:1])
    st.last_proposal_ms = st.now_ms
    if state.propose is None:
        state.propose, state.propose_peer = propose, peer
    st.dirty = True
    # The quorum may have been here before the proposal that its votes name.
    for kind in (NOTARIZE, FINALIZE):
        form(st, state, kind, pid)


# --- certificates -------------------------------------------------------------------------------


def is_valid(st: State, epoch: EpochContext, certificate: Certificate) -> bool:
    """M5: exactly n bits, power >= q, every signature right; what is counted is not verified anew.

    The proposal must be of the certificate's own epoch and view.
    """
    proposal, kind = certificate.proposal, certificate.kind
    if certificate.validator_count != len(epoch.keys) or certificate.view < 1:
        return False
    if certificate.signers >> len(epoch.keys) or (kind == NULLIFY) != (proposal is None):
        return False
    pid = ZERO_HASH
    if proposal is not None:
        if proposal.epoch != certificate.epoch or proposal.view != certificate.view:
            return False
        if proposal.parent_view >= proposal.view:
            return False
        pid = st.pid(proposal)
    signers = signers_of(certificate)
    if len(signers) != len(certificate.signatures):
        return False
    if sum(epoch.weights[signer] for signer in signers) < epoch.quorum:
        return False
    state = st.views.get(certificate.view) if epoch is st.epoch else None
    slots = {} if state is None else state.slots[kind]
    keys, signatures = [], []
    for signer, signature in zip(signers, certificate.signatures, strict=True):
        counted = slots.get(signer)
        if counted is None or counted.pid != pid or counted.signature != signature:
            keys.append(epoch.keys[signer])
            signatures.append(signature)
    message = epoch.vote_message(kind, certificate.view, pid)
    return not keys or st.crypto.verify_many(keys, message, signatures)


def on_certificate(st: State, peer: PeerId, certificate: Certificate) -> None:
    """C1, E2: accept a certificate of the current epoch the first time."""
    number, kind = certificate.view, certificate.kind
    if number <= st.last_final_view or (number <= st.given_up_view and kind != FINALIZE):
        answer_laggard(st, peer)
        return
    state = st.views.get(number)
    held = None if state is None else state.certificates[kind]
    if held is not None and held.proposal == certificate.proposal:
        if number < st.view - 1:
            answer_laggard(st, peer)
        return
    if not is_valid(st, st.epoch, certificate):
        st.penalize(peer, "a certificate that is not valid")
        return
    _learn_votes(st, certificate)
    if held is None:
        accept(st, certificate)
    else:
        st.alarm(AlarmCode.CONFLICTING_CERTIFICATES, f"{kind.name} of view {number}")


def _learn_votes(st: State, certificate: Certificate) -> None:
    """Count the votes of a verified certificate: they may be evidence, or lost own ones (W3)."""
    state, kind = st.view_state(certificate.view), certificate.kind
    pid = ZERO_HASH if certificate.proposal is None else st.pid(certificate.proposal)
    slots, weights = state.slots[kind], st.epoch.weights
    for signer, signature in zip(signers_of(certificate), certificate.signatures, strict=True):
        if signer == st.own_index:
            _own_vote_seen(st, state, kind, pid)
            continue
        earlier = slots.get(signer)
        if earlier is not None and earlier.pid == pid:
            continue
        vote = Vote(
            kind=kind,
            epoch=certificate.epoch,
            view=certificate.view,
            pid=pid,
            signer=signer,
            signature=signature,
        )
        if earlier is not None:
            _equivocation(st, state, earlier, vote)
            continue
        _, conflict = state.add(vote, weights[signer])
        if conflict is not None:
            report(st, Evidence(first=conflict, second=vote))


def accept(st: State, certificate: Certificate, relay: bool = True) -> None:
    """C1: keep a valid certificate, hand it on once, and enter the next view (E2)."""
    state, kind, number = st.view_state(certificate.view), certificate.kind, certificate.view
    assert state.certificates[kind] is None, "a certificate is accepted once"
    state.certificates[kind] = certificate
    st.unjournalled.append(certificate)
    if relay:
        st.outbox.broadcast(certificate)
    st.dirty = True
    if certificate.proposal is not None:
        state.proposals.setdefault(st.pid(certificate.proposal), certificate.proposal)
    _alarm_on_conflict(st, state)
    # E1: nullified views count, and notarized ones that took longer than T_adv.
    slow = kind == NOTARIZE and number == st.view and st.adv_passed
    if kind == NULLIFY or slow:
        state.counts_for_backoff = True
    if kind == FINALIZE and number > st.last_final_view:
        st.last_final_view = number
        st.final_target = certificate
        st.unjournalled = [held for held in st.unjournalled if held.view >= number]
        for old in [view for view in st.views if view <= number - EVIDENCE_VIEWS]:
            del st.views[old]
    before = st.backoff
    st.recount_backoff()
    if number >= st.view:
        enter(st, View(number + 1), certificate)  # E2
    elif st.backoff < before:
        # E1: the view was entered by the notarization that is final now, with the old b.
        set_deadlines(st, st.entered_ms)


def _alarm_on_conflict(st: State, state: ViewState) -> None:
    """I2, I3 cannot break while less than a third of the power is faulty; say it if they do."""
    notarization, nullification, finalization = state.certificates[1:]
    if finalization is None:
        return
    if nullification is not None or (
        notarization is not None and notarization.proposal != finalization.proposal
    ):
        st.alarm(AlarmCode.CONFLICTING_CERTIFICATES, f"view {state.number} is final and is not")


def enter(st: State, number: View, by: Certificate | None) -> None:
    """E1: enter a view, upwards only, and arm its timers."""
    assert number > st.view, "views only go up"
    st.view, st.entered_by, st.entered_ms = number, by, st.now_ms
    arm(st)
    st.dirty = True
    if st.ahead:
        ready = [item for item in st.ahead.values() if item[1].view <= number + 1]
        for item in ready:
            # One of them may complete a certificate, enter a view and take the others.
            if st.ahead.get(item[1].signer) is item:
                del st.ahead[item[1].signer]
                on_vote(st, *item)


def arm(st: State) -> None:
    """E1: T_lead to see a proposal, T_adv to see it notarized, both stretched by b."""
    st.lead_passed = st.adv_passed = st.build_failed = False
    st.build_at = st.wait_at = None
    set_deadlines(st, st.now_ms)


def set_deadlines(st: State, entered_ms: int) -> None:
    """E1: set what has not passed yet to T_lead and T_adv after the entry."""
    p, b = st.parameters, st.backoff
    if not st.lead_passed:
        lead_ms = p.idle_interval_ms + (2 * p.delta_ms + p.execute_max_ms) * b
        st.lead_at = entered_ms + lead_ms
    if not st.adv_passed:
        work_ms = 3 * p.delta_ms + 2 * p.execute_max_ms + p.transfer_max_ms
        st.adv_at = entered_ms + p.idle_interval_ms + work_ms * b


# --- peers that are behind ----------------------------------------------------------------------


def answer_laggard(st: State, peer: PeerId) -> None:
    """R1: send what lets a peer catch up, at most once per retransmission."""
    if peer == st.own_peer or st.is_limited(st.answered, peer):
        return
    final = st.latest_final()
    if final is not None and final.certificate.epoch == st.epoch.number:
        st.outbox.send(peer, final)
    if st.entered_by is not None and st.entered_by.kind != FINALIZE:
        st.outbox.send(peer, st.entered_by)
