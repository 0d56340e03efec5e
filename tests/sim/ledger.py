"""A toy ledger, executed serially: what the simulated executors compute and what I6 recomputes.

A payload is a row of 4-byte transfers (sender, recipient, amount u16); ACCOUNTS balances; a
transfer without cover fails and leaves everything as it was.
"""

import struct
from dataclasses import dataclass

from tests.sim.keys import digest

ACCOUNTS = 8
OPENING = 1000
TRANSFER_BYTES = 4
_STATE = struct.Struct(f"<{ACCOUNTS}I")
_TRANSFER = struct.Struct("<BBH")

State = tuple[int, ...]
"""(ACCOUNTS,) balances, base units"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a payload makes of a state, and the hashes that a header has to carry."""

    state: State
    state_hash: bytes
    receipts_hash: bytes
    transactions_root: bytes


OPENING_STATE: State = (OPENING,) * ACCOUNTS


def is_well_formed(payload: bytes) -> bool:
    """Say whether bytes are transfers between accounts that exist."""
    if len(payload) % TRANSFER_BYTES:
        return False
    return all(s < ACCOUNTS and r < ACCOUNTS for s, r, _ in _TRANSFER.iter_unpack(payload))


def execute(state: State, payload: bytes) -> Result:
    """Apply well-formed transfers in their order."""
    balances = list(state)
    statuses = bytearray()
    for sender, recipient, amount in _TRANSFER.iter_unpack(payload):
        covered = balances[sender] >= amount
        if covered:
            balances[sender] -= amount
            balances[recipient] += amount
        statuses.append(covered)
    after = tuple(balances)
    return Result(
        state=after,
        state_hash=digest("toy state", _STATE.pack(*after)),
        receipts_hash=digest("toy receipts", bytes(statuses)),
        transactions_root=digest("toy transactions", payload),
    )


def commitment(payload: bytes) -> bytes:
    """Return what a header says of the payload's bytes."""
    return digest("toy payload", payload)
