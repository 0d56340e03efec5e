"""F1, F2 and the executor: which block is judged next, and what the executor is told.

At most one call of each kind is open. An answer is a verdict, an error never is: errors are tried
again. A changed boot_id means another process: what it holds is asked for and sent again.
Spec: spec/consensus.md#execution. Next: `replica.py`.
"""

from collections.abc import Iterator
from itertools import islice

from consensus.core.block_sync import ask_block
from consensus.core.blocks import Block, block_of
from consensus.core.events import (
    AlarmCode,
    Answer,
    Call,
    CallError,
    CallRequest,
    ExecutorStatus,
    ExecutorSyncing,
    FetchPayload,
    ForkchoiceDone,
    ForkchoiceUpdated,
    GetPayload,
    GetStatus,
    GetValidatorSet,
    LoadFinalized,
    NewPayload,
    PayloadJudged,
    Verdict,
)
from consensus.core.finality import drop_payload, halt
from consensus.core.state import State
from consensus.core.types import RANGE_HEADERS_MAX, BootId, FinalizedBlock, Hash32, Height

CALLS_MAX = 5
"""one open call of each kind"""
TIMEOUT_EXECUTIONS = 4
"""a call may take this many execute_max_ms"""
PREFETCH_MAX = 4
"""payloads of final blocks fetched at a time"""
EXECUTED_MAX = 256
"""blocks of one GetStatus answer that are looked at"""
PERMANENT = (
    CallError.INVALID_ARGUMENT,
    CallError.UNSUPPORTED,
    CallError.CONFLICT,
    CallError.UNAUTHENTICATED,
)


