"""A genesis for a new network of known validators: written as JSON, its accounts beside it.

Accounts are those of development (`engine/dev.py`): rich, worth nothing, their keys known to
everybody. Reading it again is `engine/genesis_file.py`, which also checks what is written here.
"""

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine import constants
from engine.address import encode_address
from engine.dev import ACCOUNT_MINIMUM, BALANCE, FEE_MINIMUM, dev_key
from engine.errors import GenesisError
from engine.genesis import Genesis, Parameters, accounts_hash, genesis_error
from engine.genesis_file import JSON_BYTES_MAX, parse_genesis

CHAIN_ID = 31_338
ACCOUNTS_MAX = 10**7
SYMBOL = "TOS"

NETWORK = Parameters(
    heights_per_epoch=1_000,
    delta_ms=150,
    # Four validators of a development network share a machine with few cores, and all of them
    # execute the same block at the same time.
    execute_max_ms=2_000,
    transfer_max_ms=1_000,
    block_interval_ms=400,
    idle_interval_ms=500,
    retransmit_interval_ms=500,
    unfinalized_max=8,
    payload_bytes_max=20_000_000,
    transactions_max=100_000,
    objects_max=100_000,
    drift_ms=5_000,
    evidence_window_epochs=100,
)
"""What a new network agrees on unless it is told otherwise."""


def write_new_genesis(
    out: Path,
    *,
    chain_id: int,
    timestamp_ms: int,
    parameters: Parameters,
    validators: Any,
    schedule: Any,
    accounts: int,
) -> Genesis:
    """Write a genesis to a file that does not exist yet, and return it.

    validators: [{public_key, power}]; schedule: [{epoch, validators}], as the JSON has them. More
    accounts than the JSON may list go to an Arrow file beside it. Raises GenesisError, OSError.
    """
    assert 1 <= accounts <= ACCOUNTS_MAX, accounts
    file = out.with_name(f"{out.stem}-accounts.arrow")
    has_file = accounts > constants.GENESIS_INLINE_ACCOUNTS_MAX
    # The accounts of a genesis that was moved away may be left: nobody could make them again.
    for path in (out, file) if has_file else (out,):
        if path.exists():
            raise genesis_error(
                "exists", str(path), "there is a file already", "a genesis is never overwritten",
                "choose another --out, or move the file away",
            )  # fmt: skip
    document: dict[str, Any] = {
        "version": constants.GENESIS_VERSION,
        "chain_id": chain_id,
        "timestamp_ms": timestamp_ms,
        "address_prefix": constants.ADDRESS_PREFIX_DEFAULT,
        "symbol": SYMBOL,
        "decimals": 9,
        "account_minimum": ACCOUNT_MINIMUM,
        "fee_minimum": FEE_MINIMUM,
        "parameters": asdict(parameters),
        "validators": validators,
        "validator_schedule": schedule,
    }
    balance = min(BALANCE, constants.SUPPLY_MAX // accounts)
    keys = [dev_key(number).public_key for number in range(accounts)]
    if not has_file:
        prefix = constants.ADDRESS_PREFIX_DEFAULT
        document["accounts"] = [
            {"address": encode_address(key, prefix), "balance": balance} for key in keys
        ]
    else:
        document["accounts_file"] = file.name
        document["accounts_hash"] = _write_accounts(file, keys, balance).hex()
    try:
        data = json.dumps(document, indent=2).encode() + b"\n"
        genesis = parse_genesis(data, out.parent)
        part = out.with_name(f"{out.name}.{secrets.token_hex(4)}.part")
        part.write_bytes(data)
        part.replace(out)
    except BaseException:
        if has_file:
            file.unlink()
        raise
    return genesis


def read_list(path: Path) -> Any:
    """Return the JSON list in a file; raises GenesisError. What it holds is checked later."""
    with path.open("rb") as file:
        data = file.read(JSON_BYTES_MAX + 1)
    try:
        found = json.loads(data) if len(data) <= JSON_BYTES_MAX else None
    except (ValueError, RecursionError) as error:
        raise _no_list(path, str(error)) from error
    if not isinstance(found, list):
        raise _no_list(path, "a list in brackets is wanted")
    return found


def _write_accounts(path: Path, keys: list[bytes], balance: int) -> bytes:
    """Write accounts to an Arrow file, and return their hash."""
    ordered = sorted(keys)
    rows = np.frombuffer(b"".join(ordered), np.uint8).reshape(-1, constants.KEY_BYTES)
    balances = np.full(len(ordered), balance, np.uint64)
    table = pa.table(
        {
            "key": pa.array(ordered, pa.binary(constants.KEY_BYTES)),
            "balance": pa.array(balances, pa.uint64()),
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return accounts_hash(rows, balances)


def _no_list(path: Path, why: str) -> GenesisError:
    return genesis_error(
        "list", str(path), "the file holds no list of JSON objects", why,
        "write [{\"public_key\": \"0x...\", \"power\": 1}] or, for a schedule, "
        "[{\"epoch\": 2, \"validators\": [...]}]",
    )  # fmt: skip
