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
from engine.errors import GenesisError
from engine.genesis import Genesis, Parameters, genesis_bytes, make_genesis
from engine.store.disk import write_file
from engine.store.errors import StoreError, damaged

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
    """Return the genesis whose hash this is; raises StoreDamaged."""
    path = folder / CANONICAL_NAME
    data = _read(path)
    if derive_key(constants.GENESIS_CONTEXT, data) != genesis_hash:
        raise damaged(path, 0, "its hash is not that of this home's chain", _TO_DO)
    raw = np.frombuffer(_read(folder / ACCOUNTS_NAME), np.uint8)
    try:
        genesis = _decode(data, raw)
    except (GenesisError, struct.error, ValueError, IndexError) as error:
        raise damaged(folder / ACCOUNTS_NAME, 0, str(error), _TO_DO) from error
    if genesis_bytes(genesis) != data:
        why = "the accounts are not those of the genesis beside them"
        raise damaged(folder / ACCOUNTS_NAME, 0, why, _TO_DO)
    return genesis


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(
            "store.genesis_missing",
            what="a file of the genesis is missing",
            where=str(path),
            why="a home keeps a copy of its chain's genesis",
            what_to_do=_TO_DO,
        ) from error


def _decode(data: bytes, raw: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> Genesis:
    """Return the genesis in canonical bytes and rows of accounts; checked by the caller."""
    version, chain_id, timestamp_ms, account_minimum, accounts_max, fee_minimum, _, _ = (
        _HEAD.unpack_from(data)
    )
    start = _HEAD.size + constants.HASH_BYTES
    names = [field.name for field in fields(Parameters)]
    values = struct.unpack_from(f"<{len(names)}Q", data, start)
    start += 8 * len(names)
    texts = []
    for _ in range(2):
        length = data[start]
        texts.append(data[start + 1 : start + 1 + length].decode("ascii"))
        start += _TEXT_BYTES
    decimals, set_count = struct.unpack_from("<QQ", data, start)
    start += 16
    schedule: list[tuple[int, list[tuple[bytes, int]]]] = []
    for _ in range(set_count):
        epoch, members = struct.unpack_from("<QQ", data, start)
        start += 16
        end = start + _MEMBER.size * members
        schedule.append((epoch, list(_MEMBER.iter_unpack(data[start:end]))))
        start = end
    rows = raw.reshape(-1, ACCOUNT_ROW_BYTES)
    balances = np.ascontiguousarray(rows[:, constants.KEY_BYTES :]).view(np.uint64).reshape(-1)
    return make_genesis(
        version=version,
        chain_id=chain_id,
        timestamp_ms=timestamp_ms,
        address_prefix=texts[0],
        symbol=texts[1],
        decimals=decimals,
        account_minimum=account_minimum,
        accounts_max=accounts_max,
        fee_minimum=fee_minimum,
        parameters=Parameters(**dict(zip(names, values, strict=True))),
        validators=schedule[0][1],
        validator_schedule=schedule[1:],
        account_keys=np.ascontiguousarray(rows[:, : constants.KEY_BYTES]),
        account_balances=balances,
    )
