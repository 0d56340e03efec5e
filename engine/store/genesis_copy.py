"""A chain's genesis as a home keeps it: the canonical bytes and the opening accounts, checked.

The canonical bytes hash to the genesis hash and contain the hash of the accounts, so a damaged copy
is always noticed. Spec: spec/genesis.md#canonical-bytes, spec/storage.md#genesis.
"""

import struct
from dataclasses import fields
from pathlib import Path

import numpy as np

from engine import constants
from engine.constants import derive_key
from engine.genesis import Genesis, Parameters, ScheduledSet, Validator, genesis_bytes
from engine.store.errors import StoreError, damaged
from engine.types import Amount, Epoch, Hash32, PublicKey, TimestampMs
from kernels.layout import U8
from runtime.durable import write_file

CANONICAL_NAME = "genesis.bin"
ACCOUNTS_NAME = "accounts.bin"
ACCOUNT_ROW_BYTES = constants.KEY_BYTES + 8
_HEAD = struct.Struct("<II6Q")
_MEMBER = struct.Struct("<32sQ")
_TEXT_BYTES = 17
_TO_DO = "copy the folder genesis from another home of this chain, or run init in an empty home"


def write_genesis(folder: Path, genesis: Genesis) -> None:
    """Write both files; they are durable afterwards."""
    rows = np.empty((len(genesis.account_keys), ACCOUNT_ROW_BYTES), np.uint8)
    rows[:, : constants.KEY_BYTES] = genesis.account_keys
    rows[:, constants.KEY_BYTES :] = genesis.account_balances.view(np.uint8).reshape(-1, 8)
    write_file(folder / ACCOUNTS_NAME, [rows.reshape(-1).data])
    write_file(folder / CANONICAL_NAME, [genesis_bytes(genesis)])


def read_genesis(folder: Path, genesis_hash: bytes) -> Genesis:
    """Return the genesis whose hash this is, its accounts mapped from the file.

    Bytes that have the hash are those that `make_genesis` once checked, so only hashes are
    compared here. Raises StoreDamaged, StoreError.
    """
    path = folder / CANONICAL_NAME
    data = _read(path)
    if derive_key(constants.GENESIS_CONTEXT, data) != genesis_hash:
        raise damaged(path, 0, "its hash is not that of this home's chain", _TO_DO)
    raw = _map(folder / ACCOUNTS_NAME)
    genesis = _decode(data, raw)
    assert genesis_bytes(genesis) == data, "canonical bytes have one form"
    if derive_key(constants.GENESIS_ACCOUNTS_CONTEXT, raw.data) != genesis.accounts_hash:
        why = "the accounts are not those of the genesis beside them"
        raise damaged(folder / ACCOUNTS_NAME, 0, why, _TO_DO)
    return genesis


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _missing(path) from error


def _missing(path: Path) -> StoreError:
    return StoreError(
        "store.genesis_missing",
        what="a file of the genesis is missing",
        where=str(path),
        why="a home keeps a copy of its chain's genesis",
        what_to_do=_TO_DO,
    )


def _map(path: Path) -> U8:
    """Return the bytes of a file, mapped and read-only."""
    try:
        if not path.stat().st_size:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, "r").view(np.ndarray)
    except FileNotFoundError as error:
        raise _missing(path) from error


def _decode(data: bytes, raw: U8) -> Genesis:
    """Return the genesis in canonical bytes that have the right hash, and in rows of accounts."""
    numbers = _HEAD.unpack_from(data)
    version, chain_id, timestamp_ms, account_minimum, accounts_max, fee_minimum, supply, _ = numbers
    start = _HEAD.size + constants.HASH_BYTES
    accounts_hash = data[_HEAD.size : start]
    names = [field.name for field in fields(Parameters)]
    values = struct.unpack_from(f"<{len(names)}Q", data, start)
    start += 8 * len(names)
    texts = []
    for _ in range(2):
        length = data[start]
        texts.append(data[start + 1 : start + 1 + length].decode("ascii"))
        start += _TEXT_BYTES
    (decimals,) = struct.unpack_from("<Q", data, start)
    rows = raw[: len(raw) // ACCOUNT_ROW_BYTES * ACCOUNT_ROW_BYTES].reshape(-1, ACCOUNT_ROW_BYTES)
    return Genesis(
        version=version,
        chain_id=chain_id,
        timestamp_ms=TimestampMs(timestamp_ms),
        address_prefix=texts[0],
        symbol=texts[1],
        decimals=decimals,
        account_minimum=Amount(account_minimum),
        accounts_max=accounts_max,
        fee_minimum=Amount(fee_minimum),
        parameters=Parameters(**dict(zip(names, values, strict=True))),
        schedule=_schedule(data, start + 8),
        account_keys=rows[:, : constants.KEY_BYTES],
        account_balances=rows[:, constants.KEY_BYTES :].view(np.uint64)[:, 0],
        accounts_hash=Hash32(accounts_hash),
        supply=Amount(supply),
    )


def _schedule(data: bytes, start: int) -> tuple[ScheduledSet, ...]:
    """Return the validator sets that stand from `start` on."""
    (count,) = struct.unpack_from("<Q", data, start)
    start += 8
    sets = []
    for _ in range(count):
        epoch, members = struct.unpack_from("<QQ", data, start)
        end = start + 16 + _MEMBER.size * members
        pairs = _MEMBER.iter_unpack(data[start + 16 : end])
        validators = tuple(Validator(PublicKey(key), power) for key, power in pairs)
        sets.append(ScheduledSet(Epoch(epoch), validators))
        start = end
    return tuple(sets)
