"""W2, W3: a replica's state from what survived on disk.

Spec: spec/consensus.md#journal.
"""

from consensus.core.blocks import block_of
from consensus.core.certificates import arm
from consensus.core.events import Boot
from consensus.core.finality import adopt_boundary, count_for_observer, learn_next_set
from consensus.core.journal import DamagedJournal, Replayed, replay
from consensus.core.state import EVIDENCE_VIEWS, State
from consensus.core.tally import FINALIZE, NOTARIZE
from consensus.core.types import Certificate, View


def restore(st: State, boot: Boot) -> None:
    """Take over store and journal; raises journal.DamagedJournal."""
    learn_next_set(st, st.chain.validators[1])
    for boundary in boot.boundaries:
        adopt_boundary(st, boundary)
    if boot.finalized is not None:
        st.final = block_of(boot.finalized.header, boot.finalized.block_hash)
        st.blocks = {st.final.block_hash: st.final}
        st.final_certificate = boot.finalized.certificate
    replayed = replay(boot.journal)
    _restore_observer(st, boot, replayed)
    if replayed.cut_epoch == st.epoch.number:
        st.cut_view = replayed.cut_view
        st.given_up_view = View(replayed.cut_view)  # V2, V3: what was signed there is not known
    highest = _restore_certificates(st, replayed)
    _restore_votes(st, replayed)
    for old in [view for view in st.views if view <= st.last_final_view - EVIDENCE_VIEWS]:
        del st.views[old]
    # W2: timers start anew in this view; below it nothing is signed but FINALIZE (V1, V2, V3).
    voted = [view for view, state in st.views.items() if any(state.own)]
    st.view = View(max([1, highest + 1, *voted]))
    before = st.views.get(View(st.view - 1))
    if before is not None:
        held = [certificate for certificate in before.certificates if certificate is not None]
        st.entered_by = held[-1] if held else None
    st.recount_backoff()
    arm(st)


def _restore_observer(st: State, boot: Boot, replayed: Replayed) -> None:
    """W3: the mark holds until two boundaries are final that are surely later."""
    st.observer_since_ms, st.observer_place = replayed.observer_since_ms, replayed.observer_place
    for boundary in boot.boundaries:
        count_for_observer(st, boundary)


def _restore_certificates(st: State, replayed: Replayed) -> int:
    """Keep certificates of the current epoch; return the highest view of one."""
    certificates = [held for held in replayed.certificates if held.epoch == st.epoch.number]
    stored = st.final_certificate
    if stored is not None and stored.epoch == st.epoch.number and stored not in certificates:
        certificates.append(stored)
        st.unjournalled.append(stored)
    for certificate in certificates:
        _restore_certificate(st, certificate)
    target = st.final_target
    decided = None if target is None else target.proposal
    if decided is not None and decided.block_hash == st.final.block_hash:
        st.final_certificate, st.final_target = target, None
    return max((certificate.view for certificate in certificates), default=0)


def _restore_certificate(st: State, certificate: Certificate) -> None:
    """Take over one certificate; the journal is believed, it is checksummed and our own."""
    state = st.view_state(certificate.view)
    state.certificates[certificate.kind] = certificate
    if certificate.proposal is None:
        state.counts_for_backoff = True
    else:
        state.proposals[st.pid(certificate.proposal)] = certificate.proposal
    if certificate.kind == FINALIZE and certificate.view > st.last_final_view:
        st.last_final_view = certificate.view
        st.final_target = certificate


def _restore_votes(st: State, replayed: Replayed) -> None:
    """Take over own votes and the proposals that they name, of the current epoch."""
    for propose in replayed.proposes:
        if propose.proposal.epoch != st.epoch.number:
            continue
        state = st.view_state(propose.proposal.view)
        state.propose = propose
        state.proposals[propose.vote.pid] = propose.proposal
        if propose.vote.signer not in state.slots[NOTARIZE]:
            state.add(propose.vote, st.epoch.weights[propose.vote.signer])
        if propose.header.height > st.final.height:
            st.add_block(propose.header, propose.proposal.block_hash)
    for vote in replayed.votes:
        if vote.epoch != st.epoch.number:
            continue
        if vote.signer != st.own_index:
            raise DamagedJournal("votes of another key: begin an observer's journal for this one")
        state = st.view_state(vote.view)
        state.own[vote.kind] = vote
        if vote.signer not in state.slots[vote.kind]:
            state.add(vote, st.epoch.weights[vote.signer])
