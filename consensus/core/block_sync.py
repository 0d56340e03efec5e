"""Q1, H3, M6: asking peers for what is missing, and answering theirs.

A replica that is behind asks for the headers above its final block. One certificate authenticates a
hash-linked range of them, under the set that this replica itself derived by executing: so an
epoch chain is never believed, only followed. Spec: spec/consensus.md#catch-up.
"""

from consensus.core.certificates import accept, answer_laggard, is_valid
from consensus.core.codec import VOTES_ANSWER_MAX
from consensus.core.events import AnswerFromStore
from consensus.core.finality import FINAL_QUEUE_MAX, finalize
from consensus.core.state import REQUESTS_MAX, STRANGER_REQUESTS_MAX, STRANGERS_REQUESTS_MAX, State
from consensus.core.tally import FINALIZE
from consensus.core.types import (
    RANGE_HEADERS_MAX,
    BlockAnswer,
    Epoch,
    Final,
    Hash32,
    PeerId,
    RangeAnswer,
    Request,
    Vote,
    VotesAnswer,
    Want,
)

VIEWS_ANSWERED_MAX = 64
"""views of one answer"""


def ask_range(st: State, peer: PeerId | None) -> None:
    """Q1: ask for final headers above ours, unless the executor is too far behind already."""
    lag = st.final.height - st.executor_height
    if peer is None or peer == st.own_peer or lag > FINAL_QUEUE_MAX - RANGE_HEADERS_MAX:
        return
    request = Request(want=Want.RANGE, epoch=st.epoch.number, first=st.final.height + 1)
    st.outbox.send(peer, request)


def ask_block(st: State, block_hash: Hash32, peer: PeerId | None) -> None:
    """Ask for a header by its hash, at most once per retransmission; peer None: each in turn."""
    if block_hash in st.asked_blocks or len(st.asked_blocks) >= REQUESTS_MAX:
        return
    asked = peer
    if asked is None or asked == st.own_peer:
        asked = st.peer_at(st.tick + turn_of(block_hash))
    if asked is not None:
        st.asked_blocks.add(block_hash)
        st.outbox.send(asked, Request(want=Want.BLOCK, block_hash=block_hash))


def turn_of(block_hash: Hash32) -> int:
    """Q2: return where a block begins among the peers: not all are asked of one at a time."""
    return int.from_bytes(block_hash[:8], "little")


def on_other_epoch(st: State, peer: PeerId, epoch: int) -> None:
    """H3: never counted; an older one gets the boundary, a newer one means that we are behind."""
    if epoch < st.epoch.number:
        if not st.is_limited(st.answered, peer):
            request = Request(want=Want.BOUNDARY, epoch=Epoch(epoch))
            st.outbox.then.append(AnswerFromStore(peer=peer, request=request))
    elif not st.is_limited(st.asked_peers, peer):
        ask_range(st, peer)


def on_block_answer(st: State, peer: PeerId, answer: BlockAnswer) -> None:
    """Keep a header that was asked for."""
    block_hash = st.hash_of(answer.header)
    if block_hash in st.asked_blocks and answer.header.height > st.final.height:
        block = st.add_block(answer.header, block_hash)
        if peer not in block.peers:
            block.peers = (peer, *block.peers[:1])


def on_final(st: State, peer: PeerId, final: Final) -> bool:
    """Q1: keep the header of a finalization; say whether its certificate should be looked at."""
    certificate = final.certificate
    if certificate.epoch > st.epoch.number:
        on_other_epoch(st, peer, certificate.epoch)
        return False
    proposal = certificate.proposal
    if certificate.epoch < st.epoch.number or proposal is None or certificate.kind != FINALIZE:
        return False
    if certificate.view <= st.last_final_view:
        target = st.final_target
        is_wanted = target is not None and target.proposal == proposal
        if not is_wanted:
            return False
    block_hash = st.hash_of(final.header)
    if block_hash != proposal.block_hash:
        st.penalize(peer, "a finalization with another header")
        return False
    if certificate.view > st.last_final_view and not is_valid(st, st.epoch, certificate):
        st.penalize(peer, "a certificate that is not valid")
        return False
    if final.header.height > st.final.height:
        st.add_block(final.header, block_hash)
    return certificate.view > st.last_final_view


