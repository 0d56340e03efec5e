"""Read a genesis from JSON, strictly: what is misspelt, doubled or inexact is refused.

Names and types are looked at here, meaning in `engine/genesis.py`. The JSON is for people: its
order, spacing and form of addresses do not reach the genesis hash. Spec: spec/genesis.md#json.
"""

import difflib
import json
import re
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import pyarrow as pa

from engine import constants
from engine.address import decode_address, is_prefix
from engine.errors import AddressError, GenesisError
from engine.genesis import Genesis, Parameters, accounts_hash, genesis_error, make_genesis
from kernels.layout import U8, U64
from runtime.decoding import decodable

JSON_BYTES_MAX = 2**24
"""Of the JSON itself; accounts beyond that stand in a file of their own."""
_DECIMAL = re.compile("0|[1-9][0-9]{0,19}")
_HASH = re.compile("(?:0x)?([0-9a-fA-F]{64})")
_ARROW_COLUMNS = [("key", pa.binary(constants.KEY_BYTES)), ("balance", pa.uint64())]


class _Validator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    public_key: str
    power: int


class _ScheduledSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    epoch: int
    validators: list[_Validator]


class _Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str
    balance: int | str


@decodable
class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    chain_id: int
    timestamp_ms: int
    address_prefix: str = constants.ADDRESS_PREFIX_DEFAULT
    symbol: str = "TOS"
    decimals: int = 9
    account_minimum: int
    accounts_max: int = constants.ACCOUNT_COUNT_MAX
    fee_minimum: int
    parameters: Parameters
    validators: list[_Validator]
    validator_schedule: list[_ScheduledSet] = []
    accounts: list[_Account] | None = None
    accounts_file: str | None = None
    accounts_hash: str | None = None


_NESTED: dict[type, dict[str, type]] = {
    _File: {
        "parameters": Parameters,
        "validators": _Validator,
        "validator_schedule": _ScheduledSet,
        "accounts": _Account,
    },
    _ScheduledSet: {"validators": _Validator},
}
"""Which fields hold objects, or lists of objects, that have names of their own."""


def load_genesis(path: Path) -> Genesis:
    """Read a genesis file; `accounts_file` is looked for beside it.

    Raises GenesisError for what it says, OSError if the file itself cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(JSON_BYTES_MAX + 1)
    return parse_genesis(data, path.parent, str(path))


def parse_genesis(data: bytes, folder: Path, name: str = "the genesis file") -> Genesis:
    """Return the genesis in JSON text; `accounts_file` is a path relative to `folder`.

    name: of the text, for errors. Raises GenesisError.
    """
    file = _parse(data, name)
    if not is_prefix(file.address_prefix):
        keys, balances = np.empty((0, constants.KEY_BYTES), np.uint8), np.empty(0, np.uint64)
    else:
        keys, balances = _accounts(file, folder)
    genesis = make_genesis(
        version=file.version,
        chain_id=file.chain_id,
        timestamp_ms=file.timestamp_ms,
        address_prefix=file.address_prefix,
        symbol=file.symbol,
        decimals=file.decimals,
        account_minimum=file.account_minimum,
        accounts_max=file.accounts_max,
        fee_minimum=file.fee_minimum,
        parameters=file.parameters,
        validators=_validators("$.validators", file.validators, file.address_prefix),
        validator_schedule=[
            (
                entry.epoch,
                _validators(
                    f"$.validator_schedule[{index}].validators",
                    entry.validators,
                    file.address_prefix,
                ),
            )
            for index, entry in enumerate(file.validator_schedule)
        ],
        account_keys=keys,
        account_balances=balances,
    )
    _check_accounts_hash(file, accounts_hash(genesis.account_keys, genesis.account_balances))
    return genesis


def _parse(data: bytes, name: str) -> _File:
    """Return the JSON with its names and types checked."""
    if len(data) > JSON_BYTES_MAX:
        raise genesis_error(
            "size",
            name,
            f"the JSON has more than {JSON_BYTES_MAX} bytes",
            "a genesis lists few accounts itself",
            "put the accounts into an accounts_file",
        )
    try:
        raw = json.loads(
            data,
            object_pairs_hook=_object,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
        # Half of a surrogate pair is JSON, and no text that could be hashed, looked for or told.
        json.dumps(raw, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise genesis_error(
            "json", name, "this is not JSON", str(error), "correct the file there"
        ) from error
    _check_names(raw, _File, "$")
    try:
        return msgspec.convert(raw, _File, strict=True)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        raise genesis_error(
            "field",
            place.strip("`") or name,
            "a field is missing or has another type",
            message,
            "compare the field with spec/genesis.md",
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, or raise GenesisError if a name stands in it twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise genesis_error(
                "duplicate_field",
                name,
                f"the field {name!r} stands twice in one object",
                "readers of JSON differ in which one they take",
                "remove one of the two",
            )
        found[name] = value
    return found


def _refuse_number(text: str) -> NoReturn:
    """Raise GenesisError: every number of a genesis is an integer."""
    raise genesis_error(
        "number",
        text,
        f"{text} is not written as an integer",
        "nothing that a chain agrees on may depend on rounding",
        "write all digits, without a point or an exponent",
    )


def _check_names(value: Any, kind: type, where: str) -> None:
    """Raise GenesisError for a name that an object does not have, and say which was meant."""
    if not isinstance(value, dict):
        return
    names = list(kind.__annotations__)
    for name, inner in value.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(names)}"
            raise genesis_error(
                "unknown_field",
                f"{where}.{name}",
                f"there is no field {name!r}",
                "a misspelt field would silently keep its default",
                hint,
            )
        nested = _NESTED.get(kind, {}).get(name)
        if nested is not None and isinstance(inner, list):
            for index, item in enumerate(inner):
                _check_names(item, nested, f"{where}.{name}[{index}]")
        elif nested is not None:
            _check_names(inner, nested, f"{where}.{name}")


def _key(text: str, prefix: str, where: str) -> bytes:
    """Return the key that a text names, or raise GenesisError with the address's own reason."""
    try:
        return decode_address(text, prefix)
    except AddressError as error:
        raise GenesisError(
            f"genesis.{error.code}",
            what=error.what,
            where=f"{where}: {error.where}",
            why=error.why,
            what_to_do=error.what_to_do,
        ) from error


