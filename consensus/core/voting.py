"""When the rules of `safety.py` are asked, and what leaves when they say yes: V1-V4, W1, R1.

Each function may be called at any time and does nothing when nothing is due.
Spec: spec/consensus.md#safety. Next: `proposing.py`.
"""

from consensus.core.block_sync import ask_block
from consensus.core.blocks import Block
from consensus.core.certificates import ask_views, form
from consensus.core.events import PushPayload, Verdict
from consensus.core.finality import halt
from consensus.core.safety import HeaderRules
from consensus.core.state import State
from consensus.core.tally import FINALIZE, NOTARIZE, NULLIFY, ViewState
from consensus.core.types import (
    ZERO_HASH,
    Hash32,
    Kind,
    PeerId,
    Propose,
    Request,
    View,
    Vote,
    Want,
)


def header_rules(st: State, view: View) -> HeaderRules:
    """Return what V1 compares a header of this view with."""
    return HeaderRules(
        parameters=st.parameters,
        chain_id=st.chain.chain_id,
        epoch=st.epoch.number,
        epoch_end=st.epoch.end_height,
        validator_set_id=st.epoch.set_id,
        leader=st.epoch.keys[st.leader(view)],
        next_validator_set_hash=st.next_set_hash,
    )


def sign(st: State, state: ViewState, kind: Kind, pid: Hash32) -> Vote:
    """Sign a vote and keep it; the caller has asked the rules."""
    assert st.own_index is not None, "only members sign"
    assert state.own[kind] is None, "a kind is voted once per view"
    vote = Vote(
        kind=kind,
        epoch=st.epoch.number,
        view=state.number,
        pid=pid,
        signer=st.own_index,
        signature=st.crypto.sign(st.message(state, kind, pid)),
    )
    state.own[kind] = vote
    state.own_sent_ms = st.now_ms
    return vote


def cast(st: State, state: ViewState, vote: Vote, propose: Propose | None) -> None:
    """W1: put a signed vote, and all it relies on, under one sync; then send and count it."""
    for record in st.rules.records_of_vote(vote, propose, tuple(st.unjournalled)):
        st.outbox.record(record)
    st.unjournalled.clear()
    if propose is not None and propose.vote is vote:
        st.outbox.broadcast(propose)
        header = propose.header
        st.outbox.then.append(
            PushPayload(
                block_hash=propose.proposal.block_hash,
                payload_commitment=header.payload_commitment,
                payload_bytes=header.payload_bytes,
            )
        )
    else:
        st.outbox.broadcast(vote)
    # An own signature that a rule's mutant makes twice has no slot; honest code never gets there.
    if vote.signer not in state.slots[vote.kind]:
        state.add(vote, st.epoch.weights[vote.signer])
    form(st, state, vote.kind, vote.pid)


def parent_of(st: State, parent_view: View, peer: PeerId | None) -> Block | None:
    """Return the block of a certified view; asks for its header when only that is missing."""
    block_hash = st.parent_hash_of(parent_view)
    if block_hash is None:
        return None
    block = st.blocks.get(block_hash)
    if block is None:
        ask_block(st, block_hash, peer)
    return block


def proposal_block(st: State, state: ViewState) -> Block | None:
    """Return the block that the view's proposal names, learned again if it was dropped."""
    if state.propose is None:
        return None
    block_hash = state.propose.proposal.block_hash
    block = st.blocks.get(block_hash)
    if block is None and state.propose.header.height > st.final.height:
        block = st.add_block(state.propose.header, block_hash)
    return block


def judge_proposal(st: State) -> Block | None:
    """V1: check all of the current view's proposal that needs no execution.

    Return its block when only the executor's verdict is missing or has come, else None: there is
    no proposal, it has a defect (`state.defect`), or it waits.
    """
    state = st.views.get(st.view)
    if state is None or state.propose is None or state.defect is not None:
        return None
    proposal, peer = state.propose.proposal, state.propose_peer
    if proposal.parent_view < st.last_final_view:
        state.defect = "stale parent"  # it would have to nullify a final view
        return None
    missing = st.rules.missing_views(
        st.views, st.last_final_view, proposal.parent_view, proposal.view
    )
    if missing is not None:
        # The leader must have them (V1).
        ask_views(st, peer, View(missing[0]), View(missing[1]))
        return None
    parent = parent_of(st, proposal.parent_view, peer)
    if parent is None:
        return None
    if st.rules.is_reproposal(proposal, parent):
        if proposal.parent_view == 0:
            state.defect = "the anchor again"  # it is final: there is nothing to decide
            return None
        return parent
    block = proposal_block(st, state)
    if block is None or block.header is None:
        state.defect = "a block that is final, or beside one"
        return None
    rules = header_rules(st, proposal.view)
    state.defect = st.rules.header_defect(block.header, parent, rules)
    if state.defect is not None:
        return None
    waits_for = st.rules.must_wait(block.header, rules, st.final.height, st.wall_ms)
    if waits_for == "timestamp":
        ahead = block.header.timestamp_ms - st.wall_ms - st.parameters.drift_ms
        st.wait_at = st.now_ms + ahead
    return block if waits_for is None else None


