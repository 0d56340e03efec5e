"""The pool's words: limits, reasons, and what is known of a transaction.

Local policy, not consensus: another node may keep other limits, and what one pool refuses may stand
in a valid block all the same. Read `mempool.py` for the rules.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from kernels import pending, pending_rows
from kernels.layout import U8, U64

TRANSACTIONS_MAX = 2_000_000
"""Transactions that wait, unless the opener says otherwise."""
BATCH_MAX = 32_768
"""Records of one batch."""
FREED_SHARE = 64
"""A full pool frees so great a part of itself at once: 1/64, since finding the cheapest is dear."""
OUTCOMES_MAX = 3 * 2**20
"""Outcomes of transactions that were in the pool."""
REFUSALS_MAX = 2**20
"""Outcomes of transactions that never were; apart, so that a flood of them hides nothing else."""
QUARANTINE_MAX = 4_096
"""Hashes that the serial arm refused and that are not taken again; the oldest is forgotten."""
ROW_BYTES = pending_rows.PER_ROW_BYTES + 3 * 8 * 4
"""At most, of a transaction in memory: its row, its sender's, and a share of three tables, which
have at most 10/3 entries per row."""


class PoolReason(IntEnum):
    """Why a transaction was taken, refused or left; the numbers are stable."""

    ACCEPTED = pending.ACCEPTED
    DUPLICATE = pending.DUPLICATE
    """it waits already; as good as accepted"""

    MALFORMED = 10
    """version, kind or reserved bytes that no payload can carry"""
    WRONG_CHAIN = 11
    EXPIRED = 12
    """valid_until is below the next height"""
    FEE_BELOW_MINIMUM = 13
    SIGNATURE = 14
    QUARANTINED = 15
    """the serial arm refused a block because of it"""
    UNKNOWN_SENDER = 16
    RECIPIENT_BELOW_MINIMUM = 17
    """the recipient has no account, and the amount is less than a new one needs"""
    ACCOUNTS_FULL = 18
    """the recipient has no account, and the chain has no room for another one"""
    NONCE_USED = pending.NONCE_USED
    """as a reason to leave: another transaction with the same nonce was included"""
    NONCE_TOO_FAR = pending.NONCE_TOO_FAR
    """more than 4,096 after the account's next nonce"""
    INSUFFICIENT_BALANCE = pending.INSUFFICIENT
    """the account cannot pay it beside what the sender has in the pool already"""
    TOO_MANY_PARKED = pending.PARKED_FULL
    """64 of the sender's wait beyond a gap in the nonces"""
    FEE_BUMP_TOO_LOW = pending.FEE_BUMP
    """another with the same nonce waits; to replace it, pay 110 % of its fee"""
    NO_ACCOUNT = pending.NO_ACCOUNT
    """the block that created the sender's account was abandoned"""
    POOL_FULL = 30
    """others pay more"""
    REPLACED_BY_FEE = 31
    INCLUDED = 32
    """in a block that is followed; the chain knows more"""

    @property
    def is_taken(self) -> bool:
        """Whether the transaction waits in the pool."""
        return self in (PoolReason.ACCEPTED, PoolReason.DUPLICATE)


class PoolStatus(IntEnum):
    """What is known of a transaction."""

    UNKNOWN = 0
    """nothing: never seen, or so long ago that it is forgotten"""
    PENDING = 1
    INCLUDED = 2
    FINALIZED = 3
    REJECTED = 4
    """never was in the pool"""
    REPLACED = 5
    """another with its nonce took its place, in the pool or in a block"""
    DROPPED = 6
    EXPIRED = 7


def status_of_leaving(reason: int) -> PoolStatus:
    """Return the status of a transaction that left the pool for a reason."""
    if reason in (PoolReason.NONCE_USED, PoolReason.REPLACED_BY_FEE):
        return PoolStatus.REPLACED
    return PoolStatus.EXPIRED if reason == PoolReason.EXPIRED else PoolStatus.DROPPED


def room_for_accounts(accounts_max: int, count: int) -> int:
    """Return how many accounts a payload may create where so many exist.

    One is left over for the fee recipient.
    """
    return max(accounts_max - count - 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAnswer:
    """What the pool knows of a transaction hash."""

    status: PoolStatus
    reason: PoolReason = PoolReason.ACCEPTED
    """of a status that is not PENDING"""
    at_ms: int = 0
    """when it came to that; 0 for PENDING and UNKNOWN"""
    is_parked: bool = False
    """PENDING, but an earlier nonce is missing"""
    covered_from_ms: int = 0
    """outcomes from this time on are known, earlier ones may be forgotten: at the latest when the
    node started"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How much a pool holds; memory is taken as it fills."""

    transactions: int = TRANSACTIONS_MAX
    bytes: int = TRANSACTIONS_MAX * ROW_BYTES
    """memory of what waits, at most; the lower of both limits counts"""
    outcomes: int = OUTCOMES_MAX
    refusals: int = REFUSALS_MAX

    @property
    def rows(self) -> int:
        """Transactions that may wait."""
        return max(1, min(self.transactions, self.bytes // ROW_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounts:
    """How full a pool is."""

    pending: int
    """transactions that wait, parked ones included"""
    parked: int
    """of these, those beyond a gap in the nonces"""
    senders: int
    pending_max: int
    outcomes: int
    resident_bytes_max: int
    """memory of all arrays if every page of them were written"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checked:
    """Records after the checks that need no state; n of them."""

    words: U64
    """(n, 24) uint64: the records, read-only"""
    hashes: U8
    """(n, 32) uint8, read-only"""
    senders: U8
    """(n, 32) uint8"""
    recipients: U8
    """(n, 32) uint8"""
    codes: U8
    """(n,) uint8: PoolReason so far; ACCEPTED goes on"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccountsRead:
    """Accounts of n keys at the pool's head."""

    exists: NDArray[np.bool_]
    balances: U64
    nonces: U64

    def followed_by(self, others: "AccountsRead") -> "AccountsRead":
        """Return these accounts and then the others."""
        return AccountsRead(
            exists=np.concatenate([self.exists, others.exists]),
            balances=np.concatenate([self.balances, others.balances]),
            nonces=np.concatenate([self.nonces, others.nonces]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Move:
    """How the followed head moved, and what the accounts are there."""

    height: int
    """of the new head"""
    included: U8
    """(n, 32) uint8: hashes of the transactions in blocks that are followed now"""
    returned: U8
    """(m, 192) uint8: records of blocks that are followed no more, in canonical order"""
    keys: U8
    """(k, 32) uint8: every account that these blocks changed, and more do no harm"""
    accounts: AccountsRead
    """of `keys`, at the new head"""
    returned_accounts: AccountsRead
    """of the senders of `returned`, at the new head"""
    returned_hashes: U8
    """(m, 32) uint8"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolNews:
    """What a listener is told, once, after the pool changed."""

    status: PoolStatus
    hashes: U8
    """(n, 32) uint8"""
    reasons: U8
    """(n,) uint8: PoolReason"""