class Executor:
    """What is known of the own executor, and the calls that are open."""

    def __init__(self, st: State) -> None:
        """Begin without knowing anything: GetStatus comes first."""
        self._st = st
        self.boot_id: BootId | None = None
        self.is_known = False
        """GetStatus was answered since the executor started, and it works for this chain"""
        self.final_hash: Hash32 = st.chain.genesis_hash
        """of the height that it has finalized (`State.executor_height`)"""
        self.held: set[Hash32] = set()
        """blocks that it had executed when it was asked"""
        self.told: ForkchoiceUpdated | None = None
        self.open: dict[int, CallRequest] = {}
        self.retry_ms: dict[type, int] = {}
        """per kind of call: not again before this"""
        self.loading = False
        self._next_id = 1

    # --- calls ----------------------------------------------------------------------------------

    def is_open(self, kind: type) -> bool:
        """Say whether a call of this kind is under way."""
        return any(type(request) is kind for request in self.open.values())

    def may_call(self, kind: type) -> bool:
        """Say whether a call of this kind may be made now; else a retry is armed."""
        if self.is_open(kind):
            return False
        at = self.retry_ms.get(kind, 0)
        if self._st.now_ms < at:
            self._wake(at)
            return False
        return True

    def _wake(self, at_ms: int) -> None:
        st = self._st
        st.execute_at = at_ms if st.execute_at is None else min(st.execute_at, at_ms)

    def call(self, request: CallRequest, *, after_sync: bool = False, extra_ms: int = 0) -> int:
        """Make a call and return its id; finality is told after it is durable (F2)."""
        st = self._st
        assert not self.is_open(type(request)), "one call of a kind at a time"
        timeout_ms = TIMEOUT_EXECUTIONS * st.parameters.execute_max_ms * st.backoff + extra_ms
        call = Call(call_id=self._next_id, request=request, timeout_ms=timeout_ms)
        self.open[self._next_id] = request
        assert len(self.open) <= CALLS_MAX
        self._next_id += 1
        if after_sync:
            st.outbox.then.append(call)
        else:
            st.outbox.now_effects.append(call)
        return call.call_id

    def answered(self, call_id: int, boot_id: BootId, answer: Answer) -> CallRequest | None:
        """Take an answer's identity into account; return what it answers, None when unasked."""
        request = self.open.pop(call_id, None)
        if request is None:
            return None
        self._st.dirty = True
        if self.boot_id is not None and boot_id != self.boot_id:
            self.restarted()
            if not isinstance(answer, ExecutorStatus):
                self.boot_id = boot_id
        self.boot_id = boot_id
        return request

    def restarted(self) -> None:
        """Forget what the old process held; INVALID is never remembered beyond a process."""
        self.is_known = False
        self.told = None
        self.held = set()
        for block in [*self._st.blocks.values(), *self._st.final_queue]:
            block.in_executor = False
            if block.verdict == Verdict.INVALID:
                block.verdict = None

    def lacks_a_block(self, kind: type) -> None:
        """SYNCING: it does not know what it had; look again, and do not ask the same at once."""
        self.retry_ms[kind] = self._st.now_ms + self._st.parameters.delta_ms
        self._wake(self.retry_ms[kind])
        self.restarted()

    def failed(self, call_id: int, error: CallError) -> CallRequest | None:
        """Arm a repetition of what failed; return the request, None when unasked."""
        st = self._st
        request = self.open.pop(call_id, None)
        if request is None:
            return None
        at = st.now_ms + st.parameters.retransmit_interval_ms
        self.retry_ms[type(request)] = at
        self._wake(at)
        st.dirty = True
        if isinstance(request, NewPayload) and error == CallError.PAYLOAD_NOT_HELD:
            self.retry_ms.pop(NewPayload, None)
            block = self._block(request.block_hash)
            if block is not None:
                block.payload_held = block.payload_asked = False
                block.is_lost = True
        elif error in PERMANENT:
            st.alarm(AlarmCode.EXECUTOR_FAILING, f"{type(request).__name__}: {error.name}")
        if error in (CallError.UNAVAILABLE, CallError.CONFLICT):
            self.is_known = False
        return request

    def _block(self, block_hash: Hash32) -> Block | None:
        found = self._st.blocks.get(block_hash)
        if found is None:
            for block in self._st.final_queue:
                if block.block_hash == block_hash:
                    return block
        return found

    # --- answers --------------------------------------------------------------------------------

    def on_status(self, status: ExecutorStatus) -> None:
        """Compare who it is, and take over where it stands."""
        st = self._st
        ours = (st.chain.genesis_hash, st.chain.params_hash)
        wrong = (status.genesis_hash, status.params_hash) != ours
        if status.finalized_height == st.final.height:
            wrong = wrong or status.finalized_hash != st.final.block_hash
        if wrong:
            self._is_wrong("another genesis, parameters or final block")
            return
        self.is_known = True
        self.told = None
        st.executor_height, self.final_hash = status.finalized_height, status.finalized_hash
        self.held = {block_hash for _, block_hash in status.unfinalized[:EXECUTED_MAX]}
        self.held.add(status.finalized_hash)
        while st.final_queue and st.final_queue[0].height <= st.executor_height:
            st.final_queue.popleft()
        if st.final_queue and st.final_queue[0].height != st.executor_height + 1:
            st.final_queue.clear()
        self.notice_held()

    def _is_wrong(self, why: str) -> None:
        """Refuse to work with this executor, and look again later."""
        st = self._st
        st.alarm(AlarmCode.WRONG_EXECUTOR, why)
        self.is_known = False
        self.retry_ms[GetStatus] = st.now_ms + st.parameters.retransmit_interval_ms
        self._wake(self.retry_ms[GetStatus])

    def notice_held(self) -> None:
        """Mark blocks that the executor said it has executed: that is a VALID (V1)."""
        st = self._st
        if st.final.height == st.executor_height and st.final.block_hash != self.final_hash:
            self._is_wrong("another final block")
            return
        if st.final.height <= st.executor_height:
            self._take_as_executed(st.final)
        if self.held:
            for block in [*st.blocks.values(), *st.final_queue]:
                if block.block_hash in self.held:
                    self._take_as_executed(block)

    def _take_as_executed(self, block: Block) -> None:
        if block.in_executor:
            return
        block.in_executor = True
        block.verdict = Verdict.VALID
        self._st.dirty = True

    def on_judged(self, request: NewPayload, judged: PayloadJudged) -> None:
        """Take a verdict on a block."""
        st = self._st
        block = self._block(request.block_hash)
        if block is None:
            return
        if judged.verdict == Verdict.VALID:
            block.verdict, block.in_executor = Verdict.VALID, True
            if request.header.proposer != st.key:
                drop_payload(st, block)
        elif judged.verdict == Verdict.INVALID:
            block.verdict = Verdict.INVALID
            drop_payload(st, block)
            if block.height <= st.final.height and st.rules.must_halt(block):
                halt(st, block)  # V4
        elif judged.verdict == Verdict.MALFORMED:
            drop_payload(st, block)
            block.retry_ms = st.now_ms + st.parameters.delta_ms
        else:
            self.lacks_a_block(NewPayload)

    def on_forkchoice(self, request: ForkchoiceUpdated, answer: Answer) -> None:
        """F2: the executor's finality advances by the answer, one height at a time."""
        st = self._st
        if isinstance(answer, ExecutorSyncing):
            self.lacks_a_block(ForkchoiceUpdated)
            return
        assert isinstance(answer, ForkchoiceDone), "the shell pairs answers with calls"
        self.told = request
        if st.final_queue and st.final_queue[0].block_hash == request.finalized:
            block = st.final_queue.popleft()
            st.executor_height, self.final_hash = block.height, block.block_hash
            if block is not st.final:
                st.blocks.pop(block.block_hash, None)
        self.held.discard(request.finalized)

    def on_loaded(self, blocks: tuple[FinalizedBlock, ...]) -> None:
        """Queue final blocks read from the store for an executor that is behind."""
        st = self._st
        self.loading = False
        st.dirty = True
        if not blocks:
            self.retry_ms[LoadFinalized] = st.now_ms + st.parameters.retransmit_interval_ms
        if st.final_queue or not blocks or blocks[0].header.height != st.executor_height + 1:
            return
        if blocks[0].header.parent_hash != self.final_hash:
            self._is_wrong(f"another block of height {st.executor_height}")
            return
        for stored in blocks[:RANGE_HEADERS_MAX]:
            known = st.blocks.get(stored.block_hash)
            st.final_queue.append(known or block_of(stored.header, stored.block_hash))

    # --- what is due ----------------------------------------------------------------------------

    def drive(self, proposal: Block | None, own: Block | None) -> None:
        """Make every call that is due. `proposal`, `own`: blocks whose verdict a vote waits for."""
        if not self.is_known:
            if self.may_call(GetStatus):
                self.call(GetStatus())
            return
        if self.held:
            self.notice_held()
            if not self.is_known:
                return
        self._load()
        certified = self._certified()
        self._judge(proposal, own, certified)
        self._tell(certified)
        self._ask_next_set()

    def _load(self) -> None:
        """Read final blocks from the own store when the executor is far behind it."""
        st = self._st
        lag = st.final.height - st.executor_height
        is_due = lag > 0 and not st.final_queue and not self.loading
        if is_due and self.may_call(LoadFinalized):
            self.loading = True
            st.outbox.now_effects.append(
                LoadFinalized(
                    first=Height(st.executor_height + 1), count=min(lag, RANGE_HEADERS_MAX)
                )
            )

    def _candidates(
        self, proposal: Block | None, own: Block | None, certified: list[Block]
    ) -> Iterator[Block]:
        """Yield blocks in the order in which they matter: final, own, voted on, notarized."""
        st = self._st
        # Later ones are only fetched: catching up is as fast as execution, not as transfers.
        yield from islice((b for b in st.final_queue if not b.in_executor), PREFETCH_MAX)
        for wanted in (own, proposal, *certified):
            missing = self._first_missing(wanted)
            if missing is not None:
                yield missing

    def _certified(self) -> list[Block]:
        """Return the blocks of certified views above the last final one, highest view first."""
        st, found = self._st, []
        for number in sorted(st.views, reverse=True):
            if number <= st.last_final_view:
                break
            certified = st.views[number].certified()
            if certified is None:
                continue
            block = st.blocks.get(certified.block_hash)
            if block is None:
                ask_block(st, certified.block_hash, None)
            else:
                found.append(block)
        return found

    def _first_missing(self, block: Block | None) -> Block | None:
        """Return the lowest block on the way to this one that the executor can judge now."""
        st = self._st
        while block is not None and not block.in_executor and block.header is not None:
            if block.height <= st.final.height or block.verdict == Verdict.INVALID:
                return None
            parent = st.blocks.get(block.header.parent_hash)
            if parent is None:
                ask_block(st, block.header.parent_hash, None)
                return None
            if parent.in_executor:
                return block
            block = parent
        return None

    def _judge(self, proposal: Block | None, own: Block | None, certified: list[Block]) -> None:
        """Fetch payloads of the blocks that matter and judge the first one that is ready."""
        st = self._st
        may_judge = self.may_call(NewPayload)
        for block in self._candidates(proposal, own, certified):
            if block.height - st.executor_height > st.parameters.unfinalized_max:
                continue
            is_next = self._is_next(block)
            if block.verdict == Verdict.INVALID:
                continue
            # What was VALID once is durable there: only its execution was lost.
            is_there = block is own or block.verdict == Verdict.VALID
            if block.payload_held or (is_there and not block.is_lost):
                if may_judge and is_next:
                    assert block.header is not None, "genesis is never judged"
                    self.call(NewPayload(block_hash=block.block_hash, header=block.header))
                    may_judge = False
            else:
                self.fetch(block)

    def _is_next(self, block: Block) -> bool:
        """Say whether the executor has a block's parent, so that it can be judged now."""
        if block.header is None or block.height > self._st.final.height:
            return True  # `_first_missing` saw to it
        parent = self._block(block.header.parent_hash)
        return block.header.parent_hash == self.final_hash or (
            parent is not None and parent.in_executor
        )

    def fetch(self, block: Block) -> None:
        """Ask the shell for a payload, once until it arrives or fails."""
        st = self._st
        if block.payload_asked or block.payload_held or block.in_executor:
            return
        if block.verdict is not None and block.verdict == Verdict.INVALID:
            return
        if st.now_ms < block.retry_ms:
            self._wake(block.retry_ms)
            return
        assert block.header is not None, "genesis has no payload"
        block.payload_asked = True
        st.outbox.now_effects.append(
            FetchPayload(
                block_hash=block.block_hash,
                payload_commitment=block.header.payload_commitment,
                payload_bytes=block.header.payload_bytes,
                peers=block.peers,
            )
        )

    def _tell(self, certified: list[Block]) -> None:
        """F1, F2: tell the executor of the next final height, or else of a new head.

        The head is the block of the highest view that is certified and VALID here.
        """
        st = self._st
        if not self.may_call(ForkchoiceUpdated):
            return
        best = next((block for block in certified if block.in_executor), None)
        queue = st.final_queue
        if queue and queue[0].in_executor:
            final = queue[0]
            head = best if best is not None and self._descends(best, final) else final
            self.call(st.rules.forkchoice(head, final), after_sync=True)
        elif st.executor_height == st.final.height:
            choice = st.rules.forkchoice(best or st.final, st.final)
            if choice != self.told:
                self.call(choice, after_sync=True)

    def _descends(self, block: Block, ancestor: Block) -> bool:
        """Say whether a block stands on another one through executed blocks."""
        here: Block | None = block
        while here is not None and here.height > ancestor.height and here.header is not None:
            here = self._block(here.header.parent_hash)
        return here is ancestor

    def _ask_next_set(self) -> None:
        """H1: the set of the next epoch is known once the boundary before this one is executed."""
        st = self._st
        is_due = st.next_set is None and st.executor_height >= st.epoch.first_height - 1
        if is_due and self.may_call(GetValidatorSet):
            self.call(GetValidatorSet(epoch=st.epoch.number + 1))

    def get_payload(self, request: GetPayload) -> int:
        """Ask for a payload, which may wait for work as long as the leader said; return the id."""
        return self.call(request, extra_ms=request.wait_ms)