def vote(st: State) -> Block | None:
    """V1, V2, V3: cast every vote that is due; return the block whose verdict V1 waits for."""
    block = None
    state = st.views.get(st.view)
    if st.can_sign and state is not None and st.rules.may_notarize(state, st.view):
        block = judge_proposal(st)
        if block is not None and state.propose is not None and st.rules.is_executed(block):
            _notarize(st, state, state.propose)
            block = None
    _nullify(st)
    _finalize(st)
    return block


def _notarize(st: State, state: ViewState, propose: Propose) -> None:
    """V1: this proposal is right."""
    if propose.vote.signer == st.own_index:
        return  # The own proposal is its own vote (M4).
    cast(st, state, sign(st, state, NOTARIZE, propose.vote.pid), propose)


def _nullify(st: State) -> None:
    """V2: give the current view up if there is a reason."""
    if not st.can_sign or not _is_hopeless(st):
        return
    state = st.view_state(st.view)
    if st.rules.may_nullify(state, st.view):
        cast(st, state, sign(st, state, NULLIFY, ZERO_HASH), None)


def _is_hopeless(st: State) -> bool:
    """V2: T_lead without proposal, T_adv without notarization, INVALID, equivocation, own failure.

    In the current view there is no notarization: it would have ended the view (E2).
    """
    if st.adv_passed or st.build_failed:
        return True
    state = st.views.get(st.view)
    if state is None or state.propose is None:
        return st.lead_passed or (state is not None and state.equivocated)
    if state.equivocated or state.defect is not None:
        return True
    block = st.blocks.get(state.propose.proposal.block_hash)
    return block is not None and block.verdict == Verdict.INVALID


def _finalize(st: State) -> None:
    """V3, V4: FINALIZE what is notarized and VALID here, in any view above the last final one."""
    for number in [number for number in st.views if number > st.last_final_view]:
        state = st.views.get(number)
        proposal = None if state is None else state.certified()
        block = None if proposal is None else st.blocks.get(proposal.block_hash)
        if state is None or proposal is None or block is None:
            continue
        if st.rules.must_halt(block):
            halt(st, block)
        elif st.can_sign and st.rules.may_finalize(state) and st.rules.is_executed(block):
            cast(st, state, sign(st, state, FINALIZE, st.pid(proposal)), None)


def ask_for_own_votes(st: State) -> None:
    """W3: ask what peers hold of ours, and whether they are in this epoch: only then they answer.

    Before the first new signature after a boot; and an observer that knows no place, which may be
    no member: any validator's votes will do.
    """
    if st.own_index is not None or st.lacks_place:
        request = Request(want=Want.VOTES_OF, epoch=st.epoch.number, first=st.own_index or 0)
        st.outbox.broadcast(request)


def retransmit(st: State) -> None:
    """R1: send again what is older than a retransmission and still needed. Never signed anew."""
    old = st.now_ms - st.parameters.retransmit_interval_ms
    last = st.last_final_view
    for number in [number for number in sorted(st.views) if number > last]:
        state = st.views[number]
        if state.own_sent_ms > old:
            continue
        notarize, nullify, finalize = state.own[NOTARIZE], state.own[NULLIFY], state.own[FINALIZE]
        if notarize is not None and state.certificates[NOTARIZE] is None:
            propose = state.propose
            is_own = propose is not None and propose.vote == notarize
            st.outbox.broadcast(propose if propose is not None and is_own else notarize)
        if nullify is not None and state.certificates[NULLIFY] is None:
            st.outbox.broadcast(nullify)
        if finalize is not None:
            st.outbox.broadcast(finalize)
        state.own_sent_ms = st.now_ms
    if st.own_index is not None and st.entered_ms <= old:
        if st.entered_by is not None:
            st.outbox.broadcast(st.entered_by)
        final = st.latest_final()
        if final is not None and final.certificate is not st.entered_by:
            st.outbox.broadcast(final)
