"""What a person types: networks and homes, texts and JSON, and what is refused with exit code 2."""

import io
import json
import os
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from consensus.cli import options
from consensus.cli.main import main
from consensus.config import LAYERS
from consensus.home import Home
from consensus.journal import read_journal
from runtime.command_line import ExitCode
from runtime.lock import FolderLock
from runtime.secrets import password_of


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; returns code, stdout and stderr."""
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a network of two, and a third that joins later; no test changes it."""
    folder = tmp_path_factory.mktemp("network")
    schedule = folder / "schedule.json"
    third = [{"validator": "validator2", "power": 3}]
    schedule.write_text(json.dumps([{"epoch": 1, "validators": ["validator0", *third]}]))
    with redirect_stdout(io.StringIO()) as out:
        more = ("--epoch-heights", "20", "--block-interval-ms", "300", "--chain-id", "77", "--json")
        place = ("--out", str(folder / "net"), "--base-port", "20000")
        who = ("--validators", "2", "--schedule", str(schedule), "--accounts", "5")
        code = main(("network", "new", *place, *who, *more))
    assert code == ExitCode.OK
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_a_network_has_complete_homes(network: dict[str, Any]) -> None:
    """Everybody has the chain, a key, a journal, ports of its own and everybody else as peer."""
    assert json.loads(Path(network["genesis"]).with_name("network.json").read_text()) == network
    members = network["validators"]
    assert [member["name"] for member in members] == ["validator0", "validator1", "validator2"]
    ports = set()
    for member in members:
        home = Home(folder=Path(member["home"]))
        assert home.is_made()
        assert read_journal(home.journal).torn_bytes == 0
        chain = home.chain()
        assert (chain.chain_id, chain.genesis_hash) == (77, network["genesis_hash"])
        assert chain.parameters.heights_per_epoch == 20
        assert chain.parameters.block_interval_ms == 300
        config = options.read_config(home.folder, None, {}).settings
        others = {(other["key"], other["votes"]) for other in members if other is not member}
        assert {(peer.key, peer.votes) for peer in config.peers} == others
        assert member["votes"] == config.listen_votes
        executor = tomllib.loads(home.executor.joinpath("node.toml").read_text())
        ports |= {config.listen_votes, config.listen_sync, config.listen_payloads}
        ports |= {config.http_address, executor["http_address"], executor["query_address"]}
    assert len(ports) == 6 * len(members)
    first, second = home.chain().validator_sets
    assert {one.public_key for one in first} == {one["key"] for one in members[:2]}
    assert {(one.public_key, one.power) for one in second} == {
        (members[0]["key"], 1),
        (members[2]["key"], 3),
    }


