"""S1, S2: what a replica knows. One owner per node; the rules around it read and change it.

Nothing here decides anything: `safety.py` says what may be signed, `voting.py`, `proposing.py`,
`certificates.py`, `finality.py` and `execution.py` say when. Every table has a named maximum.
"""

from collections import deque

from consensus.core import journal
from consensus.core.blocks import BLOCKS_MAX, Block, block_of, hash_header
from consensus.core.codec import proposal_bytes
from consensus.core.epochs import EpochContext, open_epoch
from consensus.core.events import Alarm, AlarmCode, Penalize
from consensus.core.evidence import EvidencePool
from consensus.core.outbox import Outbox
from consensus.core.safety import Rules
from consensus.core.tally import FINALIZE, NOTARIZE, NULLIFY, ViewState
from consensus.core.types import (
    RANGE_HEADERS_MAX,
    Certificate,
    Chain,
    Crypto,
    Epoch,
    Final,
    Hash32,
    Header,
    Height,
    Kind,
    PeerId,
    Proposal,
    PublicKey,
    Validator,
    View,
    Vote,
)

PROPOSAL_CONTEXT = "tos proposal v1"
UNFINALIZED_MAX = RANGE_HEADERS_MAX // 2
"""the largest unfinalized_max: between two stored certificates lie fewer headers than one answer"""
VIEWS_AHEAD_MAX = 8
"""a proposal is kept this many views ahead"""
VIEWS_HELD_MAX = 2_048
"""views kept above the last final one; more: the lowest are given up, and never voted in again"""
EVIDENCE_VIEWS = 8
"""views kept at and below the last final one, to see late equivocation"""
PROPOSALS_MAX = 4
"""proposals known of one view"""
PEERS_MAX = 4_096
"""peers that rate limits tell apart between two retransmissions"""
REQUESTS_MAX = 64
"""requests of one peer answered between two retransmissions"""
STRANGER_REQUESTS_MAX = 16
"""of one peer that is no validator of this epoch or the next, and not configured"""
STRANGERS_REQUESTS_MAX = 64
"""of all of these together: a range costs a millisecond or more of the thread that writes votes"""
BACKOFF_VIEWS = 4
BACKOFF_DOUBLINGS_MAX = 10


