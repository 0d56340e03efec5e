"""What a node answers, as values that become JSON; the client reads the same ones.

Amounts, nonces and `valid_until` are strings of decimal digits, since they may exceed 2^53;
heights, positions and times are numbers. Hashes, memos and signatures are hex digits, addresses
bech32m. What a wallet computes with, or shows beside an amount, is bounded: another node could
answer anything.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.constants import ADDRESS_PREFIX_BYTES_MAX, DECIMALS_MAX
from runtime.decoding import decodable

Digits = Annotated[str, Meta(pattern="^(0|[1-9][0-9]{0,19})$")]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Key = Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$")]
AddressText = Annotated[str, Meta(pattern="^[0-9a-z]{1,128}$")]
Reason = Annotated[str, Meta(pattern="^[A-Z_]*$")]
Height = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ChainId = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Prefix = Annotated[str, Meta(pattern=f"^[a-z][a-z0-9]{{0,{ADDRESS_PREFIX_BYTES_MAX - 1}}}$")]
Symbol = Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9]{0,15}$")]
Decimals = Annotated[int, Meta(ge=0, le=DECIMALS_MAX)]
TransactionState = Literal[
    "pending", "included", "finalized", "rejected", "replaced", "dropped", "expired"
]


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of all answers."""


@decodable
class Error(Answer, frozen=True, kw_only=True):
    """Why there is no answer."""

    code: str
    """stable"""
    what: str
    """what is wrong, a sentence"""
    what_to_do: str


class BlockName(Answer, frozen=True, kw_only=True):
    """A block by both of its names."""

    height: Height
    hash: Hash


@decodable
class Status(Answer, frozen=True, kw_only=True):
    """The chain, its rules, and where this node stands."""

    chain_id: ChainId
    genesis_hash: Hash
    address_prefix: Prefix
    symbol: Symbol
    decimals: Decimals
    account_minimum: Digits
    fee_minimum: Digits
    head: BlockName
    safe: BlockName
    finalized: BlockName
    pending_count: int
    """transactions that wait for a block"""
    degraded: str
    """why the node is slower than it should be; empty normally"""
    software: str


@decodable
class Account(Answer, frozen=True, kw_only=True):
    """An account at a followed block."""

    address: AddressText
    exists: bool
    """an account exists from its first credit on; balance and nonce are 0 before"""
    slot: int | None
    balance: Digits
    spendable: Digits
    """balance less the reserve"""
    nonce: Digits
    """transactions of this account so far"""
    next_nonce: Digits | None = None
    """what to sign next, after the transactions that wait; at the head alone"""
    at: Literal["finalized", "safe", "head"]
    block: BlockName
    proof: dict[str, Any] | UnsetType = UNSET
    """of `slot`, `balance` and `nonce`, if it was asked for; see spec/proofs.md"""


class Transaction(Answer, frozen=True, kw_only=True):
    """The fields of a signed transaction."""

    sender: AddressText
    recipient: AddressText
    amount: Digits
    fee: Digits
    nonce: Digits
    valid_until: Digits
    """last height at which it may be included"""
    memo: Hex = "00" * 16
    signature: Hex


@decodable
class Receipt(Answer, frozen=True, kw_only=True):
    """What an included transaction came to."""

    transaction_hash: Hash
    status: Literal["SUCCESS", "INSUFFICIENT_BALANCE", "BELOW_ACCOUNT_MINIMUM"]
    kind: int
    units: int
    fee_charged: Digits
    block: BlockName
    position: int
    is_final: bool


@decodable
class TransactionAnswer(Answer, frozen=True, kw_only=True):
    """Where a transaction is on its way."""

    hash: Hash
    state: TransactionState
    reason: Reason
    """why it is where it is: of the pool, or the receipt's status; empty if all is well"""
    transaction: Transaction | None
    receipt: Receipt | None
    proof: dict[str, Any] | UnsetType = UNSET
    """that it stands in its block, if it was asked for; see spec/proofs.md"""


class HistoryEntry(Answer, frozen=True, kw_only=True):
    """A final transaction of an account."""

    hash: Hash
    transaction: Transaction
    receipt: Receipt


@decodable
class History(Answer, frozen=True, kw_only=True):
    """A page of an account's final transactions, newest first."""

    address: AddressText
    transactions: list[HistoryEntry]
    before: Digits | None
    """what to ask the next page with; null on the last one"""


@decodable
class Block(Answer, frozen=True, kw_only=True):
    """A block's header."""

    height: int
    hash: Hash
    is_final: bool
    version: int
    chain_id: int
    epoch: int
    parent_hash: Hash
    timestamp_ms: int
    proposer: Key
    fee_recipient: AddressText
    validator_set_id: Hash
    payload_commitment: Hash
    payload_bytes: int
    transaction_count: int
    transactions_root: Hash
    state_hash: Hash
    receipts_hash: Hash
    system_hash: Hash
    next_validator_set_hash: Hash


class Accepted(Answer, frozen=True, kw_only=True):
    """A transaction waits for a block."""

    hash: Hash
    state: Literal["pending"]


class HeadEvent(Answer, frozen=True, kw_only=True):
    """Another block is followed; it may still be given up."""

    height: int
    hash: Hash
    parent_hash: Hash
    transaction_count: int


class FinalizedEvent(Answer, frozen=True, kw_only=True):
    """A block is irreversible."""

    height: int
    hash: Hash


class AccountEvent(Answer, frozen=True, kw_only=True):
    """An account that was asked for, at a finalized block; sent at first and when it changes."""

    address: AddressText
    balance: Digits
    nonce: Digits
    block: BlockName


class GapEvent(Answer, frozen=True, kw_only=True):
    """Events were missed: read the state again."""

    missed_count: int | None
    """null where it is not known, after a restart"""
    what_to_do: str
