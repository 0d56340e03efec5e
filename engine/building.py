"""GetPayload: take what waits, keep what will succeed, execute it, remember it as an own build.

Runs on the writer's thread. Spec: spec/engine_api.md#getpayload.
"""

import numpy as np

from engine import confirm
from engine.codec import PayloadLimits, decode_payload, encode_payload, payload_commitment
from engine.columns import empty, take
from engine.errors import InvalidPayload
from engine.events import Notice
from engine.executor import Executor
from engine.own_builds import OwnBuild, key_of_request
from engine.pool_keeper import PoolKeeper
from engine.pool_selection import select
from engine.store.errors import StoreDamaged
from engine.transition import Outcome, Parties, StageTimer, execute_payload
from engine.verdicts import FinalizedBlock
from engine_api.checks import U64_MAX, check_range
from engine_api.protocol import Deadline
from engine_api.types import BuiltPayload, PayloadRequest
from kernels.layout import NO_SLOT

ATTEMPTS = 4
"""Builds that are tried, each without what the one before was refused for; then an empty one."""


class PayloadBuilder:
    """Builds on the executor's chain from the pool."""

    def __init__(self, executor: Executor, keeper: PoolKeeper) -> None:
        """Build for one executor."""
        self._executor = executor
        self._keeper = keeper
        self._was_cut = False
        """whether the last choice was, which is told once"""

    def check_limits(self, request: PayloadRequest) -> None:
        """Raise INVALID_ARGUMENT for a limit above the genesis parameter."""
        for name in ("bytes", "transactions", "objects"):
            most = getattr(self._executor.limits, name)
            check_range(f"limits.{name}", getattr(request.limits, name), 0, most)

    def is_place(self, request: PayloadRequest) -> bool:
        """Say whether the parent is known; raise for a height or time that does not follow it."""
        chain = self._executor.chain
        parent = chain.get(request.parent_hash)
        if parent is None:
            return False
        check_range("height", request.height, parent.height + 1, parent.height + 1)
        time_ms = request.attributes.timestamp_ms
        check_range("attributes.timestamp_ms", time_ms, parent.timestamp_ms + 1, U64_MAX)
        chain.check_depth(request.height)
        return True

    def build(self, request: PayloadRequest, deadline: Deadline) -> BuiltPayload | None:
        """Build and execute a payload; the state is left on the parent. None: no such parent."""
        if not self.is_place(request):
            return None
        chain = self._executor.chain
        self._executor.ensure(request.parent_hash)
        chain.switch(request.parent_hash)
        limits = PayloadLimits(
            bytes=request.limits.bytes,
            transactions=request.limits.transactions,
            objects=request.limits.objects,
        )
        can_pay = self._can_pay(bytes(request.attributes.fee_recipient))
        for _ in range(ATTEMPTS if can_pay else 0):
            payload = self._choose(request.height, limits)
            deadline.check("the payload was executed")
            try:
                outcome = self._execute(request, payload, deadline)
            except InvalidPayload as refusal:
                self._refused(request, payload, refusal)
                continue
            return self._keep(request, payload, outcome)
        nothing = encode_payload(empty(), np.zeros(1, np.int32))
        return self._keep(request, nothing, self._execute(request, nothing, deadline))

    def quarantine(self, payload: bytes | memoryview, position: int) -> None:
        """Never choose again the transaction at a position of a payload."""
        batch = decode_payload(payload, self._executor.limits)
        column = take(batch.columns, np.array([position]))
        self._keeper.quarantine(self._executor.serial.hash_transactions(column).tobytes())

    def finalized_from_disk(self, height: int) -> FinalizedBlock | None:
        """Return what the indexes need of a finalized block, or None where it is pruned.

        A block that the disk has spoiled is told, and is one without transactions to the indexes.
        """
        executor = self._executor
        stored = executor.store.block_at(height)
        if stored is None:
            return None
        try:
            payload = executor.store.payload(stored.block_hash)
            history = executor.store.history(stored.block_hash)
        except StoreDamaged as error:
            executor.tell(Notice(text=f"the block at height {height} is not indexed: {error}"))
            return _nothing_of(height)
        if payload is None or history is None:
            return None
        batch = decode_payload(payload, executor.limits)
        accounts = executor.chain.state.accounts
        lane_senders, recipients = accounts.find_parties(batch.columns, batch.lane_offsets)
        # Accounts above the block's count were created later, or by another branch.
        is_later = recipients >= np.uint32(history.delta.count_after)
        recipients = np.where(is_later, np.uint32(2**32 - 1), recipients)
        return FinalizedBlock(
            height=height,
            hashes=executor.chain.state.backend.hash_transactions(batch.columns),
            statuses=history.statuses,
            parties=Parties(np.repeat(lane_senders, np.diff(batch.lane_offsets)), recipients),
        )

    def _can_pay(self, fee_recipient: bytes) -> bool:
        """Say whether any transaction can be in a block: its fee, if it has one, needs an account.

        The fee recipient has one, or gets the next where the state stands and there is room.
        """
        state = self._executor.chain.state
        key = np.frombuffer(fee_recipient, np.uint8).reshape(1, -1)
        has_account = int(state.accounts.lookup(key)[0]) != NO_SLOT
        rules = self._executor.rules
        return not rules.fee_minimum or has_account or state.count < rules.accounts_max

    def _choose(self, height: int, limits: PayloadLimits) -> bytes:
        """Return the payload of what will succeed on the state as it stands."""
        pool, state = self._keeper.pool, self._executor.chain.state
        chosen = select(pool, state, height=height, limits=limits)
        if chosen.is_cut and not self._was_cut:
            text = (
                f"a payload at height {height} has {len(chosen.records)} transactions, the best "
                f"{chosen.judged_count} that wait having been judged, and room for more: "
                f"of {len(pool)} the others were not looked at"
            )
            self._executor.tell(Notice(text=text))
        self._was_cut = chosen.is_cut
        return chosen.payload()

    def _execute(self, request: PayloadRequest, payload: bytes, deadline: Deadline) -> Outcome:
        """Execute on the parent's state and take it back at once."""
        executor = self._executor
        timer = StageTimer(before=lambda stage: deadline.check(f"the stage {stage}"))
        state = executor.chain.state
        outcome = execute_payload(
            state,
            payload,
            executor.context(request.height, bytes(request.attributes.fee_recipient)),
            execution=executor.execution(timer),
        )
        state.undo([outcome.changes])
        return outcome

    def _keep(self, request: PayloadRequest, payload: bytes, outcome: Outcome) -> BuiltPayload:
        commitment = payload_commitment(payload)
        made = OwnBuild(payload=payload, payload_commitment=commitment, outcome=outcome)
        self._executor.builds.keep(key_of_request(request, commitment), made)
        return BuiltPayload(
            payload=payload,
            payload_commitment=commitment,
            transaction_count=len(outcome.statuses),
            transactions_root=outcome.transactions_root,
            state_hash=outcome.state_hash,
            receipts_hash=outcome.receipts_hash,
        )

    def _refused(self, request: PayloadRequest, payload: bytes, refusal: InvalidPayload) -> None:
        """Quarantine what the serial arm refuses too; if it refuses nothing, it takes over.

        So it does where memory is wrong. The state stands on the parent.
        """
        executor = self._executor
        state = confirm.StateCopy.of(executor.chain.state).open(executor.serial)
        why = confirm.STATE_DIFFERS
        if state.state_hash() == executor.chain.position.state_hash:
            why = f"it refused an own build that is VALID: {refusal}"
            context = executor.context(request.height, bytes(request.attributes.fee_recipient))
            try:
                execute_payload(state, payload, context, execution=executor.execution(StageTimer()))
            except InvalidPayload as second:
                if second.position is not None:
                    self.quarantine(payload, second.position)
                return
        executor.disable_path(why)
        self._executor.ensure(request.parent_hash)
        executor.chain.switch(request.parent_hash)


def _nothing_of(height: int) -> FinalizedBlock:
    """Return a finalized block of which nothing is known."""
    nobody = np.empty(0, np.uint32)
    return FinalizedBlock(
        height=height,
        hashes=np.empty((0, 32), np.uint8),
        statuses=np.empty(0, np.uint8),
        parties=Parties(nobody, nobody),
    )
