"""Small ledgers for tests: the same accounts and payloads for the oracle and for the engine."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.codec import PayloadLimits
from engine.errors import InvalidPayload
from engine.state import State
from engine.transition import BlockContext, LedgerRules, Outcome, all_verified, execute_payload
from kernels.backend import Backend
from spec import oracle

CHAIN_ID = 7
FEES = b"\xfe" * 32
LEDGER = oracle.Ledger(CHAIN_ID, fee_minimum=1, account_minimum=5, accounts_max=1000)


def key(number: int) -> bytes:
    """Return the key of an account number, one byte apart from its neighbours."""
    return number.to_bytes(32, "big")


def accounts(balances: Sequence[int]) -> list[Any]:
    """Return the oracle's accounts 0.. with these balances."""
    return [oracle.Account(key(i), balance) for i, balance in enumerate(balances)]


def open_state(made: Sequence[Any], backend: Backend) -> State:
    """Open the same accounts in the engine."""
    keys = np.frombuffer(b"".join(a.key for a in made), np.uint8).reshape(-1, 32)
    balances = np.array([a.balance for a in made], np.uint64)
    nonces = np.array([a.nonce for a in made], np.uint64)
    return State(keys, balances, nonces, backend=backend)


def context(height: int = 1, ledger: Any = LEDGER) -> BlockContext:
    """Return the engine's view of a block of the oracle's ledger."""
    limits = ledger.limits
    return BlockContext(
        chain_id=ledger.chain_id,
        height=height,
        fee_recipient=FEES,
        transaction_domain=ledger.domain,
        rules=LedgerRules(ledger.fee_minimum, ledger.account_minimum, ledger.accounts_max),
        limits=PayloadLimits(
            bytes=limits.bytes, transactions=limits.transactions, objects=limits.objects
        ),
    )


def engine_result(
    state: State, payload: bytes, height: int = 1, *, ledger: Any = LEDGER, verify: bool = False
) -> tuple[object, Outcome | None]:
    """Execute in the engine; return what can be compared, and the outcome."""
    try:
        outcome = execute_payload(
            state,
            payload,
            context(height, ledger),
            is_verified=None if verify else all_verified,
        )
    except InvalidPayload as refusal:
        return (refusal.reason.name, refusal.position), None
    return (
        outcome.statuses.tolist(),
        outcome.transactions_root,
        outcome.receipts_hash,
        outcome.state_hash,
    ), outcome


def oracle_result(
    made: list[Any], payload: bytes, height: int = 1, *, ledger: Any = LEDGER, verify: bool = False
) -> tuple[object, list[Any]]:
    """Execute in the oracle; return what can be compared, and the accounts after it."""
    try:
        done = oracle.execute_payload(made, payload, ledger, height, FEES, verify)
    except oracle.Invalid as refusal:
        return (refusal.reason, refusal.position), made
    compared = (done.statuses, done.transactions_root, done.receipts_hash, done.state_hash)
    return compared, done.accounts
