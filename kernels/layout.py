"""The shapes that every kernel shares: account records, transaction columns, codes.

An account record is 64 bytes, eight little-endian 64-bit words: four of key, balance, nonce, two
reserved (zero). Records stand in one dense array indexed by account slot.
Spec: spec/state_hash.md#records, spec/transaction.md#layout.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]

KEY_WORDS = 4
"""64-bit words of an account key (32 bytes)."""
ACCOUNT_WORDS = 8
"""64-bit words of an account record (64 bytes)."""
BALANCE_WORD = 4
NONCE_WORD = 5

NO_SLOT = 0xFFFF_FFFF
"""Answer of a lookup for a key without an account; never a slot, since slots end below 2^32 - 2."""

SUCCESS = 0
INSUFFICIENT_BALANCE = 1
BELOW_ACCOUNT_MINIMUM = 2

# Defects of a transaction, in the order in which they are looked for (spec/block.md#checks).
NO_DEFECT = 0
TRANSACTION_VERSION = 1
TRANSACTION_KIND = 2
CHAIN_ID = 3
EXPIRED = 4
LANE_SPLITTABLE = 5
UNKNOWN_SENDER = 6
LANE_MERGEABLE = 7
NONCE = 8
FEE_BELOW_MINIMUM = 9
FEE_ABOVE_SPENDABLE = 10
SIGNATURE = 11


class Columns(NamedTuple):
    """A batch of transactions, one C-contiguous array per field, all of one length n.

    Integers are little-endian and stand in native order. The record's reserved fields have no
    column: they are zero in every transaction that a payload can carry.
    """

    version: U8
    """(n,) uint8"""
    kind: U8
    """(n,) uint8"""
    chain_id: U32
    """(n,) uint32"""
    nonce: U64
    """(n,) uint64"""
    valid_until: U64
    """(n,) uint64, block height"""
    amount: U64
    """(n,) uint64, base units"""
    fee: U64
    """(n,) uint64, base units"""
    memo: U8
    """(n, 16) uint8"""
    sender: U8
    """(n, 32) uint8, Ed25519 public key"""
    recipient: U8
    """(n, 32) uint8"""
    signature: U8
    """(n, 64) uint8"""


class Rules(NamedTuple):
    """What a lane walk needs to know of the chain and of the block."""

    chain_id: int
    height: int
    fee_minimum: int
    """base units"""
    account_minimum: int
    """base units; the reserve of every account"""
    accounts_max: int


class Walk(NamedTuple):
    """What the lanes of a batch come to, before anything is written."""

    statuses: U8
    """(n,) uint8: SUCCESS, INSUFFICIENT_BALANCE or BELOW_ACCOUNT_MINIMUM"""
    sender_balances: U64
    """(lane_count,) uint64: balance of each lane's sender after its own lane"""
    sender_nonces: U64
    """(lane_count,) uint64: nonce of each lane's sender after its own lane"""
    fee_total: int
    """sum of all fees, below 2^63"""
    defect_index: int
    """position of the first transaction that may not be included, or n; nothing else counts then"""
    defect: int
    """its first defect (codes above), or NO_DEFECT"""


class Changes(NamedTuple):
    """A write set: what a batch changed, with the values that it replaced.

    m changed slots ascending, without repetition; created accounts hold slots
    [count_before, count_after) and count as balance 0, nonce 0 before.
    """

    slots: U32
    """(m,) uint32"""
    balances_before: U64
    """(m,) uint64, base units"""
    balances_after: U64
    """(m,) uint64, base units"""
    nonces_before: U64
    """(m,) uint64"""
    nonces_after: U64
    """(m,) uint64"""
    created_keys: U8
    """(count_after - count_before, 32) uint8"""
    count_before: int
    count_after: int
