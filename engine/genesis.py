"""Block 0: what a chain is before its first block, and the hash that stands for all of it.

`make_genesis` is the one way to a Genesis and checks everything; `engine/genesis_file.py` reads the
JSON. The canonical bytes have fixed widths and no other form, and two chains that differ in one
parameter have different genesis hashes, hence different signatures. Spec: spec/genesis.md.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from engine import constants
from engine.address import is_prefix
from engine.codec import PayloadLimits, payload_bytes
from engine.constants import derive_key
from engine.errors import GenesisError
from engine.types import Amount, Epoch, Hash32, PublicKey, TimestampMs
from engine_api.parameters import PAYLOAD_BYTES_MIN, objection
from kernels.integers import sum_exact
from kernels.layout import U8, U64
from runtime.keypair import is_public_key

_SYMBOL = re.compile(f"[A-Za-z][A-Za-z0-9]{{0,{constants.SYMBOL_BYTES_MAX - 1}}}")
_TEXT_BYTES = 1 + 16
assert _TEXT_BYTES == 1 + constants.SYMBOL_BYTES_MAX == 1 + constants.ADDRESS_PREFIX_BYTES_MAX


class Validator(NamedTuple):
    """A member of a validator set."""

    public_key: PublicKey
    power: int
    """weight of its vote, 1 or more"""


class ScheduledSet(NamedTuple):
    """The validators from an epoch on, until the next entry."""

    epoch: Epoch
    validators: tuple[Validator, ...]
    """ascending by key"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What the network agrees on beyond amounts, in order; see `engine_api.parameters`."""

    heights_per_epoch: int
    delta_ms: int
    """assumed bound on the delay of a message"""
    execute_max_ms: int
    """assumed bound on executing the largest payload"""
    transfer_max_ms: int
    """assumed bound on transferring the largest payload"""
    block_interval_ms: int = 400
    idle_interval_ms: int = 500
    """between blocks without transactions"""
    retransmit_interval_ms: int
    unfinalized_max: int = 8
    """blocks beyond the finalized one that an executor follows"""
    payload_bytes_max: int = 2**26
    transactions_max: int = 2**18
    objects_max: int = 2**18
    drift_ms: int = 5_000
    """how far a header's timestamp may be ahead of a validator's clock"""
    evidence_window_epochs: int
    """how long misbehaviour can be proven"""

    @property
    def limits(self) -> PayloadLimits:
        """The largest payload."""
        return PayloadLimits(
            bytes=self.payload_bytes_max,
            transactions=self.transactions_max,
            objects=self.objects_max,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Genesis:
    """A chain's beginning; made by `make_genesis`, compared by `genesis_hash`."""

    version: int
    chain_id: int
    timestamp_ms: TimestampMs
    address_prefix: str
    symbol: str
    decimals: int
    account_minimum: Amount
    accounts_max: int
    fee_minimum: Amount
    parameters: Parameters
    schedule: tuple[ScheduledSet, ...]
    """ascending by epoch; the first is that of epoch 0"""
    account_keys: U8
    """(n, 32) uint8, ascending as byte strings, without repetition: row i is account slot i"""
    account_balances: U64
    """(n,) uint64, base units; 0 is legal, and so is less than account_minimum"""
    accounts_hash: Hash32
    supply: Amount
    """sum of the balances, below 2^63"""

    @property
    def accounts(self) -> list[tuple[bytes, int]]:
        """(key, balance) in slot order, as Python values: for tests and small chains."""
        keys = [key.tobytes() for key in self.account_keys]
        return list(zip(keys, self.account_balances.tolist(), strict=True))

    @property
    def validators(self) -> tuple[Validator, ...]:
        """The validators of epoch 0."""
        return self.schedule[0].validators

    def validators_of(self, epoch: int) -> tuple[Validator, ...]:
        """Return the validators of an epoch: those of the last entry that is not after it."""
        assert epoch >= 0, epoch
        return next(entry for entry in reversed(self.schedule) if entry.epoch <= epoch).validators


def genesis_error(code: str, where: str, what: str, why: str, what_to_do: str) -> GenesisError:
    """Return an error about the place `where`, a path like `$.parameters.drift_ms`."""
    return GenesisError(f"genesis.{code}", what=what, where=where, why=why, what_to_do=what_to_do)


def make_genesis(
    *,
    chain_id: int,
    timestamp_ms: int,
    account_minimum: int,
    fee_minimum: int,
    parameters: Parameters,
    validators: Sequence[tuple[bytes, int]],
    account_keys: U8,
    account_balances: U64,
    validator_schedule: Sequence[tuple[int, Sequence[tuple[bytes, int]]]] = (),
    accounts_max: int = constants.ACCOUNT_COUNT_MAX,
    address_prefix: str = constants.ADDRESS_PREFIX_DEFAULT,
    symbol: str = "TOS",
    decimals: int = 9,
    version: int = constants.GENESIS_VERSION,
) -> Genesis:
    """Return a checked genesis; accounts, (n, 32) uint8 and (n,) uint64, may come in any order.

    Raises GenesisError with the first thing that is wrong.
    """
    _check_range("$.version", version, constants.GENESIS_VERSION, constants.GENESIS_VERSION)
    _check_range("$.chain_id", chain_id, 1, 2**32 - 1)
    _check_range("$.timestamp_ms", timestamp_ms, 0, 2**63 - 1)
    _check_range("$.account_minimum", account_minimum, 1, constants.SUPPLY_MAX)
    _check_range("$.accounts_max", accounts_max, 1, constants.ACCOUNT_COUNT_MAX)
    _check_range("$.fee_minimum", fee_minimum, 0, constants.SUPPLY_MAX)
    _check_range("$.decimals", decimals, 0, constants.DECIMALS_MAX)
    _check_texts(address_prefix, symbol)
    _check_parameters(parameters)
    keys, balances = _sorted_accounts(account_keys, account_balances, accounts_max)
    return Genesis(
        version=version,
        chain_id=chain_id,
        timestamp_ms=TimestampMs(timestamp_ms),
        address_prefix=address_prefix,
        symbol=symbol,
        decimals=decimals,
        account_minimum=Amount(account_minimum),
        accounts_max=accounts_max,
        fee_minimum=Amount(fee_minimum),
        parameters=parameters,
        schedule=_sorted_schedule(validators, validator_schedule),
        account_keys=keys,
        account_balances=balances,
        accounts_hash=accounts_hash(keys, balances),
        supply=Amount(sum_exact(balances)),
    )


def accounts_hash(keys: U8, balances: U64) -> Hash32:
    """Return the hash of opening accounts, (n, 32) uint8 and (n,) uint64, ascending by key."""
    rows = np.empty((keys.shape[0], constants.KEY_BYTES + 8), np.uint8)
    rows[:, : constants.KEY_BYTES] = keys
    rows[:, constants.KEY_BYTES :] = balances.view(np.uint8).reshape(-1, 8)
    return derive_key(constants.GENESIS_ACCOUNTS_CONTEXT, rows.reshape(-1).data)


def parameters_bytes(parameters: Parameters) -> bytes:
    """Return the parameters as 13 uint64, in the order of the fields."""
    names = [field.name for field in fields(Parameters)]
    return b"".join(getattr(parameters, name).to_bytes(8, "little") for name in names)


def params_hash(parameters: Parameters) -> Hash32:
    """Return the hash by which consensus and executor compare their parameters."""
    return derive_key(constants.PARAMETERS_CONTEXT, parameters_bytes(parameters))


def _set_bytes(validators: Sequence[tuple[bytes, int]]) -> bytes:
    """Return count u64, then key and power u64 of each validator, ascending by key."""
    rows = [key + power.to_bytes(8, "little") for key, power in sorted(validators)]
    return len(rows).to_bytes(8, "little") + b"".join(rows)


def validator_set_id(validators: Sequence[tuple[bytes, int]]) -> Hash32:
    """Return the hash that names a validator set, (key, power) in any order."""
    return derive_key(constants.VALIDATOR_SET_CONTEXT, _set_bytes(validators))


def genesis_bytes(genesis: Genesis) -> bytes:
    """Return the canonical bytes. Spec: spec/genesis.md#canonical-bytes."""
    head = struct.pack(
        "<II6Q",
        genesis.version,
        genesis.chain_id,
        genesis.timestamp_ms,
        genesis.account_minimum,
        genesis.accounts_max,
        genesis.fee_minimum,
        genesis.supply,
        genesis.account_keys.shape[0],
    )
    texts = b"".join(
        bytes([len(text)]) + text.encode("ascii").ljust(_TEXT_BYTES - 1, b"\0")
        for text in (genesis.address_prefix, genesis.symbol)
    )
    sets = b"".join(
        entry.epoch.to_bytes(8, "little") + _set_bytes(entry.validators)
        for entry in genesis.schedule
    )
    counts = struct.pack("<QQ", genesis.decimals, len(genesis.schedule))
    middle = genesis.accounts_hash + parameters_bytes(genesis.parameters)
    return head + middle + texts + counts + sets


def genesis_hash(genesis: Genesis) -> Hash32:
    """Return the hash that stands for the chain; the block hash at height 0."""
    return derive_key(constants.GENESIS_CONTEXT, genesis_bytes(genesis))


def transaction_domain(genesis_hash: bytes) -> Hash32:
    """Return the first 32 bytes of what every transaction of the chain signs."""
    assert len(genesis_hash) == constants.HASH_BYTES, len(genesis_hash)
    return derive_key(constants.TRANSACTION_CONTEXT, genesis_hash)


def _check_range(where: str, value: int, lowest: int, highest: int) -> None:
    """Raise GenesisError unless lowest <= value <= highest."""
    if not lowest <= value <= highest:
        raise genesis_error(
            "range",
            where,
            f"{value} is out of range",
            f"it must be {lowest}" if lowest == highest else f"it must be {lowest} to {highest}",
            "write a number in this range",
        )


def _check_texts(address_prefix: str, symbol: str) -> None:
    """Raise GenesisError unless both texts have their form."""
    if not is_prefix(address_prefix):
        raise genesis_error(
            "prefix",
            "$.address_prefix",
            f"{address_prefix!r} cannot begin addresses",
            "a prefix is a small letter, then up to 15 small letters or digits",
            "choose a short one, for example `tos`",
        )
    if not _SYMBOL.fullmatch(symbol):
        raise genesis_error(
            "symbol",
            "$.symbol",
            f"{symbol!r} cannot be the symbol of the unit",
            "a symbol is a letter, then up to 15 letters or digits, in ASCII",
            "choose a short one, for example `TOS`",
        )


def _check_parameters(parameters: Parameters) -> None:
    """Raise GenesisError for a parameter out of range, or one that another one contradicts."""
    assert payload_bytes(1, 1) == PAYLOAD_BYTES_MIN, "the least payload is one transaction"
    found = objection(asdict(parameters))
    if found is not None:
        where = f"$.parameters.{found.name}"
        raise genesis_error(found.code, where, found.what, found.why, found.what_to_do)


def _sorted_accounts(keys: U8, balances: U64, accounts_max: int) -> tuple[U8, U64]:
    """Return the accounts ascending by key, read-only; raise GenesisError if they cannot be."""
    count = keys.shape[0]
    assert keys.shape == (count, constants.KEY_BYTES), keys.shape
    assert keys.dtype == np.uint8, keys.dtype
    assert balances.shape == (count,), balances.shape
    assert balances.dtype == np.uint64, balances.dtype
    if count > accounts_max:
        raise genesis_error(
            "accounts_exceeded",
            "$.accounts",
            f"{count} accounts are more than the chain may hold",
            f"accounts_max is {accounts_max}",
            "raise accounts_max or leave accounts out",
        )
    words = np.ascontiguousarray(keys).view(">u8")
    order = np.lexsort(tuple(words[:, word] for word in (3, 2, 1, 0)))
    keys, balances = keys[order], balances[order]
    equal = (keys[1:] == keys[:-1]).all(axis=1)
    if equal.any():
        key = keys[int(equal.argmax())].tobytes()
        raise genesis_error(
            "duplicate_account",
            "$.accounts",
            f"the account 0x{key.hex()} is listed twice",
            "each account has one opening balance",
            "keep one of the two, with the sum if both were meant",
        )
    if sum_exact(balances) > constants.SUPPLY_MAX:
        raise genesis_error(
            "supply",
            "$.accounts",
            f"the balances add up to {sum_exact(balances)}",
            f"the supply is at most {constants.SUPPLY_MAX}, so that no sum can wrap",
            "lower the balances, or use fewer decimals",
        )
    keys.flags.writeable = False
    balances.flags.writeable = False
    return keys, balances


def _sorted_schedule(
    validators: Sequence[tuple[bytes, int]],
    schedule: Sequence[tuple[int, Sequence[tuple[bytes, int]]]],
) -> tuple[ScheduledSet, ...]:
    """Return the validator sets ascending by epoch, epoch 0 first, or raise GenesisError."""
    entries = [ScheduledSet(Epoch(0), _sorted_set("$.validators", validators))]
    _check_range("$.validator_schedule", len(schedule), 0, constants.SCHEDULE_COUNT_MAX - 1)
    for index, (epoch, members) in enumerate(schedule):
        where = f"$.validator_schedule[{index}]"
        _check_range(f"{where}.epoch", epoch, 1, 2**63 - 1)
        entries.append(ScheduledSet(Epoch(epoch), _sorted_set(f"{where}.validators", members)))
    entries.sort(key=lambda entry: entry.epoch)
    for entry, following in pairwise(entries):
        if entry.epoch == following.epoch:
            raise genesis_error(
                "duplicate_epoch",
                "$.validator_schedule",
                f"epoch {entry.epoch} has two validator sets",
                "an epoch has one validator set",
                "remove one of the two entries",
            )
    return tuple(entries)


def _sorted_set(where: str, validators: Sequence[tuple[bytes, int]]) -> tuple[Validator, ...]:
    """Return one validator set ascending by key, or raise GenesisError."""
    _check_range(f"{where} (their number)", len(validators), 1, constants.VALIDATOR_COUNT_MAX)
    members = []
    for index, (key, power) in enumerate(validators):
        assert len(key) == constants.KEY_BYTES, len(key)
        _check_validator_key(f"{where}[{index}].public_key", key)
        _check_range(f"{where}[{index}].power", power, 1, constants.SUPPLY_MAX)
        members.append(Validator(PublicKey(key), power))
    members.sort()
    for member, following in pairwise(members):
        if member.public_key == following.public_key:
            raise genesis_error(
                "duplicate_validator",
                where,
                f"the validator 0x{member.public_key.hex()} is listed twice",
                "a validator has one vote, weighed by its power",
                "keep one of the two, with the sum of the powers if both were meant",
            )
    total = sum(member.power for member in members)
    _check_range(f"{where} (sum of power)", total, 1, constants.SUPPLY_MAX)
    return tuple(members)


def _check_validator_key(where: str, key: bytes) -> None:
    """Raise GenesisError unless a validator's key can be one. Spec: spec/signatures.md#keys."""
    if not is_public_key(key):
        raise genesis_error(
            "validator_key",
            where,
            f"0x{key.hex()} cannot be a validator's key",
            "it encodes no point of the prime-order subgroup of Ed25519 (other than 0), or not in "
            "its one canonical form",
            "write the public key as the validator's own node prints it",
        )
