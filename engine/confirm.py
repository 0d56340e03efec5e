"""The second look before INVALID: the serial arm, on a copy of the parent's state.

The copy has its own records, key table and scalar tree, and no device, vector form, thread or cache
of the first look. Of the signatures it asks for those alone that are not marked, each by libsodium.
What it says counts. Spec: spec/engine_api.md#newpayload.
"""

from dataclasses import dataclass

import numpy as np

from engine.bad_blocks import Judgement
from engine.chain import Node
from engine.errors import InvalidPayload
from engine.header import Header
from engine.header_checks import check_result
from engine.state import State
from engine.transition import BlockContext, Execution, Outcome, execute_payload
from engine.verified import VerifiedMarks
from kernels.backend import Backend
from kernels.layout import U8, U32, U64

FIRST_CONFIRMED_REASON = 64
"""Reasons of transactions and of the block's accounts are confirmed ..."""
RESULT_REASONS = frozenset({7, 8, 9, 10})
"""... and so are those of results; other ones follow from bytes alone."""

STATE_DIFFERS = "the records of the parent's state do not give its state_hash"
"""Memory itself is wrong: a copy of it is no witness."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StateCopy:
    """All accounts at one block, in slot order."""

    keys: U8
    balances: U64
    nonces: U64

    @classmethod
    def of(cls, state: State) -> "StateCopy":
        """Copy the records of a state; its tree is not looked at."""
        slots: U32 = np.arange(state.count, dtype=np.uint32)
        keys, balances, nonces = state.accounts.read(slots)
        return cls(keys=keys, balances=balances, nonces=nonces)

    def open(self, backend: Backend) -> State:
        """Return the same accounts on another backend, everything hashed anew."""
        return State(self.keys, self.balances, self.nonces, backend=backend)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Suspect:
    """A block that the first look refuses, with everything that the second one needs."""

    parent: Node
    copy: StateCopy
    """of the parent's state"""
    fields: Header
    header: bytes
    payload: bytes | memoryview
    context: BlockContext
    refusal: InvalidPayload
    """what the first look said"""
    arm: str
    """backend of the first look"""
    is_own: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Confirmation:
    """What the serial arm says."""

    refusal: InvalidPayload | None
    """None: the block is VALID"""
    difference: str
    """how the first look was wrong, empty if it was right"""
    judgements: list[Judgement]


def needs_confirmation(refusal: InvalidPayload) -> bool:
    """Say whether a refusal depends on execution."""
    return refusal.reason >= FIRST_CONFIRMED_REASON or refusal.reason in RESULT_REASONS


def confirm(suspect: Suspect, backend: Backend, marks: VerifiedMarks) -> Confirmation:
    """Judge a block again on the serial backend; any thread may do this."""
    assert backend.name == "serial", backend.name
    state = suspect.copy.open(backend)
    first = judgement_of(suspect.arm, suspect.refusal, None)
    if state.state_hash() != suspect.parent.state_hash:
        return Confirmation(refusal=None, difference=STATE_DIFFERS, judgements=[first])
    outcome, refusal = None, None
    try:
        execution = Execution(is_verified=marks.is_verified)
        outcome = execute_payload(state, suspect.payload, suspect.context, execution=execution)
        check_result(suspect.fields, outcome)
    except InvalidPayload as error:
        refusal = error
    judgements = [first, judgement_of("serial", refusal, outcome)]
    return Confirmation(
        refusal=refusal, difference=_difference(suspect, refusal), judgements=judgements
    )


def judgement_of(arm: str, refusal: InvalidPayload | None, outcome: Outcome | None) -> Judgement:
    """Return what one arm said, for a person."""
    return Judgement(
        arm=arm,
        verdict="VALID" if refusal is None else "INVALID",
        reason="" if refusal is None else refusal.reason.name,
        position=None if refusal is None else refusal.position,
        detail="" if refusal is None else refusal.detail,
        transactions_root="" if outcome is None else outcome.transactions_root.hex(),
        receipts_hash="" if outcome is None else outcome.receipts_hash.hex(),
        state_hash="" if outcome is None else outcome.state_hash.hex(),
    )


def _difference(suspect: Suspect, refusal: InvalidPayload | None) -> str:
    """Return how the first look differs from the second, details aside, or nothing."""
    first = suspect.refusal
    if refusal is None:
        return f"it refused a block that is VALID: {first}"
    if (first.reason, first.position) != (refusal.reason, refusal.position):
        return f"it said {first}, and the serial arm says {refusal}"
    if first.detail != refusal.detail:
        return f"its results differ: it said {first}, and the serial arm says {refusal}"
    return ""
