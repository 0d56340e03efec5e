"""A new genesis reads as what it was made of, and one that cannot be leaves nothing behind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.cli.main import main
from engine.constants import GENESIS_INLINE_ACCOUNTS_MAX, SUPPLY_MAX
from engine.dev import BALANCE, dev_key
from engine.errors import GenesisError
from engine.genesis import Genesis, genesis_hash, params_hash
from engine.genesis_file import load_genesis
from engine.genesis_new import NETWORK, read_list, write_new_genesis
from runtime.command_line import ExitCode

MEMBERS: list[dict[str, Any]] = [
    {"public_key": f"0x{dev_key(number).public_key.hex()}", "power": number + 1}
    for number in range(3)
]
SCHEDULE = [{"epoch": 1, "validators": MEMBERS[:2]}, {"epoch": 3, "validators": MEMBERS[2:]}]


def write(out: Path, accounts: int = 3, members: Any = MEMBERS) -> Genesis:
    """Write a genesis."""
    return write_new_genesis(
        out,
        chain_id=9,
        timestamp_ms=5,
        parameters=replace(NETWORK, heights_per_epoch=20),
        validators=members,
        schedule=SCHEDULE,
        accounts=accounts,
    )


@pytest.mark.parametrize("accounts", [1, GENESIS_INLINE_ACCOUNTS_MAX + 1])
def test_a_new_genesis_is_read_again(tmp_path: Path, accounts: int) -> None:
    """Few accounts stand in the JSON, many beside it; both read as what was made."""
    out = tmp_path / "g.json"
    made = write(out, accounts)
    assert genesis_hash(load_genesis(out)) == genesis_hash(made)
    assert (made.chain_id, made.timestamp_ms) == (9, 5)
    assert made.parameters.heights_per_epoch == 20
    assert [len(made.validators_of(epoch)) for epoch in range(4)] == [3, 2, 2, 1]
    assert len(made.account_keys) == accounts
    assert (made.account_balances == np.uint64(BALANCE)).all()
    keys = {key.tobytes() for key in made.account_keys}
    assert keys == {dev_key(number).public_key for number in range(accounts)}
    assert (tmp_path / "g-accounts.arrow").exists() == (accounts > GENESIS_INLINE_ACCOUNTS_MAX)


def test_very_many_accounts_share_the_supply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many that each cannot be rich are less rich; the sum stays a legal supply."""
    monkeypatch.setattr("engine.genesis_new.BALANCE", SUPPLY_MAX)
    made = write(tmp_path / "g.json", 3)
    assert made.account_balances.tolist() == [SUPPLY_MAX // 3] * 3


@pytest.mark.parametrize("accounts", [1, GENESIS_INLINE_ACCOUNTS_MAX + 1])
def test_a_genesis_that_cannot_be_leaves_nothing(tmp_path: Path, accounts: int) -> None:
    """A validator without power is refused with its place, and no file is there."""
    members = [MEMBERS[0] | {"power": 0}]
    with pytest.raises(GenesisError, match="power"):
        write(tmp_path / "g.json", accounts, members)
    assert list(tmp_path.iterdir()) == []


def test_a_genesis_is_never_overwritten(tmp_path: Path) -> None:
    """A second one at the same place is refused."""
    write(tmp_path / "g.json")
    before = (tmp_path / "g.json").read_bytes()
    with pytest.raises(GenesisError) as caught:
        write(tmp_path / "g.json")
    assert caught.value.code == "genesis.exists"
    assert (tmp_path / "g.json").read_bytes() == before


@pytest.mark.parametrize("text", ["{}", "[", "3"])
def test_what_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    """The file and what it should hold are named."""
    path = tmp_path / "v.json"
    path.write_text(text)
    with pytest.raises(GenesisError) as caught:
        read_list(path)
    assert caught.value.code == "genesis.list"


def test_the_commands_print_what_consensus_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`genesis new` and `genesis show` agree; parameters are flags; people get words."""
    members = tmp_path / "v.json"
    members.write_text(json.dumps(MEMBERS))
    out = tmp_path / "g.json"
    more = ["--unfinalized-max", "5", "--timestamp-ms", "4", "--json"]
    code = main(["genesis", "new", "--out", str(out), "--validators", str(members), *more])
    assert code == ExitCode.OK
    made = json.loads(capsys.readouterr().out)
    assert main(["genesis", "show", "--genesis", str(out), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == made
    genesis = load_genesis(out)
    assert made["genesis_hash"] == genesis_hash(genesis).hex()
    assert made["params_hash"] == params_hash(genesis.parameters).hex()
    assert (made["parameters"]["unfinalized_max"], made["timestamp_ms"]) == (5, 4)
    assert made["validator_sets"][0] == made["validator_sets"][1]
    keys = [member["public_key"] for member in made["validator_sets"][0]]
    assert keys == sorted(member["public_key"][2:] for member in MEMBERS)
    assert main(["genesis", "show", "--genesis", str(out)]) == ExitCode.OK
    assert made["genesis_hash"] in capsys.readouterr().out


def test_accounts_of_another_genesis_stay(tmp_path: Path) -> None:
    """Where a genesis was moved away its accounts are neither overwritten nor removed."""
    beside = tmp_path / "g-accounts.arrow"
    beside.write_bytes(b"of another genesis")
    with pytest.raises(GenesisError) as caught:
        write(tmp_path / "g.json", GENESIS_INLINE_ACCOUNTS_MAX + 1)
    assert (caught.value.code, caught.value.where) == ("genesis.exists", str(beside))
    with pytest.raises(GenesisError, match="power"):
        write(tmp_path / "g.json", 1, [MEMBERS[0] | {"power": 0}])
    write(tmp_path / "g.json", 1)
    assert beside.read_bytes() == b"of another genesis"