def test_a_network_is_made_once(
    network: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A second one in the same folder is refused and changes nothing."""
    before = Path(network["genesis"]).read_bytes()
    code, _, err = run(capsys, "network", "new", "--out", str(Path(network["genesis"]).parent))
    assert code == ExitCode.REFUSED
    assert "home.network_exists" in err
    assert Path(network["genesis"]).read_bytes() == before


@pytest.mark.parametrize("name", ["validator2/chain.json", "keys/dev0.json", "network.json"])
def test_what_is_left_of_a_network_is_not_built_over(
    tmp_path: Path, network: dict[str, Any], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A folder whose genesis is gone may hold keys and journals: nothing is written."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    data = Path(network["validators"][0]["home"]).joinpath("chain.json").read_bytes()
    path.write_bytes(data)
    code, _, err = run(capsys, "network", "new", "--out", str(tmp_path))
    assert code == ExitCode.REFUSED
    assert "home.network_exists" in err
    assert "nothing was changed" in err
    assert (network["genesis_hash"] in err) == name.startswith("validator")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


@pytest.mark.parametrize(
    ("schedule", "arguments", "code"),
    [
        ("[{", (), "home.schedule"),
        ('[{"epoch": 1, "validator": []}]', (), "home.schedule"),
        ('[{"epoch": 1, "validators": ["validator9999"]}]', (), "home.schedule"),
        ('[{"epoch": 1, "validators": ["somebody"]}]', (), "genesis"),
        ("[]", ("--base-port", "65530"), "home.ports"),
    ],
)
def test_a_network_that_cannot_be_is_explained(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    schedule: str,
    arguments: tuple[str, ...],
    code: str,
) -> None:
    """What a schedule or the ports have wrong is said, and no home is made."""
    path = tmp_path / "schedule.json"
    path.write_text(schedule)
    out = tmp_path / "net"
    exit_code, _, err = run(
        capsys, "network", "new", "--out", str(out), "--schedule", str(path), *arguments
    )
    assert exit_code == ExitCode.REFUSED
    assert code in err
    assert list(out.glob("*")) == []


def test_init_makes_one_validator(
    tmp_path: Path,
    network: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new key votes, an imported one observes first; the key's password is asked for."""
    monkeypatch.setenv("TOS_PASSWORD", "secret")
    arguments = ("init", "--genesis", network["genesis"], "--json", "--home")
    code, out, _ = run(capsys, *arguments, str(tmp_path / "a"))
    assert code == ExitCode.OK
    made = json.loads(out)
    assert made["role"] == "validator"
    home = Home(folder=tmp_path / "a")
    entry = home.entry()
    assert entry is not None
    assert entry.has_password
    pair = home.keys.open(entry.name, password_of(entry))
    assert pair.public_key.hex() == made["public_key"]
    seed = tmp_path / "seed"
    seed.write_text("07" * 32 + "\n")
    more = ("--import-key", str(seed), "--no-password")
    code, out, _ = run(capsys, *arguments, str(tmp_path / "b"), *more)
    assert (code, json.loads(out)["role"]) == (ExitCode.OK, "observer")
    code, _, err = run(capsys, *arguments, str(tmp_path / "b"), *more)
    assert (code, "home.exists" in err) == (ExitCode.REFUSED, True)
    assert "of this very chain" in err
    seed.write_text("07" * 31)
    code, _, err = run(capsys, *arguments, str(tmp_path / "c"), *more)
    assert (code, "key.seed" in err) == (ExitCode.REFUSED, True)
    assert not (tmp_path / "c").exists()


def test_a_password_that_nobody_can_type_is_explained(
    tmp_path: Path, network: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal and without the variable no key is made, and none is opened."""
    home = tmp_path / "a"
    code, _, err = run(capsys, "init", "--genesis", network["genesis"], "--home", str(home))
    assert code == ExitCode.REFUSED
    assert "TOS_PASSWORD" in err
    assert not Home(folder=home).is_made()
    Home(folder=home).keys.add("validator", bytes(32), "secret")
    code, _, err = run(capsys, "run", "--home", str(home))
    assert (code, "TOS_PASSWORD" in err) == (ExitCode.REFUSED, True)


@pytest.mark.parametrize("command", [(), ("run",)])
def test_without_a_home_the_two_commands_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """`run` is meant where no command is given, and it says what to type first."""
    code, _, err = run(capsys, *command, "--home", str(tmp_path))
    assert code == ExitCode.REFUSED
    assert "home.missing" in err
    assert "network new --validators 4" in err
    assert f"init --genesis FILE --home {tmp_path}" in err
    assert list(tmp_path.iterdir()) == []
    tmp_path.joinpath("node.toml").write_text("threads = 2\n")
    code, _, err = run(capsys, *command, "--home", str(tmp_path))
    assert (code, "home.missing" in err) == (ExitCode.REFUSED, True), "the executor's own home"


@pytest.mark.parametrize("command", ["status", "validators", "evidence"])
def test_a_node_that_does_not_run_is_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """It says how to start it, also where a lock is left that nobody holds."""
    code, _, err = run(capsys, command, "--home", str(tmp_path))
    assert (code, "client.not_running" in err) == (ExitCode.REFUSED, True)
    FolderLock(tmp_path).release()
    code, _, err = run(capsys, command, "--home", str(tmp_path))
    assert (code, "client.not_running" in err) == (ExitCode.REFUSED, True)


def test_a_node_that_starts_is_not_called_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is told to start a node a second time whose process has the home open already."""
    with FolderLock(tmp_path):
        code, _, err = run(capsys, "status", "--home", str(tmp_path))
    assert (code, "client.not_ready" in err) == (ExitCode.REFUSED, True)
    assert f"the process {os.getpid()} has the home open" in err
    assert "client.not_running" not in err


def test_settings_are_shown_with_their_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`config show` names flag, file and default."""
    (tmp_path / "node.toml").write_text('device = "cpu"\n')
    arguments = ("config", "show", "--home", str(tmp_path), "--log-level", "debug")
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == ExitCode.OK
    shown = json.loads(out)
    assert tuple(shown) == LAYERS.keys
    assert shown["device"] == {"value": "cpu", "origin": str(tmp_path / "node.toml")}
    assert shown["log_level"] == {"value": "debug", "origin": "flag --log-level"}
    code, out, _ = run(capsys, *arguments)
    assert (code, "flag --log-level" in out) == (ExitCode.OK, True)


@pytest.mark.parametrize("arguments", [("no-such-command",), ("--no-such-flag",), ("init",)])
def test_a_wrong_command_line_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be understood has exit code 2 and a hint, and never a traceback."""
    code, _, err = run(capsys, *arguments)
    assert code == ExitCode.REFUSED
    assert "Error" in err