def _validators(where: str, validators: list[_Validator], prefix: str) -> list[tuple[bytes, int]]:
    """Return (key, power) of each validator. An unusable prefix is reported by make_genesis."""
    if not is_prefix(prefix):
        return []
    return [
        (_key(validator.public_key, prefix, f"{where}[{index}].public_key"), validator.power)
        for index, validator in enumerate(validators)
    ]


def _accounts(file: _File, folder: Path) -> tuple[U8, U64]:
    """Return keys (n, 32) uint8 and balances (n,) uint64, from the JSON or from its file."""
    if (file.accounts is None) == (file.accounts_file is None):
        raise genesis_error(
            "accounts",
            "$.accounts",
            "the opening accounts stand in no place, or in two",
            "either `accounts` lists them or `accounts_file` names a file",
            "keep exactly one of the two fields",
        )
    if file.accounts_file is not None:
        return _read_accounts_file(folder / file.accounts_file)
    accounts = file.accounts or []
    if len(accounts) > constants.GENESIS_INLINE_ACCOUNTS_MAX:
        raise genesis_error(
            "inline_accounts",
            "$.accounts",
            f"{len(accounts)} accounts are listed in the JSON itself",
            f"up to {constants.GENESIS_INLINE_ACCOUNTS_MAX} may be",
            "write them to an Arrow file and name it in accounts_file, with its accounts_hash",
        )
    keys = b"".join(
        _key(account.address, file.address_prefix, f"$.accounts[{index}].address")
        for index, account in enumerate(accounts)
    )
    balances = [
        _balance(account.balance, f"$.accounts[{index}].balance")
        for index, account in enumerate(accounts)
    ]
    shape = (len(accounts), constants.KEY_BYTES)
    return np.frombuffer(keys, np.uint8).reshape(shape), np.array(balances, np.uint64)


def _balance(balance: int | str, where: str) -> int:
    """Return a balance in base units, or raise GenesisError."""
    if isinstance(balance, str) and _DECIMAL.fullmatch(balance):
        balance = int(balance)
    if isinstance(balance, str) or not 0 <= balance <= constants.SUPPLY_MAX:
        raise genesis_error(
            "balance",
            where,
            f"{balance!r} is not a balance",
            f"a balance is a count of base units, 0 to {constants.SUPPLY_MAX}",
            "write an integer, or its decimal digits as a string",
        )
    return balance


def _read_accounts_file(path: Path) -> tuple[U8, U64]:
    """Return keys and balances from an Arrow IPC file, its rows in any order, copied."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            table.validate()
            _check_accounts_schema(table, path)
            keys = _values(table.column("key"), constants.KEY_BYTES)
            balances = _values(table.column("balance"), 8)
    except (pa.ArrowException, OSError) as error:
        raise genesis_error(
            "accounts_file",
            str(path),
            "the file of the opening accounts cannot be read",
            str(error),
            "put an Arrow IPC file there; a relative path begins at the genesis file",
        ) from error
    return keys.reshape(-1, constants.KEY_BYTES), balances.view(np.uint64)


def _check_accounts_schema(table: Any, path: Path) -> None:
    """Raise GenesisError unless the table has exactly the two columns, without nulls."""
    nulls = sum(column.null_count for column in table.columns)
    if [(field.name, field.type) for field in table.schema] == _ARROW_COLUMNS and not nulls:
        return
    columns = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
    raise genesis_error(
        "accounts_columns",
        str(path),
        f"its columns are {columns}, with {nulls} nulls",
        "they must be key: fixed_size_binary[32] and balance: uint64, without nulls",
        "write the file again with these two columns",
    )


def _values(column: Any, width: int) -> U8:
    """Return a copy of the bytes of a column whose elements have `width` bytes."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[
            chunk.offset * width : (chunk.offset + len(chunk)) * width
        ]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def _check_accounts_hash(file: _File, actual: bytes) -> None:
    """Raise GenesisError unless accounts_hash, needed beside accounts_file, is the actual one."""
    if file.accounts_hash is None and file.accounts_file is None:
        return
    match = _HASH.fullmatch(file.accounts_hash or "")
    if match is None or bytes.fromhex(match[1]) != actual:
        raise genesis_error(
            "accounts_hash",
            "$.accounts_hash",
            f"the hash is {file.accounts_hash!r}, and that of the accounts is {actual.hex()!r}",
            "the hash binds the accounts to this file, since they stand in another one",
            "find out whether the accounts are the right ones, then correct the hash",
        )
