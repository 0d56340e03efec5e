"""B1-B3, B2a: what a leader proposes, and when.

A proposal goes GetPayload -> own header -> NewPayload of it -> VALID -> sign, journal, send. Only
the first step has a state of its own (`Building`); the rest is in the block.
Spec: spec/consensus.md#proposing.
"""

from dataclasses import dataclass

from consensus.core.blocks import Block
from consensus.core.certificates import ask_views, keep_proposal
from consensus.core.events import GetPayload, PayloadBuilt, Verdict
from consensus.core.state import State
from consensus.core.tally import NOTARIZE, ViewState
from consensus.core.types import (
    HEADER_VERSION,
    ZERO_HASH,
    Epoch,
    Hash32,
    Header,
    Height,
    PeerId,
    Proposal,
    Propose,
    PublicKey,
    View,
)
from consensus.core.voting import cast, parent_of, sign


@dataclass(slots=True, kw_only=True)
class Building:
    """One attempt of the leader's in one view."""

    epoch: Epoch
    view: View
    parent_view: View
    parent: Block
    timestamp_ms: int
    block_hash: Hash32 | None = None
    """of the own header, once the payload is built"""


def find_parent(st: State) -> View | None:
    """B1: return the highest certified view that every view above it lets us build on.

    None: some view is neither certified nor nullified here. It is asked for.
    """
    view = View(st.view - 1)
    while view > st.last_final_view:
        state = st.views.get(view)
        if st.rules.is_parent_certified(state):
            return view
        if not st.rules.is_nullified(state):
            ask_views(st, st.next_peer(), View(st.last_final_view + 1), view)
            return None
        view = View(view - 1)
    return view


def may_lead(st: State) -> ViewState | None:
    """Return the current view's state if this node leads it and has signed nothing in it yet."""
    if not st.can_sign or st.leader(st.view) != st.own_index or st.build_failed:
        return None
    state = st.view_state(st.view)
    # B3: an own proposal that was journalled is the only one of its view; R1 sends it again.
    return state if st.rules.may_notarize(state, st.view) and state.propose is None else None


def propose(st: State, building: Building | None, fee_recipient: PublicKey) -> Building | None:
    """Drive the leader: propose again, wait, or begin to build.

    Return the attempt whose payload has to be asked for (`payload_request`) or that goes on.
    """
    state = may_lead(st)
    if state is None:
        return None
    if building is not None and building.view == st.view and building.epoch == st.epoch.number:
        return _propose_built(st, state, building)
    parent_view = find_parent(st)
    parent = None if parent_view is None else parent_of(st, parent_view, None)
    if parent is None or parent_view is None:
        return None
    depth = parent.height - st.final.height
    if parent.height >= st.epoch.end_height or depth >= st.parameters.unfinalized_max:
        _propose_again(st, state, parent_view, parent)  # B2
        return None
    if not parent.in_executor or _must_wait(st, parent.seen_ms):
        return None
    return Building(
        epoch=st.epoch.number,
        view=st.view,
        parent_view=parent_view,
        parent=parent,
        timestamp_ms=max(parent.timestamp_ms + 1, st.wall_ms),  # B2a
    )


def _must_wait(st: State, since_ms: int) -> bool:
    """B2a: say whether block_interval_ms since a proposal are not over, and wake when they are."""
    at = since_ms + st.parameters.block_interval_ms
    if st.now_ms >= at:
        return False
    st.build_at = at
    return True


def _propose_again(st: State, state: ViewState, parent_view: View, parent: Block) -> None:
    """B2, H2: the parent's block again, paced like a new one."""
    if parent_view == 0 or parent.header is None or not st.rules.is_executed(parent):
        return
    if not _must_wait(st, st.last_proposal_ms):
        _send_proposal(st, state, parent_view, parent)


def payload_request(st: State, building: Building, fee_recipient: PublicKey) -> GetPayload:
    """B2, E1: return the call; slow networks and executors get smaller blocks, down to empty."""
    p, b = st.parameters, st.backoff
    idle_at = building.parent.seen_ms + p.idle_interval_ms
    return GetPayload(
        parent_hash=building.parent.block_hash,
        height=Height(building.parent.height + 1),
        payload_bytes_max=p.payload_bytes_max // b,
        transactions_max=p.transactions_max // b,
        objects_max=p.objects_max // b,
        timestamp_ms=building.timestamp_ms,
        fee_recipient=fee_recipient,
        wait_ms=max(0, idle_at - st.now_ms),
    )


def header_of(
    st: State, building: Building, built: PayloadBuilt, fee_recipient: PublicKey
) -> Header | None:
    """B2: return the own header; None while a boundary's next set is unknown."""
    assert st.key is not None, "only members propose"
    height = Height(building.parent.height + 1)
    next_hash = ZERO_HASH
    if height == st.epoch.end_height:
        if st.next_set_hash is None:
            return None
        next_hash = st.next_set_hash
    return Header(
        version=HEADER_VERSION,
        chain_id=st.chain.chain_id,
        epoch=st.epoch.number,
        height=height,
        parent_hash=building.parent.block_hash,
        timestamp_ms=building.timestamp_ms,
        proposer=st.key,
        fee_recipient=fee_recipient,
        validator_set_id=st.epoch.set_id,
        payload_commitment=built.payload_commitment,
        payload_bytes=built.payload_bytes,
        transaction_count=built.transaction_count,
        transactions_root=built.transactions_root,
        state_hash=built.state_hash,
        receipts_hash=built.receipts_hash,
        next_validator_set_hash=next_hash,
    )


def _propose_built(st: State, state: ViewState, building: Building) -> Building | None:
    """B2: send the own block once the executor said VALID; INVALID gives the view up (V2)."""
    if building.block_hash is None:
        return building
    block = st.blocks.get(building.block_hash)
    if block is None or block.verdict == Verdict.INVALID:
        st.build_failed = True
        st.dirty = True
        return None
    if not st.rules.is_executed(block) or _is_early(st, building.timestamp_ms):
        return building
    _send_proposal(st, state, building.parent_view, block)
    return None


def _is_early(st: State, timestamp_ms: int) -> bool:
    """V1: say whether the own block is further ahead than drift allows, and wake when it is not.

    A clock that was set back leaves a parent in the future; the own vote obeys V1 like any other.
    """
    at = st.now_ms + timestamp_ms - st.wall_ms - st.parameters.drift_ms
    if st.now_ms >= at:
        return False
    st.build_at = at
    return True


def _send_proposal(st: State, state: ViewState, parent_view: View, block: Block) -> None:
    """M4: sign the proposal by the own NOTARIZE vote and send both."""
    assert block.header is not None, "genesis is never proposed"
    assert st.key is not None, "only members propose"
    proposal = Proposal(
        epoch=st.epoch.number, view=st.view, parent_view=parent_view, block_hash=block.block_hash
    )
    pid = st.pid(proposal)
    vote = sign(st, state, NOTARIZE, pid)
    made = Propose(proposal=proposal, header=block.header, vote=vote)
    keep_proposal(st, PeerId(st.key), state, made)
    cast(st, state, vote, made)
