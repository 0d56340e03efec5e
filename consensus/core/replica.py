"""One validator (or follower): every event goes in here, every effect comes out.

The rules stand in the files beside this one; a replica only keeps them in order. What a rule waits
for marks the state dirty, and `_settle` asks every rule again until nothing changes.

Read on: `safety.py` (what may be signed), `certificates.py` (votes and certificates), `voting.py`,
`proposing.py`, `finality.py`, `execution.py`, `block_sync.py`. Spec: spec/consensus.md.
"""

from collections.abc import Callable
from typing import Any

from consensus.core import block_sync, certificates, finality, proposing, voting
from consensus.core.boot import restore
from consensus.core.events import (
    Answered,
    Boot,
    CallFailed,
    Effect,
    Event,
    ExecutorStatus,
    ExecutorSyncing,
    ForkchoiceUpdated,
    GetPayload,
    GetStatus,
    Loaded,
    NewPayload,
    PayloadArrived,
    PayloadBuilt,
    PayloadFailed,
    PayloadJudged,
    Received,
    Started,
    ValidatorsOf,
    WallClock,
    Woke,
)
from consensus.core.execution import Executor
from consensus.core.journal import observer_record
from consensus.core.proposing import Building
from consensus.core.safety import Rules
from consensus.core.state import State
from consensus.core.types import (
    BlockAnswer,
    Certificate,
    Chain,
    Crypto,
    Epoch,
    Evidence,
    Final,
    Hash32,
    Height,
    PeerId,
    Propose,
    PublicKey,
    RangeAnswer,
    Request,
    Validator,
    View,
    Vote,
    VotesAnswer,
)

ASK_DELTAS = 4
"""W3: peers have this many delta_ms to show own votes after a boot"""
SETTLE_MAX = 10_000
"""rounds after one event; each makes progress, so that more would be a bug"""
JOURNAL_CUT_BYTES = 2**16


