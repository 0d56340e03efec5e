"""Snapshots by hand: made, verified, damaged, brought back, refused where they do not belong."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.cli.main import main
from engine.store.snapshot import AccountColumns, write_snapshot
from engine.store.store import Store
from kernels.backend import open_backend
from spec import oracle
from tests.engine.finished import SIZES, make_finished
from tests.engine.homes import Home


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; returns code, stdout and stderr."""
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_snapshot_is_made_verified_and_brought_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A snapshot has the oracle's state_hash; a flipped byte is found; a copy repairs the home."""
    maker, blocks = make_finished(tmp_path / "home")
    home = str(tmp_path / "home")
    code, out, _ = run(capsys, "snapshot", "create", "--home", home, "--json")
    assert code == 0
    made = json.loads(out)
    assert made["height"] == len(SIZES)
    assert made["state_hash"] == oracle.state_hash(maker.states[blocks[-1].hash]).hex()
    code, out, _ = run(capsys, "snapshot", "verify", "--home", home)
    assert code == 0
    assert f"good  height {len(SIZES)}" in out

    path = Path(made["path"])
    copy = tmp_path / "copy.snapshot"
    copy.write_bytes(path.read_bytes())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    code, out, _ = run(capsys, "snapshot", "verify", "--home", home, "--json")
    assert code == 1
    assert "store.damaged" in json.loads(out)["snapshots"][0]["damage"]

    code, out, _ = run(capsys, "snapshot", "restore", "--home", home, "--from", str(copy))
    assert code == 0
    assert path.read_bytes() == copy.read_bytes()
    assert not list(path.parent.glob("*.tmp"))
    backend = open_backend("cpu", 1)
    try:
        with Store.open(tmp_path / "home") as store:
            assert store.load_state(backend).base_height == len(SIZES)
    finally:
        backend.close()


def test_what_cannot_be_made_or_brought_back_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No snapshot of genesis, none twice, none of a block that is not final in this home."""
    empty = tmp_path / "empty"
    Home(empty).close()
    code, _, err = run(capsys, "snapshot", "create", "--home", str(empty))
    assert (code, "store.snapshot_genesis" in err) == (2, True)

    make_finished(tmp_path / "home")
    home = str(tmp_path / "home")
    code, out, _ = run(capsys, "snapshot", "create", "--home", home, "--json")
    assert code == 0
    path = json.loads(out)["path"]
    code, _, err = run(capsys, "snapshot", "create", "--home", home)
    assert (code, "store.snapshot_exists" in err) == (2, True)

    code, _, err = run(capsys, "snapshot", "restore", "--home", str(empty), "--from", path)
    assert (code, "store.snapshot_foreign" in err) == (2, True)
    assert list((empty / "snapshots").iterdir()) == []
    garbage = tmp_path / "garbage"
    garbage.write_bytes(bytes(5_000))
    code, _, err = run(capsys, "snapshot", "restore", "--home", home, "--from", str(garbage))
    assert (code, "store.damaged" in err) == (2, True)


def test_a_snapshot_that_no_chain_has_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checksums are right, and its accounts are none: one key twice, or more than a supply."""
    make_finished(tmp_path / "home")
    with Store.open(tmp_path / "home") as store:
        chain = store.genesis_hash
    keys, one = np.zeros((2, 32), np.uint8), np.ones(2, np.uint64)
    much = keys.copy()
    much[1] = 1
    for name, columns in (
        ("twice", AccountColumns.of(keys, one)),
        ("much", AccountColumns.of(much, one << np.uint64(63))),
    ):
        path = tmp_path / name
        write_snapshot(
            path, columns, genesis_hash=chain, height=1, block_hash=bytes(32),
            state_hash=bytes(32), progress=lambda *_: None,
        )  # fmt: skip
        home = str(tmp_path / "home")
        code, _, err = run(capsys, "snapshot", "restore", "--home", home, "--from", str(path))
        assert (code, "store.damaged" in err) == (2, True), name
        assert list((tmp_path / "home" / "snapshots").iterdir()) == []
