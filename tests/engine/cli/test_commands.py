"""What a person types: exit codes, texts for people, JSON for programs, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.config import KEYS
from engine.genesis import genesis_hash
from engine.genesis_file import load_genesis
from runtime.command_line import ExitCode
from tests.campaign.process import REPOSITORY, surroundings
from tests.engine.finished import make_finished
from tests.engine.test_genesis import example


@pytest.fixture
def genesis(tmp_path: Path) -> Path:
    """Return a genesis file."""
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps(example()))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; returns code, stdout and stderr."""
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_init_makes_a_home_once(
    tmp_path: Path, genesis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A home has the chain's hash and an explained node.toml; a second `init` changes nothing."""
    home = tmp_path / "home"
    arguments = ("init", "--genesis", str(genesis), "--home", str(home))
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == ExitCode.OK
    made = json.loads(out)
    assert made["genesis_hash"] == genesis_hash(load_genesis(genesis)).hex()
    assert (made["chain_id"], made["accounts"]) == (7, 2)
    text = (home / "node.toml").read_text()
    assert all(f"# {key} = " in text for key in KEYS)
    code, _, err = run(capsys, *arguments)
    assert code == ExitCode.REFUSED
    assert "store.home_exists" in err
    assert (home / "node.toml").read_text() == text


def test_a_bad_genesis_makes_no_home(
    tmp_path: Path, genesis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with the genesis is said before anything is written."""
    genesis.write_text(json.dumps(example() | {"chain_idd": 1}))
    home = tmp_path / "home"
    code, _, err = run(capsys, "init", "--genesis", str(genesis), "--home", str(home))
    assert code == ExitCode.REFUSED
    assert "genesis.unknown_field" in err
    assert "chain_id" in err
    assert not home.exists()


def test_settings_are_shown_with_their_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config show` names flag, environment, file and default, for people and for programs."""
    (tmp_path / "node.toml").write_text("keep_blocks = 5\n")
    monkeypatch.setenv("TOS_THREADS", "3")
    arguments = ("config", "show", "--home", str(tmp_path), "--device", "cpu")
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == ExitCode.OK
    shown = json.loads(out)
    assert tuple(shown) == KEYS
    assert shown["keep_blocks"] == {"value": 5, "origin": str(tmp_path / "node.toml")}
    assert shown["threads"] == {"value": 3, "origin": "environment TOS_THREADS"}
    assert shown["device"] == {"value": "cpu", "origin": "flag --device"}
    assert shown["log_level"]["origin"] == "default"
    code, out, _ = run(capsys, *arguments)
    assert code == ExitCode.OK
    assert "flag --device" in out
    code, _, err = run(capsys, *arguments, "--config", str(tmp_path / "none.toml"))
    assert code == ExitCode.REFUSED
    assert "none.toml" in err


def test_export_and_doctor_speak_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both print one JSON object that names what they did or found."""
    make_finished(tmp_path / "home")
    home, out = str(tmp_path / "home"), str(tmp_path / "out")
    code, said, _ = run(
        capsys, "export", "--home", home, "--from", "1", "--to", "3", "--out", out, "--json"
    )
    assert code == ExitCode.OK
    done = json.loads(said)
    assert (done["blocks"], done["transactions"]) == (3, 23)
    assert all(Path(path).is_file() for path in done["files"])
    code, said, _ = run(capsys, "doctor", "--home", home, "--http-address", "127.0.0.1:0", "--json")
    assert code == ExitCode.OK
    levels = {item["name"]: item["level"] for item in json.loads(said)["checks"]}
    assert levels["home"] == "ok"


@pytest.mark.parametrize(
    "arguments",
    [("no-such-command",), ("run",), ("export", "--home", "x", "--from", "0"), ("--no-such-flag",)],
)
def test_a_wrong_command_line_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be understood has exit code 2 and a hint, and never a traceback."""
    code, _, err = run(capsys, *arguments)
    assert code == ExitCode.REFUSED
    assert "Error" in err


def test_optimized_python_is_refused() -> None:
    """Without assertions nothing starts, by flag or by variable."""
    for flags, more in (["-O"], {}), ([], {"PYTHONOPTIMIZE": "1"}):
        tried = subprocess.run(
            [sys.executable, *flags, "-m", "engine", "--help"], cwd=REPOSITORY,
            env=surroundings(more), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert tried.returncode == ExitCode.REFUSED
        assert "process.optimized" in tried.stderr


@pytest.mark.parametrize("prefix", ["", "ABC", "t os", "1"])
def test_a_prefix_that_no_chain_has_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    """It is said before a key is made."""
    arguments = ("--no-password", "--keys", str(tmp_path / "keys"), "--prefix", prefix)
    code, _, err = run(capsys, "key", "new", "--name", "a", *arguments)
    assert (code, "--prefix" in err) == (ExitCode.REFUSED, True)
    assert not (tmp_path / "keys").exists()


def test_a_damaged_key_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has all that are whole and names the others; what asks for none of these works."""
    keys = tmp_path / "keys"
    where = ("--keys", str(keys))
    for name in ("alice", "bob"):
        assert run(capsys, "key", "new", "--name", name, "--no-password", *where)[0] == ExitCode.OK
    # No address has a b or an o, so none has one of these names in it.
    (keys / "empty-o.json").write_bytes(b"")
    (keys / "bad.json").write_bytes(b"\xff" * 5_000)
    (keys / "folder.json").mkdir()
    for more in ((), ("--json",)):
        code, out, err = run(capsys, "key", "list", *where, *more)
        assert code == ExitCode.FAILED
        for name, is_whole in (
            *(("alice", True), ("bob", True)),
            *(("empty-o", False), ("bad", False), ("folder", False)),
        ):
            assert (name in out, f"{name}.json" in err) == (is_whole, not is_whole), name
    assert [item["name"] for item in json.loads(out)["keys"]] == ["alice", "bob"]
    assert run(capsys, "key", "new", "--name", "carol", "--no-password", *where)[0] == ExitCode.OK
    assert run(capsys, "key", "show", "carol", *where)[0] == ExitCode.OK
    for name, why in (("bad", "key.damaged"), ("folder", "key.unreadable")):
        code, _, err = run(capsys, "key", "show", name, *where)
        assert (code, f"code: {why}" in err) == (ExitCode.REFUSED, True)


@pytest.mark.parametrize(
    ("text", "what"), [("{", "this is not JSON"), ("[]", "another type"), (None, "more than")]
)
def test_a_file_that_is_no_genesis_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, what: str
) -> None:
    """A file of another kind is read no further than a genesis can be long."""
    path = Path("/dev/zero") if text is None else tmp_path / "genesis.json"
    if text is not None:
        path.write_text(text)
    home = tmp_path / "home"
    code, _, err = run(capsys, "init", "--genesis", str(path), "--home", str(home))
    assert (code, home.exists()) == (ExitCode.REFUSED, False)
    assert what in err
    assert f"where: {path}\n" in err


@pytest.mark.parametrize("command", [("run",), ("config", "show"), ("doctor",)])
def test_the_folder_around_a_home_is_that_of_another_program(
    tmp_path: Path, genesis: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """Whoever names the home of a consensus node is told where its executor's home is."""
    inner = tmp_path / "node" / "executor"
    assert run(capsys, "init", "--genesis", str(genesis), "--home", str(inner))[0] == ExitCode.OK
    (inner.parent / "node.toml").write_text('listen_votes = "tcp://127.0.0.1:9000"\n')
    code, _, err = run(capsys, *command, "--home", str(inner.parent))
    assert (code, "store.no_home" in err) == (ExitCode.REFUSED, True)
    assert f"name {inner}, which is one" in err