class State:
    """The mutable heart of one replica."""

    def __init__(
        self, chain: Chain, crypto: Crypto, rules: Rules, key: PublicKey | None, now_ms: int
    ) -> None:
        """Open at genesis; `replica.py` then adds what survived."""
        assert 1 <= chain.parameters.unfinalized_max <= UNFINALIZED_MAX, "see UNFINALIZED_MAX"
        self.chain, self.parameters = chain, chain.parameters
        self.crypto, self.rules, self.key = crypto, rules, key
        self.own_peer = None if key is None else PeerId(key)
        self.outbox = Outbox()
        self.now_ms = now_ms
        self.wall_offset_ms = 0
        self.dirty = True
        """something changed that a rule may have waited for"""
        # Epoch (H1).
        self.anchors: dict[int, Hash32] = {0: chain.genesis_hash}
        """epoch -> hash of the block before its first: the newest EPOCHS_HELD_MAX"""
        self.epochs: dict[int, EpochContext] = {}
        self.epoch: EpochContext = self.open_epoch(0, chain.validators[0])
        self.next_set: tuple[Validator, ...] | None = chain.validators[1]
        self.next_set_hash: Hash32 | None = None
        self.own_index = self.epoch.index_of.get(key) if key is not None else None
        self._open_views()
        self._open_blocks()
        self._open_signing()
        self._open_limits()

    def _open_views(self) -> None:
        """Begin before the first view, with no deadline but the first retransmission."""
        now_ms = self.now_ms
        self.view = View(0)
        self.views: dict[int, ViewState] = {}
        self.last_final_view = View(0)
        """C3: highest view of this epoch with a finalization held; 0 is the anchor (S2)"""
        self.given_up_view = View(0)
        """views at or below were dropped for lack of room: nothing is signed there any more"""
        self.ahead: dict[int, tuple[PeerId, Vote]] = {}
        """signer -> its highest genuine vote beyond the next view"""
        self.entered_ms = now_ms
        self.entered_by: Certificate | None = None
        self.unjournalled: list[Certificate] = []
        self.last_proposal_ms = 0
        self.backoff_count = 0
        self.retransmit_at = now_ms + self.parameters.retransmit_interval_ms
        self.lead_at: int | None = None
        self.adv_at: int | None = None
        self.build_at: int | None = None
        self.wait_at: int | None = None
        self.ask_at: int | None = None
        self.execute_at: int | None = None
        self.lead_passed = self.adv_passed = False
        self.build_failed = False

    def _open_blocks(self) -> None:
        """Begin at genesis."""
        chain = self.chain
        genesis = Block(
            block_hash=chain.genesis_hash, header=None, height=0, timestamp_ms=chain.timestamp_ms
        )
        self.final = genesis
        self.blocks: dict[Hash32, Block] = {genesis.block_hash: genesis}
        self.final_certificate: Certificate | None = None
        """finalizes `final`; None for genesis"""
        self.final_target: Certificate | None = None
        """a finalization whose headers are not all here yet"""
        self.executor_height = Height(0)
        """the height that the executor has finalized, as far as it said"""
        self.final_queue: deque[Block] = deque()
        """F2: final blocks that the executor has not finalized yet, ascending"""

    def _open_signing(self) -> None:
        """Nothing keeps this node from signing, except that peers must be asked (W3)."""
        self.is_halted = False
        self.observer_since_ms: int | None = None
        self.observer_place: int | None = None
        """W3: the first epoch whose boundary may count; None while a quorum has not shown it"""
        self.observer_boundaries = 0
        """that count so far"""
        self.asking = self.key is not None
        """peers are asked for own votes before the first new signature after a boot"""
        self.must_ask = False
        """they must be asked again: this node came into its epoch from behind"""
        self.cut_view = 0
        """W3: nothing signed at or below is in the journal"""
        self.must_cut = False
        self.evidence = EvidencePool()

    def _open_limits(self) -> None:
        """Rate limits: emptied at every retransmission."""
        self.answered: set[PeerId] = set()
        self.request_counts: dict[PeerId, int] = {}
        self.stranger_requests = 0
        self.asked_peers: set[PeerId] = set()
        self.asked_blocks: set[Hash32] = set()
        self.asked_range = False
        self.tick = 0
        """retransmissions so far"""
        self.peer_turn = 0
        self.other_peers: tuple[PeerId, ...] = ()
        """configured peers that may be asked besides the validators"""
        self._friends: frozenset[PeerId] = frozenset()
        """who is no stranger beside the validators of this epoch"""
        self._friends_of: tuple[object, object] | None = None
        """what they were made of: asked for with every request, and seldom another"""
        self.refused_count = 0
        """messages beyond a limit, for the shell's metrics"""

    # --- small questions ------------------------------------------------------------------------

    @property
    def wall_ms(self) -> int:
        """The own wall clock, milliseconds since 1970."""
        return self.now_ms + self.wall_offset_ms

    @property
    def epoch_over(self) -> bool:
        """H2: the boundary is final; only the next set is missing to begin the next epoch."""
        return self.final.height >= self.epoch.end_height

    @property
    def can_sign(self) -> bool:
        """W3, V4: a member, not an observer, not halted, its own votes asked for."""
        return (
            self.own_index is not None
            and self.observer_since_ms is None
            and not self.is_halted
            and not self.asking
            and not self.epoch_over
        )

    @property
    def lacks_place(self) -> bool:
        """W3: an observer that does not know yet how far the chain was when it began."""
        return self.observer_since_ms is not None and self.observer_place is None

    @property
    def backoff(self) -> int:
        """E1: the factor b of the timers, which also shrinks the leader's limits."""
        return 1 << min(self.backoff_count // BACKOFF_VIEWS, BACKOFF_DOUBLINGS_MAX)

    def leader(self, view: View) -> int:
        """L1: return the index of a view's leader in the current epoch."""
        return self.epoch.leader(self.crypto, self.chain.genesis_hash, view)

    def pid(self, proposal: Proposal) -> Hash32:
        """M2: return the proposal id."""
        return self.crypto.hash(PROPOSAL_CONTEXT, proposal_bytes(proposal))

    def epoch_after(self) -> Epoch:
        """Return the number of the next epoch."""
        return Epoch(self.epoch.number + 1)

    def is_request_table_full(self) -> bool:
        """Say whether another peer's requests cannot be counted now."""
        return len(self.request_counts) >= PEERS_MAX

    def is_stranger(self, peer: PeerId) -> bool:
        """Say whether a peer is neither a validator of this epoch or the next, nor configured."""
        if PublicKey(peer) in self.epoch.index_of:
            return False
        known = self._friends_of
        if known is None or known[0] is not self.next_set or known[1] is not self.other_peers:
            self._friends_of = (self.next_set, self.other_peers)
            next_keys = (one.public_key for one in self.next_set or ())
            self._friends = frozenset((*map(PeerId, next_keys), *self.other_peers))
        return peer not in self._friends

    def penalize(self, peer: PeerId, reason: str) -> None:
        """Blame a peer for what no honest one sends."""
        self.outbox.now_effects.append(Penalize(peer=peer, reason=reason))

    def alarm(self, code: AlarmCode, detail: str) -> None:
        """Tell people."""
        self.outbox.now_effects.append(Alarm(code=code, detail=detail))

    def next_peer(self) -> PeerId | None:
        """Return a validator or configured peer to ask, another one every time."""
        self.peer_turn += 1
        return self.peer_at(self.peer_turn)

    def peer_at(self, turn: int) -> PeerId | None:
        """Q2: return who is to be asked at a turn; len(peers) turns in a row name all of them.

        A question that is asked again counts turns of its own: where several share a count, each
        may come round to the same few peers for ever.
        """
        known = (*map(PeerId, self.epoch.keys), *self.other_peers)
        peers = [peer for peer in known if peer != self.own_peer]
        return peers[turn % len(peers)] if peers else None

    def is_limited(self, limit: set[PeerId], peer: PeerId) -> bool:
        """Say whether a peer had its share since the last retransmission, else take it."""
        if peer in limit:
            return True
        if len(limit) >= PEERS_MAX:
            self.refused_count += 1
            return True
        limit.add(peer)
        return False

    def reset_limits(self) -> None:
        """Give every peer its share anew."""
        self.answered.clear()
        self.request_counts.clear()
        self.stranger_requests = 0
        self.asked_peers.clear()
        self.asked_blocks.clear()
        self.asked_range = False
        self.tick += 1

    def next_wake_ms(self) -> int:
        """Return the earliest deadline."""
        wake = self.retransmit_at
        for at in (
            self.lead_at,
            self.adv_at,
            self.build_at,
            self.wait_at,
            self.ask_at,
            self.execute_at,
        ):
            if at is not None and at < wake:
                wake = at
        return wake

    # --- views ----------------------------------------------------------------------------------

    def view_state(self, view: View) -> ViewState:
        """Return a view's state, opened when it is new."""
        found = self.views.get(view)
        if found is None:
            found = self.views[view] = ViewState(view)
            if len(self.views) > VIEWS_HELD_MAX:
                self._give_up_lowest()
        return found

    def _give_up_lowest(self) -> None:
        """Forget the lowest view; at or below it nothing is signed any more."""
        lowest = min(self.views)
        if lowest < self.view:
            del self.views[lowest]
            self.given_up_view = max(self.given_up_view, View(lowest))
            self.refused_count += 1

    def message(self, view: ViewState, kind: int, pid: Hash32) -> bytes:
        """M3: return what votes for this sign."""
        key = (kind, pid)
        found = view.messages.get(key)
        if found is None:
            found = self.epoch.prefixes[kind] + view.number.to_bytes(8, "little") + pid
            if len(view.messages) < 2 * PROPOSALS_MAX:
                view.messages[key] = found
        return found

    def parent_hash_of(self, parent_view: View) -> Hash32 | None:
        """Return the hash of the block that a certified view stands for; None: not certified."""
        if parent_view == 0:
            return self.anchors[self.epoch.number]
        view = self.views.get(parent_view)
        proposal = None if view is None else view.certified()
        return None if proposal is None else proposal.block_hash

    def recount_backoff(self) -> None:
        """E1: count anew after a finalization."""
        last = self.last_final_view
        self.backoff_count = sum(
            view.counts_for_backoff for number, view in self.views.items() if number > last
        )

    def own_vote_lost(self, kind: Kind, view: View) -> None:
        """W3: stop signing until two later boundaries are final, durably.

        Only a signature above the journal's cut, in a view that was not given up, is proof: others
        need not be known any more.
        """
        known_from = max(self.last_final_view, self.cut_view, self.given_up_view)
        if self.observer_since_ms is not None or view <= known_from:
            return
        # The chain's time where the own clock is behind it: else boundaries of the past would do.
        self.observer_since_ms = max(self.wall_ms, self.final.timestamp_ms)
        self.observer_boundaries = 0
        self.outbox.record(journal.observer_record(self.observer_since_ms))
        why = f"the journal lacks the own {kind.name} of view {view}, epoch {self.epoch.number}"
        self.alarm(AlarmCode.LOST_SIGNATURE, why)

    # --- blocks ---------------------------------------------------------------------------------

    def hash_of(self, header: Header) -> Hash32:
        """M1: return the block hash."""
        return hash_header(self.crypto, header)

    def latest_final(self) -> Final | None:
        """Return the latest finalization with its header; None at genesis."""
        if self.final.header is None or self.final_certificate is None:
            return None
        return Final(header=self.final.header, certificate=self.final_certificate)

    def add_block(self, header: Header, block_hash: Hash32) -> Block:
        """Return the block of a header whose hash is known, added when it is new."""
        found = self.blocks.get(block_hash)
        if found is None:
            if len(self.blocks) >= BLOCKS_MAX:
                self._drop_a_block()
            found = self.blocks[block_hash] = block_of(header, block_hash)
            found.seen_ms = self.now_ms
            self.dirty = True
        return found

    def _drop_a_block(self) -> None:
        """Forget the oldest block that no certificate and no current proposal names."""
        named = {self.final.block_hash}
        named.update(block.block_hash for block in self.final_queue)
        for view in self.views.values():
            for certificate in view.certificates:
                if certificate is not None and certificate.proposal is not None:
                    named.add(certificate.proposal.block_hash)
            if view.number >= self.view and view.propose is not None:
                named.add(view.propose.proposal.block_hash)
        for block_hash in self.blocks:
            if block_hash not in named:
                del self.blocks[block_hash]
                self.refused_count += 1
                return

    # --- epochs ---------------------------------------------------------------------------------

    def open_epoch(self, number: int, validators: tuple[Validator, ...]) -> EpochContext:
        """H1, L1: make an epoch known; its seed is the boundary of two epochs before."""
        epoch = open_epoch(
            chain=self.chain,
            crypto=self.crypto,
            rules=self.rules,
            number=number,
            validators=validators,
            seed=self.anchors.get(max(0, number - 1), self.chain.genesis_hash),
        )
        self.epochs[number] = epoch
        return epoch

    # --- journal --------------------------------------------------------------------------------

    def journal_records(self) -> tuple[bytes, ...]:
        """W4: return the whole journal as it is after a cut at the last final view.

        Votes of views that were given up are forgotten, so that the cut is above these, too.
        """
        last = self.last_final_view
        records = [journal.cut_record(self.epoch.number, max(last, self.given_up_view))]
        if self.observer_since_ms is not None:
            mark = journal.observer_record(self.observer_since_ms, self.observer_place)
            records.append(mark)
        for number in sorted(self.views):
            view = self.views[number]
            if number < last:
                continue
            finalization = view.certificates[FINALIZE]
            if finalization is not None:
                records.append(journal.certificate_record(finalization))
            # W1: what entered the current view stays, also where a finalization has replaced it.
            for certificate in (view.certificates[NOTARIZE], view.certificates[NULLIFY]):
                if certificate is not None and (number > last or certificate is self.entered_by):
                    records.append(journal.certificate_record(certificate))
            if number == last:
                continue
            notarize = view.own[NOTARIZE]
            if view.propose is not None and notarize is not None:
                records.append(journal.propose_record(view.propose))
            records.extend(journal.vote_record(vote) for vote in view.own if vote is not None)
        return tuple(records)
