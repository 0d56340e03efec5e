"""C2, F2, H2: from a finalization to final blocks, and from the last of them to the next epoch.

Spec: spec/consensus.md#votes, spec/consensus.md#epochs. Next: `execution.py`.
"""

from consensus.core.blocks import Block
from consensus.core.certificates import enter
from consensus.core.epochs import EPOCHS_HELD_MAX, InvalidSet, hash_set
from consensus.core.events import AlarmCode, DropPayload
from consensus.core.state import State
from consensus.core.tally import FINALIZE, NOTARIZE
from consensus.core.types import (
    RANGE_HEADERS_MAX,
    Boundary,
    Certificate,
    FinalizedBlock,
    Hash32,
    Validator,
    View,
)

FINAL_QUEUE_MAX = 128
"""final blocks kept for an executor that is behind; the rest is read from the store"""
OBSERVER_BOUNDARIES = 2
"""W3: boundaries that must be final, later than the mark, before an observer votes again"""


def advance(st: State) -> Hash32 | None:
    """C2: make the target and all its ancestors final if their headers are here.

    Return the hash of the first header that is missing, or of the lowest one when they are too
    many to stand on one certificate; None when there is nothing to ask for.
    """
    target = st.final_target
    if target is None:
        return None
    assert target.proposal is not None, "a finalization names a proposal"
    wanted = target.proposal.block_hash
    path: list[Block] = []
    while wanted != st.final.block_hash:
        block = st.blocks.get(wanted)
        if block is None:
            return wanted
        if block.height <= st.final.height or block.header is None:
            st.is_halted = True
            st.final_target = None
            st.alarm(AlarmCode.CONFLICTING_CERTIFICATES, f"two blocks of height {block.height}")
            return None
        path.append(block)
        wanted = block.header.parent_hash
    if len(path) > RANGE_HEADERS_MAX:
        # One certificate for so many would be a gap in the store that no range answer spans.
        return path[-1].block_hash
    finalize(st, path[::-1], target)
    return None


def finalize(st: State, path: list[Block], certificate: Certificate) -> None:
    """F2: record blocks that stand on the final one, ascending, under one certificate."""
    for block in path:
        assert block.header is not None, "genesis is final already"
        assert block.height == st.final.height + 1, "heights are final in order"
        st.outbox.finalized.append(
            FinalizedBlock(
                block_hash=block.block_hash,
                header=block.header,
                certificate=certificate if block is path[-1] else None,
            )
        )
        ends = st.final_queue[-1].height if st.final_queue else st.executor_height
        if ends + 1 == block.height and len(st.final_queue) < FINAL_QUEUE_MAX:
            st.final_queue.append(block)
        st.final = block
        if st.rules.must_halt(block):
            halt(st, block)
    held = st.final_certificate
    if held is None or (held.epoch, held.view) < (certificate.epoch, certificate.view):
        st.final_certificate = certificate
    if st.final_target is not None and st.final_target.view <= certificate.view:
        st.final_target = None
    st.blocks[st.final.block_hash] = st.final
    drop_blocks(st)
    st.dirty = True


def halt(st: State, block: Block) -> None:
    """V4: a block is certified and INVALID here: never build on it, stop voting, shout."""
    if not st.is_halted:
        st.is_halted = True
        st.alarm(
            AlarmCode.INVALID_NOTARIZED, f"height {block.height}, block {block.block_hash.hex()}"
        )


def drop_blocks(st: State) -> None:
    """Forget blocks that cannot become final any more, and their payloads."""
    queued = {block.block_hash for block in st.final_queue}
    for block in list(st.blocks.values()):
        is_low = block.height <= st.final.height and block is not st.final
        if is_low and block.block_hash not in queued:
            del st.blocks[block.block_hash]
            drop_payload(st, block)


def drop_payload(st: State, block: Block) -> None:
    """Let the shell free a payload that it holds or fetches, unless another block has the same."""
    if block.header is None or not (block.payload_held or block.payload_asked):
        return
    block.payload_held = block.payload_asked = False
    release(st, block.header.payload_commitment)


