"""A genesis has one hash, whatever its JSON looks like, and says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.address import encode_address
from engine.constants import SUPPLY_MAX
from engine.errors import GenesisError
from engine.genesis import (
    Genesis,
    Parameters,
    genesis_bytes,
    genesis_hash,
    make_genesis,
    params_hash,
    transaction_domain,
    validator_set_id,
)
from engine.genesis_file import load_genesis, parse_genesis
from engine.genesis_new import NETWORK
from runtime.keypair import KeyPair
from spec import oracle

KEY_VECTORS = json.loads(Path(__file__).parents[1].joinpath("vectors", "keys.json").read_text())
NOWHERE = Path("no-such-folder")
KEYS = st.binary(min_size=32, max_size=32)
MEMBERS = KEYS.map(lambda seed: KeyPair.of(seed).public_key)


def key(number: int) -> bytes:
    """Return a key; larger numbers are larger keys."""
    return number.to_bytes(32, "big")


def member(number: int) -> bytes:
    """Return a validator's key, 0 to 9; larger numbers are larger keys."""
    return sorted(KeyPair.of(bytes([seed]) * 32).public_key for seed in range(10))[number]


def example() -> dict[str, Any]:
    """Return a genesis as JSON values."""
    return {
        "version": 1,
        "chain_id": 7,
        "timestamp_ms": 1_700_000_000_000,
        "account_minimum": 10,
        "fee_minimum": 1,
        "parameters": {
            "heights_per_epoch": 100,
            "delta_ms": 200,
            "execute_max_ms": 300,
            "transfer_max_ms": 400,
            "retransmit_interval_ms": 1000,
            "evidence_window_epochs": 4,
        },
        "validators": [
            {"public_key": f"0x{member(9).hex()}", "power": 2},
            {"public_key": encode_address(member(3), "tos"), "power": 1},
        ],
        "validator_schedule": [
            {"epoch": 5, "validators": [{"public_key": f"0x{member(4).hex()}", "power": 1}]}
        ],
        "accounts": [
            {"address": encode_address(key(2), "tos"), "balance": "9007199254740993"},
            {"address": f"0x{key(1).hex()}", "balance": 0},
        ],
    }


def parse(value: Any, folder: Path = NOWHERE) -> Genesis:
    """Return the genesis of JSON values, or of text."""
    text = value if isinstance(value, str) else json.dumps(value)
    return parse_genesis(text.encode(), folder)


def error_of(value: Any, folder: Path = NOWHERE) -> GenesisError:
    """Return the error that a genesis gives."""
    with pytest.raises(GenesisError) as caught:
        parse(value, folder)
    return caught.value


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the example with one value replaced, path like `parameters.drift_ms`."""
    genesis = example()
    *parents, name = path.split(".")
    inner: Any = genesis
    for parent in parents:
        inner = inner[int(parent)] if parent.isdigit() else inner[parent]
    inner[name] = value
    return genesis


def test_example_is_read() -> None:
    """Defaults are filled in, accounts and validators sorted, the supply added up."""
    genesis = parse(example())
    assert genesis.accounts == [(key(1), 0), (key(2), 9007199254740993)]
    assert genesis.supply == 9007199254740993
    assert [validator.public_key for validator in genesis.validators] == [member(3), member(9)]
    assert genesis.validators_of(4) == genesis.validators
    assert genesis.validators_of(5) == genesis.validators_of(99) == ((member(4), 1),)
    parameters = genesis.parameters
    assert (parameters.block_interval_ms, parameters.idle_interval_ms) == (400, 500)
    assert (parameters.unfinalized_max, parameters.drift_ms) == (8, 5000)
    assert parameters.limits.bytes == 2**26
    assert parameters.limits.transactions == parameters.limits.objects == 2**18
    assert (genesis.address_prefix, genesis.accounts_max) == ("tos", 2**32 - 2)
    assert not genesis.account_keys.flags.writeable
    assert not genesis.account_balances.flags.writeable


def test_hash_agrees_with_the_specification() -> None:
    """Canonical bytes and all derived hashes are the oracle's."""
    genesis = parse(example())
    assert genesis_bytes(genesis) == oracle.genesis_bytes(genesis)
    assert genesis_hash(genesis) == oracle.genesis_hash(genesis)
    assert params_hash(genesis.parameters) == oracle.params_hash(genesis.parameters)
    validators = list(genesis.validators)
    assert validator_set_id(validators[::-1]) == oracle.validator_set_id(validators)
    own = genesis_hash(genesis)
    assert transaction_domain(own) == oracle.transaction_domain(own)


