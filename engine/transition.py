"""Execute a payload on a state: the one way by which balances change.

The stages, in order: decode, lookup, execute, hash, verify, settle, receipts, state_hash. Nothing
is written before `settle`, so a payload that is refused leaves no trace. The same call serves the
proposer and every validator. Spec: spec/block.md#checks, #execution, #settlement.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import receipts
from engine.codec import Batch, PayloadLimits, decode_payload
from engine.errors import TRANSACTION_REASON_BASE, InvalidPayload, Reason
from engine.state import State
from kernels import layout
from kernels.backend import Backend
from kernels.layout import U8, U32, Changes, Rules, Walk

IsVerified = Callable[[U8], NDArray[np.bool_]]
"""(n, 32) transaction hashes -> (n,) bool: whose signature this process has verified before."""
MarkVerified = Callable[[U8], None]
"""Is given the (m, 32) transaction hashes whose signatures were found valid."""

STOPPABLE_STAGES = frozenset({"decode", "lookup", "execute", "hash", "verify", "settle"})
"""Before these nothing is written yet: whoever is told of a stage's beginning may raise."""


class LedgerRules(NamedTuple):
    """Limits that genesis fixes, in base units and accounts."""

    fee_minimum: int
    account_minimum: int
    accounts_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockContext:
    """What a payload's execution takes from its header and its chain."""

    chain_id: int
    height: int
    fee_recipient: bytes
    transaction_domain: bytes
    rules: LedgerRules
    limits: PayloadLimits


class Parties(NamedTuple):
    """The accounts that each transaction of a payload moved."""

    senders: U32
    """(n,) uint32 account slots"""
    recipients: U32
    """(n,) uint32 account slots, NO_SLOT where there is no account after the block either"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a payload came to; its changes stand in the state."""

    statuses: U8
    """(n,) uint8"""
    transaction_hashes: U8
    """(n, 32) uint8"""
    transactions_root: bytes
    receipts_hash: bytes
    state_hash: bytes
    changes: Changes
    fee_total: int
    parties: Parties | None = None
    """None unless it was asked for"""


@dataclass(slots=True)
class StageTimer:
    """Nanoseconds per stage, added up over calls."""

    ns: dict[str, int] = field(default_factory=dict)
    before: Callable[[str], None] | None = None
    """is told each of STOPPABLE_STAGES before it begins, and may raise"""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block under `with` to the stage `name`."""
        if self.before is not None and name in STOPPABLE_STAGES:
            self.before(name)
        start = time.perf_counter_ns()
        yield
        self.ns[name] = self.ns.get(name, 0) + time.perf_counter_ns() - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a payload is executed; nothing of it shows in a result."""

    timer: StageTimer = field(default_factory=StageTimer)
    is_verified: IsVerified | None = None
    """None: every signature is verified"""
    mark_verified: MarkVerified | None = None
    keeps_parties: bool = False
    """whether the outcome says which accounts each transaction moved"""


def all_verified(hashes: U8) -> NDArray[np.bool_]:
    """Take every signature as verified before."""
    return np.ones(len(hashes), np.bool_)


def announce_payload(backend: Backend, payload: bytes | memoryview, limits: PayloadLimits) -> None:
    """Let a device take a payload in while the one before it is executed; on any thread.

    The payload's bytes must not change. One that cannot be decoded is not looked at any further.
    """
    with suppress(InvalidPayload):  # for which `execute_payload` refuses it
        backend.prefetch(lambda: decode_payload(payload, limits).columns)


def execute_payload(
    state: State,
    payload: bytes | memoryview,
    context: BlockContext,
    *,
    timer: StageTimer | None = None,
    is_verified: IsVerified | None = None,
    execution: Execution | None = None,
) -> Outcome:
    """Execute `payload` on `state` and leave the result in it.

    With `is_verified` None every signature is verified; `execution` says both and more. Raises
    InvalidPayload with the first defect in canonical order; the state is then what it was.
    """
    execution = execution or Execution(timer=timer or StageTimer(), is_verified=is_verified)
    timer = execution.timer
    accounts, backend = state.accounts, state.backend
    with timer.stage("decode"):
        batch = decode_payload(payload, context.limits)
        rules = Rules(context.chain_id, context.height, *context.rules)
    columns, offsets = batch.columns, batch.lane_offsets
    with timer.stage("lookup"):
        senders, recipients = accounts.find_parties(columns, offsets)
    with timer.stage("execute"):
        walk = accounts.walk(columns, offsets, senders, recipients, rules)
    with timer.stage("hash"):
        hashes, transactions_root = receipts.transactions_root(backend, columns, offsets)
    with timer.stage("verify"):
        _refuse_first_defect(state, batch, walk, hashes, context.transaction_domain, execution)
    with timer.stage("settle"):
        state.begin_change()
        changes = accounts.settle(
            columns, offsets, senders, recipients, walk, context.fee_recipient, rules
        )
        if changes is None:
            maximum = context.rules.accounts_max
            detail = f"the chain holds at most {maximum} accounts and this payload needs more"
            raise InvalidPayload(Reason.ACCOUNTS_EXCEEDED, None, detail)
    parties = None
    if execution.keeps_parties:
        with timer.stage("parties"):
            parties = _parties(state, batch, senders, recipients)
    with timer.stage("receipts"):
        receipts_hash = receipts.receipts_hash(
            backend, hashes, walk.statuses, columns.kind, columns.fee
        )
    with timer.stage("state_hash"):
        accounts.update_tree(changes)
        state_hash = state.state_hash()
    return Outcome(
        statuses=walk.statuses,
        transaction_hashes=hashes,
        transactions_root=transactions_root,
        receipts_hash=receipts_hash,
        state_hash=state_hash,
        changes=changes,
        fee_total=walk.fee_total,
        parties=parties,
    )


def _parties(state: State, batch: Batch, senders: U32, recipients: U32) -> Parties:
    """Return the slots of each transaction; those of accounts that the block created are new."""
    created = np.flatnonzero(recipients == layout.NO_SLOT)
    if len(created):
        recipients = recipients.copy()
        recipients[created] = state.accounts.lookup(batch.columns.recipient[created])
    return Parties(np.repeat(senders, np.diff(batch.lane_offsets)), recipients)


def _refuse_first_defect(
    state: State, batch: Batch, walk: Walk, hashes: U8, domain: bytes, execution: Execution
) -> None:
    """Raise for the earliest of the walk's defect and the first bad signature.

    A signature is the last check of a transaction, so at one position the walk's defect counts.
    """
    position, code = walk.defect_index, walk.defect
    known = np.zeros(len(hashes), np.bool_)
    if execution.is_verified is not None:
        known = execution.is_verified(hashes)
    end = position if code != layout.NO_DEFECT else len(known)
    unknown = np.flatnonzero(~known[:end])
    if len(unknown):
        verdicts = state.backend.verify_transactions(
            batch.columns, unknown.astype(np.int32), domain
        )
        if execution.mark_verified is not None:
            execution.mark_verified(hashes[unknown[verdicts != 0]])
        bad = np.flatnonzero(verdicts == 0)
        if len(bad):
            position, code = int(unknown[bad[0]]), layout.SIGNATURE
    if code != layout.NO_DEFECT:
        reason = Reason(TRANSACTION_REASON_BASE + code)
        detail = f"transaction {position} in canonical order: {reason.name.lower()}"
        raise InvalidPayload(reason, position, detail)