def release(st: State, commitment: Hash32) -> None:
    """Let the shell free bytes that no block wants any more; empty payloads are all the same."""
    for other in st.blocks.values():
        is_in_use = other.payload_held or other.payload_asked
        if is_in_use and other.header and other.header.payload_commitment == commitment:
            return
    st.outbox.now_effects.append(DropPayload(payload_commitment=commitment))


def learn_next_set(st: State, validators: tuple[Validator, ...]) -> None:
    """H1: keep the executor's answer for the set of the next epoch."""
    try:
        st.next_set_hash = hash_set(st.crypto, validators)
    except InvalidSet as error:
        st.alarm(AlarmCode.WRONG_VALIDATOR_SET, str(error))
        return
    st.next_set = validators
    st.dirty = True


def start_epoch(st: State) -> bool:
    """H2: when the boundary is final and the next set known, begin the next epoch at view 1."""
    if not st.epoch_over or st.next_set is None:
        return False
    header, certificate = st.final.header, st.final_certificate
    assert header is not None, "a boundary has a header"
    assert certificate is not None, "a boundary has a finalization"
    assert certificate.epoch == st.epoch.number, "the boundary is final in its own epoch"
    if st.next_set_hash != header.next_validator_set_hash:
        st.alarm(AlarmCode.WRONG_VALIDATOR_SET, f"for epoch {st.epoch.number + 1}")
        st.next_set = st.next_set_hash = None
        return False
    boundary = Boundary(
        epoch=st.epoch_after(),
        block_hash=st.final.block_hash,
        header=header,
        certificate=certificate,
        validators=st.next_set,
    )
    assert st.outbox.boundary is None, "one epoch begins per event"
    st.must_ask = not _took_part_in_the_end(st)
    st.outbox.boundary = boundary
    adopt_boundary(st, boundary)
    st.must_cut = True  # W4: what was signed in the old epoch can never matter again
    count_for_observer(st, boundary)
    enter(st, View(1), None)
    return True


def _took_part_in_the_end(st: State) -> bool:
    """W3: say whether this node voted for the boundary, so that its journal is up to date.

    Who comes from behind may have signed in the next epoch with a journal that it lost since.
    """
    return any(
        state.own[NOTARIZE] is not None or state.own[FINALIZE] is not None
        for number, state in st.views.items()
        if number >= st.last_final_view
    )


def adopt_boundary(st: State, boundary: Boundary) -> None:
    """H2, S2: make an epoch the current one, with its boundary as anchor and nothing voted."""
    number = boundary.epoch
    st.anchors[number] = boundary.block_hash
    st.epoch = st.open_epoch(number, boundary.validators)
    oldest = number - min(st.parameters.evidence_window_epochs, EPOCHS_HELD_MAX)
    for table in (st.anchors, st.epochs):
        for old in [epoch for epoch in table if epoch < min(oldest, number - 1)]:
            del table[old]
    st.evidence.forget_below(oldest)
    st.own_index = st.epoch.index_of.get(st.key) if st.key is not None else None
    st.next_set = st.next_set_hash = None
    st.view = st.last_final_view = st.given_up_view = View(0)
    st.views.clear()
    st.ahead.clear()
    st.unjournalled.clear()
    st.final_target = st.entered_by = None
    st.backoff_count = st.cut_view = 0


def count_for_observer(st: State, boundary: Boundary) -> None:
    """W3: lift the observer mark after two boundaries that are surely later than it."""
    since, place = st.observer_since_ms, st.observer_place
    if since is None or place is None or boundary.epoch - 1 < place:
        return
    if boundary.header.timestamp_ms > since + st.parameters.drift_ms:
        st.observer_boundaries += 1
        if st.observer_boundaries >= OBSERVER_BOUNDARIES:
            st.observer_since_ms = st.observer_place = None
            st.must_cut = True