def near(bounds: tuple[int, int]) -> st.SearchStrategy[int]:
    """Return numbers around both ends of a range, and small ones in it."""
    lowest, highest = bounds
    ends = [lowest - 1, lowest, lowest + 1, highest - 1, highest, highest + 1]
    small = st.integers(lowest, min(highest, 60_000))
    return st.one_of(small, small, small, st.sampled_from(ends))


@given(st.fixed_dictionaries({name: near(ends) for name, ends in oracle.PARAMETER_BOUNDS.items()}))
def test_legal_parameters_are_those_of_the_specification(values: dict[str, int]) -> None:
    """A genesis is refused for its parameters exactly where the oracle refuses them."""
    genesis = example() | {"parameters": values}
    if oracle.are_legal_parameters(Parameters(**values)):
        parse(genesis)
    else:
        assert error_of(genesis).where.startswith("$.parameters.")


def test_the_parameters_in_use_are_legal() -> None:
    """Those of a new network are, and times at all of their bounds."""
    assert oracle.are_legal_parameters(NETWORK)
    genesis = example()
    genesis["parameters"] |= {
        "execute_max_ms": 75_000, "transfer_max_ms": 148_900, "idle_interval_ms": 500,
        "block_interval_ms": 500, "retransmit_interval_ms": 200, "drift_ms": 3_600_000,
    }  # fmt: skip
    assert oracle.are_legal_parameters(parse(genesis).parameters)


