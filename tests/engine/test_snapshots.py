"""Snapshots by hand: made, verified, damaged, brought back, refused where they do not belong."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.cli.main import main
from engine.state import State
from engine.store.history import HistoryError
from engine.store.rows import Pointer
from engine.store.snapshot import (
    AccountColumns,
    height_of,
    read_head,
    read_snapshot,
    snapshot_path,
    write_snapshot,
)
from engine.store.snapshot_process import make_snapshot
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
    assert "remove" not in err, "it is a file of whoever typed this, not the home's"


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


@pytest.mark.parametrize("high", [0, 63])
def test_a_start_does_not_end_at_accounts_that_no_chain_has(tmp_path: Path, high: int) -> None:
    """The newest names one key twice, or more than a supply: the one before is used, it is let go.

    It would also be the base of each snapshot to come, and none would be made.
    """
    maker, blocks = make_finished(tmp_path / "home")
    top, below = blocks[-1], blocks[-2]
    folder = tmp_path / "home" / "snapshots"
    with Store.open(tmp_path / "home") as store:
        chain = store.genesis_hash
        job = store._snapshots.job(Pointer(height=below.height, block_hash=below.hash))
        make_snapshot(job, lambda *_: None)
    count = len(maker.states[top.hash])
    keys = np.zeros((count, 32), np.uint8)
    if high:
        keys[:, 0] = np.arange(count)
    columns = AccountColumns.of(keys, np.full(count, 1 << high, np.uint64))
    write_snapshot(
        snapshot_path(folder, top.height), columns, genesis_hash=chain, height=top.height,
        block_hash=top.hash, state_hash=top.fields.state_hash, progress=lambda *_: None,
    )  # fmt: skip
    backend = open_backend("cpu", 1)
    try:
        with Store.open(tmp_path / "home") as store:
            job = msgspec.structs.replace(
                job, base=str(snapshot_path(folder, top.height)), deltas=[]
            )
            with pytest.raises(HistoryError, match="accounts of no chain"):
                make_snapshot(job, lambda *_: None)
            loaded = store.load_state(backend)
            assert loaded.base_height == below.height
            assert loaded.state.state_hash() == top.fields.state_hash
            said = store.take_notices()
            assert any(f"made from height {top.height} are none" in text for text in said)
            assert any(f"removed the snapshot of height {top.height}" in text for text in said)
            assert [height_of(path) for path in folder.iterdir()] == [below.height]
            assert [item.height for item in store._snapshots.known] == [below.height]
    finally:
        backend.close()


def test_accounts_that_are_not_those_of_the_block_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every checksum is right: of other accounts under the block's state_hash, or under theirs."""
    make_finished(tmp_path / "home")
    home = str(tmp_path / "home")
    code, out, _ = run(capsys, "snapshot", "create", "--home", home, "--json")
    assert code == 0
    path = Path(json.loads(out)["path"])
    with Store.open(tmp_path / "home") as store:
        chain = store.genesis_hash
    head, columns = read_head(path, chain), read_snapshot(path, chain)
    columns.balances[[0, 1]] = columns.balances[[1, 0]]
    assert columns.balances[0] != columns.balances[1]
    backend = open_backend("cpu", 1)
    try:
        theirs = State(columns.keys, columns.balances, columns.nonces, backend=backend).state_hash()
    finally:
        backend.close()
    good = path.read_bytes()
    for state_hash, code_of_error in (
        (head.state_hash, "store.damaged"),
        (theirs, "store.snapshot_foreign"),
    ):
        forged = tmp_path / "forged"
        write_snapshot(
            forged, columns, genesis_hash=chain, height=head.height, block_hash=head.block_hash,
            state_hash=state_hash, progress=lambda *_: None,
        )  # fmt: skip
        code, _, err = run(capsys, "snapshot", "restore", "--home", home, "--from", str(forged))
        assert (code, code_of_error in err) == (2, True), err
        assert path.read_bytes() == good
    write_snapshot(
        path, columns, genesis_hash=chain, height=head.height, block_hash=head.block_hash,
        state_hash=head.state_hash, progress=lambda *_: None,
    )  # fmt: skip
    code, out, _ = run(capsys, "snapshot", "verify", "--home", home)
    assert (code, "DAMAGED" in out) == (1, True)
    backend = open_backend("cpu", 1)
    try:
        with Store.open(tmp_path / "home") as store:
            loaded = store.load_state(backend)
            assert (loaded.base_height, loaded.state.state_hash()) == (0, head.state_hash)
            assert any("state_hash" in text for text in store.take_notices())
            assert not path.exists(), "none would be made on it"
    finally:
        backend.close()


def test_a_process_makes_no_snapshot_of_another_state(tmp_path: Path) -> None:
    """Where deltas do not give the header's state_hash there is no file, only the reason."""
    make_finished(tmp_path / "home")
    with Store.open(tmp_path / "home") as store:
        job = store._snapshots.job(store.finalized)
        folder = tmp_path / "home" / "snapshots"
        with pytest.raises(HistoryError, match="the header says"):
            make_snapshot(msgspec.structs.replace(job, state_hash="ab" * 32), lambda *_: None)
        assert list(folder.iterdir()) == []
        make_snapshot(job, lambda *_: None)
        assert [height_of(path) for path in folder.iterdir()] == [len(SIZES)]


def test_a_snapshot_that_a_node_lets_go_meanwhile_is_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was listed and is gone when it is read is left out, and the others are verified."""
    make_finished(tmp_path / "home")
    home = str(tmp_path / "home")
    assert run(capsys, "snapshot", "create", "--home", home)[0] == 0
    gone = tmp_path / "home" / "snapshots" / f"{1:020d}.snapshot"
    gone.symlink_to(tmp_path / "nothing")
    code, out, _ = run(capsys, "snapshot", "verify", "--home", home, "--json")
    assert code == 0
    assert [item["height"] for item in json.loads(out)["snapshots"]] == [len(SIZES)]


def test_what_would_not_stay_is_not_brought_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A home keeps two: an older one beside them would be gone with the next start, unsaid."""
    maker, blocks = make_finished(tmp_path / "home")
    home = str(tmp_path / "home")
    with Store.open(tmp_path / "home") as store:
        chain = store.genesis_hash
    for block in blocks:
        made = maker.states[block.hash]
        keys = np.frombuffer(b"".join(item.key for item in made), np.uint8).reshape(-1, 32)
        columns = AccountColumns(len(made))
        balances, nonces = ([getattr(x, name) for x in made] for name in ("balance", "nonce"))
        columns.append(keys, np.array(balances, np.uint64), np.array(nonces, np.uint64))
        write_snapshot(
            tmp_path / str(block.height), columns, genesis_hash=chain, height=block.height,
            block_hash=block.hash, state_hash=block.fields.state_hash, progress=lambda *_: None,
        )  # fmt: skip

    def restore(height: int) -> tuple[int, str]:
        file = str(tmp_path / str(height))
        code, _, err = run(capsys, "snapshot", "restore", "--home", home, "--from", file)
        return code, err

    for height in (2, 4, 3):
        assert restore(height)[0] == 0
    code, err = restore(1)
    assert (code, "store.snapshot_older" in err) == (2, True)
    code, out, _ = run(capsys, "snapshot", "verify", "--home", home, "--json")
    assert [item["height"] for item in json.loads(out)["snapshots"]] == [4, 3]
    assert restore(3)[0] == 0, "one that is there may be brought back again"