class Replica:
    """The whole of consensus for one node, without input and output."""

    def __init__(
        self,
        *,
        chain: Chain,
        crypto: Crypto,
        key: PublicKey | None,
        fee_recipient: PublicKey,
        boot: Boot,
        now_ms: int,
        wall_offset_ms: int,
        rules: Rules | None = None,
        journal_cut_bytes: int = JOURNAL_CUT_BYTES,
        other_peers: tuple[PeerId, ...] = (),
    ) -> None:
        """Make a replica of what survived; raises journal.DamagedJournal.

        `key`: the own validator key, None for a follower that never votes. `journal_cut_bytes`: a
        finalization cuts the journal when this much was appended to it (W4). `other_peers`: who may
        be asked besides the validators.
        """
        st = State(chain, crypto, rules if rules is not None else Rules(), key, now_ms)
        st.wall_offset_ms = wall_offset_ms
        st.other_peers = other_peers
        self._st = st
        self._fee_recipient = fee_recipient
        self._journal_cut_bytes = journal_cut_bytes
        restore(st, boot)
        self._executor = Executor(st)
        self._building: Building | None = None
        self._build_call: int | None = None
        self._votes_answered: set[PeerId] = set()
        self._height_at_tick = st.final.height
        self._events: dict[type, Callable[[Any], None]] = {
            Started: self._on_started,
            Woke: self._on_woke,
            WallClock: self._on_wall_clock,
            Received: self._on_received,
            PayloadArrived: self._on_payload_arrived,
            PayloadFailed: self._on_payload_failed,
            Answered: self._on_answered,
            CallFailed: self._on_call_failed,
            Loaded: self._on_loaded,
        }
        self._messages: dict[type, Callable[[PeerId, Any], None]] = {
            Vote: self._on_vote,
            Certificate: self._on_certificate,
            Propose: self._on_propose,
            Request: self._on_request,
            VotesAnswer: self._on_votes_answer,
            BlockAnswer: self._on_block_answer,
            RangeAnswer: self._on_range,
            Final: self._on_final,
            Evidence: self._on_evidence,
        }

    # --- what a shell may show -------------------------------------------------------------------

    @property
    def epoch(self) -> Epoch:
        """The current epoch."""
        return self._st.epoch.number

    @property
    def view(self) -> View:
        """The current view in it."""
        return self._st.view

    @property
    def final_view(self) -> View:
        """The last view of it with a certificate of finality, whether its block is here or not."""
        return self._st.last_final_view

    @property
    def final_height(self) -> Height:
        """Height of the latest final block."""
        return self._st.final.height

    @property
    def final_hash(self) -> Hash32:
        """Hash of the latest final block."""
        return self._st.final.block_hash

    @property
    def validators(self) -> tuple[Validator, ...]:
        """The set of the current epoch: who may send votes."""
        return self._st.epoch.validators

    @property
    def next_validators(self) -> tuple[Validator, ...]:
        """The set of the next epoch, empty while the executor has not named it."""
        return self._st.next_set or ()

    @property
    def is_observer(self) -> bool:
        """W3: nothing is signed until two later boundaries are final."""
        return self._st.observer_since_ms is not None

    @property
    def is_halted(self) -> bool:
        """V4: nothing is signed until a restart."""
        return self._st.is_halted

    def held(self) -> dict[str, int]:
        """Return the size of every table, each of which has a maximum."""
        st = self._st
        return {
            "views": len(st.views),
            "blocks": len(st.blocks),
            "ahead": len(st.ahead),
            "final_queue": len(st.final_queue),
            "unjournalled": len(st.unjournalled),
            "epochs": len(st.epochs),
            "evidence": len(st.evidence),
            "answered": len(st.answered),
            "request_counts": len(st.request_counts),
            "asked_peers": len(st.asked_peers),
            "asked_blocks": len(st.asked_blocks),
            "open_calls": len(self._executor.open),
            "refused": st.refused_count,
        }

    # --- the loop ---------------------------------------------------------------------------------

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event at a time of the shell's monotonic clock; return what to do, in order."""
        st = self._st
        assert now_ms >= st.now_ms, "the shell's clock never goes back"
        st.now_ms = now_ms
        self._events[type(event)](event)
        if st.dirty:
            self._settle()
        elif not isinstance(event, Woke) and st.outbox.is_empty():
            return []  # Most events are repetitions: no rule looked, so no deadline moved.
        return self._flush()

    def _settle(self) -> None:
        """Ask every rule again until nothing changes."""
        st = self._st
        for _ in range(SETTLE_MAX):
            st.dirty = False
            missing = finality.advance(st)
            if missing is not None:
                if missing not in st.blocks:
                    block_sync.ask_block(st, missing, None)
                self._ask_range_once()
            if finality.start_epoch(st):
                self._building = None
                self._begin_asking(is_due=st.must_ask)
            waiting = voting.vote(st)
            self._propose()
            self._executor.drive(waiting, self._own_block())
            if not st.dirty:
                return
        raise AssertionError("rules that never settle")

    def _propose(self) -> None:
        """B1-B3: drive the leader, and ask for a payload when that is its next step."""
        st, before = self._st, self._building
        self._building = proposing.propose(st, before, self._fee_recipient)
        building = self._building
        if building is None or building is before or building.block_hash is not None:
            return
        if not (self._executor.is_known and self._executor.may_call(GetPayload)):
            self._building = None  # Tried again when the executor answers or the retry is due.
            return
        request = proposing.payload_request(st, building, self._fee_recipient)
        self._build_call = self._executor.get_payload(request)

    def _own_block(self) -> Any:
        """Return the own block that waits for its verdict, or None."""
        building = self._building
        if building is None or building.block_hash is None:
            return None
        return self._st.blocks.get(building.block_hash)

    def _ask_range_once(self) -> None:
        """Q1: headers of a finalization are missing: ask somebody, once per retransmission."""
        st = self._st
        if not st.asked_range:
            st.asked_range = True
            block_sync.ask_range(st, st.peer_at(st.tick + 1))

    def _flush(self) -> list[Effect]:
        """Return the effects of one event, with a cut of the journal if one is due (W4)."""
        st = self._st
        outbox, cut = st.outbox, None
        if st.must_cut or (outbox.finalized and outbox.appended_bytes >= self._journal_cut_bytes):
            st.must_cut = False
            cut = st.journal_records()
            st.unjournalled.clear()
        return outbox.take(cut, st.next_wake_ms())

    # --- events -----------------------------------------------------------------------------------

    def _on_started(self, event: Started) -> None:
        certificates.form_after_boot(self._st)
        self._begin_asking(is_due=True)

    def _begin_asking(self, *, is_due: bool) -> None:
        """W3: ask peers for own votes; nothing new is signed before the answers or a bound.

        `is_due` False: an epoch begins for which the journal is up to date; an observer asks too.
        """
        st = self._st
        self._votes_answered.clear()
        if is_due:
            st.asking = st.own_index is not None
            st.ask_at = st.now_ms + ASK_DELTAS * st.parameters.delta_ms if st.asking else None
        if st.asking or st.lacks_place:
            voting.ask_for_own_votes(st)
            self._look_at_answers()

    def _look_at_answers(self) -> None:
        """W3: a quorum that says what it holds of ours is enough; one of others gives the place."""
        st = self._st
        weights, index_of = st.epoch.weights, st.epoch.index_of
        power = sum(weights[index_of[PublicKey(peer)]] for peer in self._votes_answered)
        if st.lacks_place and power >= st.epoch.quorum:
            since_ms, place = st.observer_since_ms, st.epoch.number
            assert since_ms is not None, "who lacks a place is an observer"
            st.observer_place = place
            st.outbox.record(observer_record(since_ms, place))
        own = 0 if st.own_index is None else weights[st.own_index]
        if st.asking and power + own >= st.epoch.quorum:
            st.asking, st.ask_at = False, None
            st.dirty = True

    def _on_woke(self, event: Woke) -> None:
        """Every deadline that has passed makes the rules look again."""
        st = self._st
        now = st.now_ms
        st.outbox.wake_ms = None  # the timer is spent, even if it went off too early
        if st.lead_at is not None and st.lead_at <= now:
            st.lead_at, st.lead_passed, st.dirty = None, True, True
        if st.adv_at is not None and st.adv_at <= now:
            st.adv_at, st.adv_passed, st.dirty = None, True, True
        if st.ask_at is not None and st.ask_at <= now:
            st.ask_at, st.asking, st.dirty = None, False, True
        if st.build_at is not None and st.build_at <= now:
            st.build_at, st.dirty = None, True
        if st.wait_at is not None and st.wait_at <= now:
            st.wait_at, st.dirty = None, True
        if st.execute_at is not None and st.execute_at <= now:
            st.execute_at, st.dirty = None, True
        if st.retransmit_at <= now:
            self._on_tick()

    def _on_tick(self) -> None:
        """R1, Q1: repeat what was lost; ask for final blocks if there was none since last time."""
        st = self._st
        st.retransmit_at = st.now_ms + st.parameters.retransmit_interval_ms
        st.reset_limits()
        voting.retransmit(st)
        if st.asking or st.lacks_place:
            voting.ask_for_own_votes(st)
        if st.final.height == self._height_at_tick or st.own_index is None:
            block_sync.ask_range(st, st.peer_at(st.tick))
        self._height_at_tick = st.final.height
        st.dirty = True

    def _on_wall_clock(self, event: WallClock) -> None:
        self._st.wall_offset_ms = event.offset_ms
        self._st.dirty = True

    def _on_received(self, event: Received) -> None:
        self._messages[type(event.message)](event.peer, event.message)

    def _on_payload_arrived(self, event: PayloadArrived) -> None:
        st = self._st
        for block in [*st.blocks.values(), *st.final_queue]:
            header = block.header if block.payload_asked else None
            if header is not None and header.payload_commitment == event.payload_commitment:
                block.payload_asked, block.payload_held = False, True
                st.dirty = True

    def _on_payload_failed(self, event: PayloadFailed) -> None:
        st = self._st
        for block in [*st.blocks.values(), *st.final_queue]:
            header = block.header
            if header is not None and header.payload_commitment == event.payload_commitment:
                block.payload_asked = False
                block.retry_ms = st.now_ms + st.parameters.delta_ms
                block.failures += 1
                peer = st.peer_at(block.failures + block_sync.turn_of(block.block_hash))
                block.peers = (*block.peers[-1:], *(() if peer is None else (peer,)))
                st.dirty = True

    def _on_answered(self, event: Answered) -> None:
        st, executor, answer = self._st, self._executor, event.answer
        request = executor.answered(event.call_id, event.boot_id, answer)
        if isinstance(request, NewPayload) and isinstance(answer, PayloadJudged):
            executor.on_judged(request, answer)
        elif isinstance(request, ForkchoiceUpdated):
            executor.on_forkchoice(request, answer)
        elif isinstance(request, GetStatus) and isinstance(answer, ExecutorStatus):
            executor.on_status(answer)
        elif isinstance(answer, ValidatorsOf):
            if st.next_set is None and request is not None:
                finality.learn_next_set(st, answer.validators)
        elif isinstance(request, GetPayload):
            self._on_built(event.call_id, answer)

    def _on_built(self, call_id: int, answer: PayloadBuilt | ExecutorSyncing | Any) -> None:
        """B2: make the own header, or drop a payload that came too late."""
        st, building = self._st, self._building
        is_ours = building is not None and call_id == self._build_call
        if isinstance(answer, ExecutorSyncing):
            self._building = None
            self._executor.lacks_a_block(GetPayload)
            return
        assert isinstance(answer, PayloadBuilt), "the shell pairs answers with calls"
        header = None
        if building is not None and is_ours:
            is_current = (building.epoch, building.view) == (st.epoch.number, st.view)
            if is_current:
                header = proposing.header_of(st, building, answer, self._fee_recipient)
        if header is None or building is None:
            self._building = None if is_ours else building
            finality.release(st, answer.payload_commitment)
            return
        block = st.add_block(header, st.hash_of(header))
        block.payload_held = True
        building.block_hash = block.block_hash

    def _on_call_failed(self, event: CallFailed) -> None:
        request = self._executor.failed(event.call_id, event.error)
        if isinstance(request, GetPayload) and event.call_id == self._build_call:
            self._building = None

    def _on_loaded(self, event: Loaded) -> None:
        self._executor.on_loaded(event.blocks)

    # --- messages ---------------------------------------------------------------------------------

    def _on_vote(self, peer: PeerId, vote: Vote) -> None:
        if vote.epoch != self._st.epoch.number:
            block_sync.on_other_epoch(self._st, peer, vote.epoch)  # H3
        else:
            certificates.on_vote(self._st, peer, vote)

    def _on_certificate(self, peer: PeerId, certificate: Certificate) -> None:
        if certificate.epoch != self._st.epoch.number:
            block_sync.on_other_epoch(self._st, peer, certificate.epoch)  # H3
        else:
            certificates.on_certificate(self._st, peer, certificate)

    def _on_propose(self, peer: PeerId, propose: Propose) -> None:
        st = self._st
        if propose.proposal.epoch != st.epoch.number:
            block_sync.on_other_epoch(st, peer, propose.proposal.epoch)  # H3
            return
        certificates.on_propose(st, peer, propose)
        block = st.blocks.get(propose.proposal.block_hash)
        if block is not None and st.view <= propose.proposal.view <= st.view + 1:
            limits = st.parameters
            if propose.header.payload_bytes <= limits.payload_bytes_max:
                self._executor.fetch(block)  # early: the transfer is the slowest part

    def _on_request(self, peer: PeerId, request: Request) -> None:
        block_sync.on_request(self._st, peer, request)

    def _on_votes_answer(self, peer: PeerId, answer: VotesAnswer) -> None:
        st = self._st
        if answer.epoch != st.epoch.number:
            return
        for vote in answer.votes:
            if vote.epoch == answer.epoch and vote.signer == answer.signer:
                certificates.on_vote(st, peer, vote)
        is_asked = (st.asking or st.lacks_place) and answer.signer == (st.own_index or 0)
        if is_asked and PublicKey(peer) in st.epoch.index_of and peer != st.own_peer:
            self._votes_answered.add(peer)
            self._look_at_answers()

    def _on_block_answer(self, peer: PeerId, answer: BlockAnswer) -> None:
        block_sync.on_block_answer(self._st, peer, answer)

    def _on_range(self, peer: PeerId, answer: RangeAnswer) -> None:
        block_sync.on_range(self._st, peer, answer)

    def _on_final(self, peer: PeerId, final: Final) -> None:
        if block_sync.on_final(self._st, peer, final):
            certificates.on_certificate(self._st, peer, final.certificate)

    def _on_evidence(self, peer: PeerId, evidence: Evidence) -> None:
        certificates.on_evidence(self._st, peer, evidence)