@given(
    st.dictionaries(KEYS, st.integers(0, 2**50), max_size=20),
    st.dictionaries(MEMBERS, st.integers(1, 2**50), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter(
    accounts: dict[bytes, int], validators: dict[bytes, int], random: Any
) -> None:
    """However accounts and validators are ordered, slots and hash are the same, as specified."""
    parameters = parse(example()).parameters
    made = []
    for _ in range(2):
        rows, members = list(accounts.items()), list(validators.items())
        random.shuffle(rows)
        random.shuffle(members)
        keys = np.frombuffer(b"".join(row[0] for row in rows), np.uint8).reshape(-1, 32)
        genesis = make_genesis(
            chain_id=1,
            timestamp_ms=0,
            account_minimum=1,
            fee_minimum=0,
            parameters=parameters,
            validators=members,
            account_keys=keys,
            account_balances=np.array([row[1] for row in rows], np.uint64),
        )
        assert genesis.accounts == sorted(accounts.items())
        made.append(genesis_bytes(genesis))
    assert made[0] == made[1] == oracle.genesis_bytes(genesis)


@pytest.mark.parametrize("bad", [case for case in KEY_VECTORS if not case["valid"]])
@pytest.mark.parametrize("place", ["validators", "validator_schedule"])
def test_a_validator_has_a_public_key(bad: dict[str, Any], place: str) -> None:
    """P1: no set of the schedule has a key out of the subgroup; the file says which and where."""
    genesis = example()
    path = "$.validators[1].public_key"
    members = genesis["validators"]
    if place == "validator_schedule":
        path = "$.validator_schedule[0].validators[0].public_key"
        members = genesis["validator_schedule"][0]["validators"]
    members[-1]["public_key"] = f"0x{bad['key']}"
    with pytest.raises(GenesisError, match=bad["key"]) as caught:
        parse(genesis)
    assert (caught.value.code, caught.value.where) == ("genesis.validator_key", path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("chain_id", 8),
        ("timestamp_ms", 0),
        ("address_prefix", "ts"),
        ("symbol", "TO"),
        ("decimals", 8),
        ("account_minimum", 11),
        ("accounts_max", 2),
        ("fee_minimum", 2),
        ("accounts.1.balance", 1),
        ("accounts.1.address", f"0x{key(5).hex()}"),
        ("validators.0.power", 3),
        ("validators.0.public_key", f"0x{member(5).hex()}"),
        ("validator_schedule", []),
        ("validator_schedule.0.epoch", 6),
        *[
            (f"parameters.{name}", {"unfinalized_max": 9, "block_interval_ms": 401}.get(name, 999))
            for name in Parameters.__dataclass_fields__
        ],
    ],
)
def test_everything_is_in_the_hash(path: str, value: Any) -> None:
    """Two chains that differ in one value have different genesis hashes."""
    before, after = example(), changed(path, value)
    for genesis in (before, after):
        for validator in genesis["validators"]:
            if validator["public_key"].startswith("tos"):
                validator["public_key"] = f"0x{member(3).hex()}"
        genesis["accounts"][0]["address"] = f"0x{key(2).hex()}"
    assert genesis_hash(parse(before)) != genesis_hash(parse(after))


@pytest.mark.parametrize(
    ("path", "value", "code", "where"),
    [
        ("chain_idd", 1, "unknown_field", "$.chain_idd"),
        ("parameters.drift_mss", 1, "unknown_field", "$.parameters.drift_mss"),
        ("accounts.1.balnce", 1, "unknown_field", "$.accounts[1].balnce"),
        (
            "validator_schedule.0.validators.0.weight",
            1,
            "unknown_field",
            "$.validator_schedule[0].validators[0].weight",
        ),
        ("version", 2, "range", "$.version"),
        ("chain_id", 0, "range", "$.chain_id"),
        ("chain_id", 2**32, "range", "$.chain_id"),
        ("chain_id", "7", "field", "$.chain_id"),
        ("chain_id", True, "field", "$.chain_id"),
        ("chain_id", 2**70, "range", "$.chain_id"),
        ("accounts.1.balance", 2**70, "balance", "$.accounts[1].balance"),
        ("accounts.1.balance", True, "field", "$.accounts[1].balance"),
        ("chain_id", 7.0, "number", "7.0"),
        ("timestamp_ms", -1, "range", "$.timestamp_ms"),
        ("account_minimum", 0, "range", "$.account_minimum"),
        ("accounts_max", 2**32 - 1, "range", "$.accounts_max"),
        ("accounts_max", 1, "accounts_exceeded", "$.accounts"),
        ("decimals", 19, "range", "$.decimals"),
        ("symbol", "T S", "symbol", "$.symbol"),
        ("address_prefix", "Tos", "prefix", "$.address_prefix"),
        ("parameters.delta_ms", 0, "range", "$.parameters.delta_ms"),
        ("parameters.delta_ms", None, "field", "$.parameters.delta_ms"),
        ("parameters.objects_max", 2**31, "range", "$.parameters.objects_max"),
        ("parameters.payload_bytes_max", 831, "range", "$.parameters.payload_bytes_max"),
        ("parameters.delta_ms", 300_001, "range", "$.parameters.delta_ms"),
        ("parameters.retransmit_interval_ms", 9, "range", "$.parameters.retransmit_interval_ms"),
        ("parameters.unfinalized_max", 33, "range", "$.parameters.unfinalized_max"),
        ("parameters.drift_ms", 2**32 - 1, "range", "$.parameters.drift_ms"),
        ("parameters.block_interval_ms", 501, "timing", "$.parameters.idle_interval_ms"),
        ("parameters.idle_interval_ms", 399, "timing", "$.parameters.idle_interval_ms"),
        ("parameters.retransmit_interval_ms", 199, "timing", "$.parameters.retransmit_interval_ms"),
        ("parameters.transfer_max_ms", 298_301, "timing", "$.parameters.execute_max_ms"),
        ("accounts.1.balance", -1, "balance", "$.accounts[1].balance"),
        ("accounts.1.balance", "1.5", "balance", "$.accounts[1].balance"),
        ("accounts.1.balance", "01", "balance", "$.accounts[1].balance"),
        ("accounts.1.balance", SUPPLY_MAX, "supply", "$.accounts"),
        ("accounts.1.address", f"0x{key(2).hex()}", "duplicate_account", "$.accounts"),
        ("accounts.1.address", "tos1qq", "address.length", "$.accounts[1].address: 'tos1qq'"),
        ("accounts_file", "a.arrow", "accounts", "$.accounts"),
        ("accounts_hash", "00", "accounts_hash", "$.accounts_hash"),
        ("validators", [], "range", "$.validators (their number)"),
        ("validators.0.power", 0, "range", "$.validators[0].power"),
        ("validators.0.power", SUPPLY_MAX, "range", "$.validators (sum of power)"),
        ("validators.0.public_key", f"0x{member(3).hex()}", "duplicate_validator", "$.validators"),
        ("validator_schedule.0.epoch", 0, "range", "$.validator_schedule[0].epoch"),
    ],
)
def test_errors_explain(path: str, value: Any, code: str, where: str) -> None:
    """Each thing that can be wrong is named with its place and a stable code."""
    error = error_of(changed(path, value))
    assert (error.code, error.where) == (f"genesis.{code}", where)
    assert error.why
    assert error.what_to_do


def test_misspelt_field_gets_a_hint() -> None:
    """An unknown field is answered with the one that was probably meant."""
    error = error_of(changed("parameters.drift_mss", 1))
    assert error.what_to_do == "did you mean 'drift_ms'?"


def test_ambiguous_json_is_refused() -> None:
    """A field twice, an epoch twice, an exponent, no JSON and no object are refused."""
    text = json.dumps(example())
    doubled = text.replace('"chain_id": 7', '"chain_id": 7, "chain_id": 8')
    assert error_of(doubled).code == "genesis.duplicate_field"
    assert error_of(text.replace('"chain_id": 7', '"chain_id": 7e0')).code == "genesis.number"
    assert error_of(text.replace('"chain_id": 7', '"chain_id": NaN')).code == "genesis.number"
    endless = text.replace('"chain_id": 7', '"chain_id": ' + "7" * 5000)
    assert error_of(endless).code == "genesis.json"
    assert error_of(text[:-1]).code == "genesis.json"
    assert error_of(json.dumps(example() | {"version": "\ud800"})).code == "genesis.json"
    assert error_of(json.dumps(example() | {"symbol": "\ud800"})).code == "genesis.json"
    assert error_of("[]").code == "genesis.field"
    twice = example()
    twice["validator_schedule"] *= 2
    assert error_of(twice).code == "genesis.duplicate_epoch"
    missing = example()
    del missing["accounts"]
    assert error_of(missing).code == "genesis.accounts"


def accounts_file(path: Path, keys: list[bytes], balances: list[int], kind: Any = None) -> None:
    """Write opening accounts as an Arrow IPC file of two record batches."""
    columns = {
        "key": pa.array(keys, pa.binary(32)),
        "balance": pa.array(balances, kind or pa.uint64()),
    }
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def test_accounts_file(tmp_path: Path) -> None:
    """Accounts in a file, in any order, give the genesis that the same accounts give inline."""
    inline = example()
    inline["accounts"] = [
        {"address": f"0x{key(number).hex()}", "balance": number} for number in (5, 1, 4, 2, 3)
    ]
    expected = parse(inline)
    accounts_file(tmp_path / "a.arrow", [key(n) for n in (3, 1, 2, 5, 4)], [3, 1, 2, 5, 4])
    beside = example()
    del beside["accounts"]
    beside["accounts_file"] = "a.arrow"
    assert error_of(beside, tmp_path).code == "genesis.accounts_hash"
    beside["accounts_hash"] = expected.accounts_hash.hex()
    (tmp_path / "genesis.json").write_text(json.dumps(beside), encoding="utf-8")
    assert genesis_bytes(load_genesis(tmp_path / "genesis.json")) == genesis_bytes(expected)
    beside["accounts_hash"] = bytes(32).hex()
    assert error_of(beside, tmp_path).code == "genesis.accounts_hash"
    assert error_of(beside, tmp_path / "nowhere").code == "genesis.accounts_file"
    accounts_file(tmp_path / "a.arrow", [key(1)], [1], pa.int64())
    assert error_of(beside, tmp_path).code == "genesis.accounts_columns"
    (tmp_path / "a.arrow").write_bytes(b"ARROW1 and then nothing")
    assert error_of(beside, tmp_path).code == "genesis.accounts_file"


def test_empty_accounts_file(tmp_path: Path) -> None:
    """A file of no accounts is a chain of no accounts."""
    accounts_file(tmp_path / "a.arrow", [], [])
    value = example()
    value["accounts"] = []
    empty = parse(value)
    del value["accounts"]
    value |= {"accounts_file": "a.arrow", "accounts_hash": empty.accounts_hash.hex()}
    assert genesis_hash(parse(value, tmp_path)) == genesis_hash(empty)
    assert empty.supply == 0


def test_too_many_inline_accounts() -> None:
    """More than 10000 accounts stand in a file."""
    value = example()
    value["accounts"] = [{"address": "0x", "balance": 1}] * 10_001
    assert error_of(value).code == "genesis.inline_accounts"