def on_range(st: State, peer: PeerId, answer: RangeAnswer) -> None:
    """Q1: check links and the one certificate, then make the range final."""
    certificate = answer.certificate
    headers = [header for header in answer.headers if header.height > st.final.height]
    if certificate.epoch != st.epoch.number or not headers:
        return
    if headers[0].height != st.final.height + 1:
        st.refused_count += 1
        return
    parent_hash, hashes = st.final.block_hash, []
    for height, header in enumerate(headers, headers[0].height):
        if header.parent_hash != parent_hash or header.height != height:
            st.penalize(peer, "headers that are not linked to the final one")
            return
        parent_hash = st.hash_of(header)
        hashes.append(parent_hash)
    proposal = certificate.proposal
    if (
        certificate.kind != FINALIZE
        or proposal is None
        or proposal.block_hash != parent_hash
        or headers[-1].height > st.epoch.end_height
        or not is_valid(st, st.epoch, certificate)
    ):
        st.penalize(peer, "a range that its certificate does not finalize")
        return
    path = []
    for header, block_hash in zip(headers, hashes, strict=True):
        block = st.add_block(header, block_hash)
        block.peers = (peer, *block.peers[:1])
        path.append(block)
    finalize(st, path, certificate)
    if certificate.view > st.last_final_view:
        accept(st, certificate, relay=False)
    ask_range(st, peer)


def on_request(st: State, peer: PeerId, request: Request) -> None:
    """M6: answer, at most REQUESTS_MAX times per peer and retransmission; strangers less."""
    if not _is_within_limits(st, peer):
        st.refused_count += 1
        return
    want = request.want
    if want == Want.VIEWS:
        _answer_views(st, peer, request)
    elif want == Want.VOTES_OF:
        _answer_votes(st, peer, request)
    elif want == Want.FINAL:
        final = st.latest_final()
        if final is not None:
            st.outbox.send(peer, final)
    elif want == Want.BLOCK:
        block = st.blocks.get(request.block_hash)
        if block is not None and block.header is not None:
            st.outbox.send(peer, BlockAnswer(header=block.header))
        else:
            st.outbox.then.append(AnswerFromStore(peer=peer, request=request))
    elif want == Want.BOUNDARY or request.first <= st.final.height:
        st.outbox.then.append(AnswerFromStore(peer=peer, request=request))


def _is_within_limits(st: State, peer: PeerId) -> bool:
    """Count a request; False: its peer, or all strangers, had their share until the next tick."""
    count, is_stranger = st.request_counts.get(peer, 0), st.is_stranger(peer)
    if count >= (STRANGER_REQUESTS_MAX if is_stranger else REQUESTS_MAX):
        return False
    if count == 0 and st.is_request_table_full():
        return False
    if is_stranger and st.stranger_requests >= STRANGERS_REQUESTS_MAX:
        return False
    st.stranger_requests += is_stranger
    st.request_counts[peer] = count + 1
    return True


def _answer_views(st: State, peer: PeerId, request: Request) -> None:
    """M6: certificates, own votes and proposals of views above the last final one."""
    if request.epoch != st.epoch.number:
        on_other_epoch(st, peer, request.epoch)
        return
    if request.first <= st.last_final_view:
        st.answered.discard(peer)
        answer_laggard(st, peer)
    first = max(request.first, st.last_final_view + 1)
    last = min(request.last, st.view, first + VIEWS_ANSWERED_MAX - 1)
    for number in range(first, last + 1):
        view = st.views.get(number)
        if view is None:
            continue
        if view.propose is not None:
            st.outbox.send(peer, view.propose)
        for certificate in view.certificates:
            if certificate is not None:
                st.outbox.send(peer, certificate)
        for vote in view.own:
            if vote is not None:
                st.outbox.send(peer, vote)


def _answer_votes(st: State, peer: PeerId, request: Request) -> None:
    """W3: every vote of one signer that is held above the last final view.

    To answer says that the epoch is not over as far as is known here, which of all replicas an
    observer without a place knows least.
    """
    if st.lacks_place or st.epoch_over:
        return
    if request.epoch != st.epoch.number or request.first >= len(st.epoch.keys):
        return
    votes: list[Vote] = []
    for number in sorted(st.views):
        if number > st.last_final_view:
            slots = st.views[number].slots
            votes += [held[request.first] for held in slots if request.first in held]
    answer = VotesAnswer(
        epoch=st.epoch.number, signer=request.first, votes=tuple(votes[-VOTES_ANSWER_MAX:])
    )
    st.outbox.send(peer, answer)
