"""Flipped bytes, full disks, read-only homes: an error that says what, or a repair."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from engine.store import rows_check
from engine.store.config import StoreConfig
from engine.store.errors import StoreDamaged, StoreError, StoreFull
from engine.store.home import FORMAT_NAME
from engine.store.rows import MARK_NAME
from engine.store.rows_check import child_environment
from engine.store.store import Store
from kernels.backend import Backend
from runtime.errors import ExplainedError
from tests.engine.store.chains import (
    SMALL,
    Maker,
    chain_genesis,
    index_block,
    new_store,
    payload_of,
    store_block,
)


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> tuple[Path, Maker]:
    """Make a home with every kind of file: 12 blocks, 10 finalized, two snapshots, indexes."""
    rng = np.random.default_rng(5)
    home = tmp_path_factory.mktemp("made") / "home"
    maker = Maker(chain_genesis(), backend)
    with new_store(home, maker.genesis) as store:
        for _ in range(12):
            made = maker.block(rng)
            store_block(store, made)
            if made.height <= 10:
                store.finalize([made.final], made.block_hash)
                index_block(store, maker, made)
            if made.height in (4, 8):
                store.upkeep.start_snapshot(store.finalized)
                assert store.upkeep.collect_snapshot(is_waiting=True), store.take_notices()
    return home, maker


def read_all(home: Path, maker: Maker, backend: Backend) -> list[str]:
    """Open, compare everything with what was made, and return the notices."""
    with Store.open(home, SMALL) as store:
        assert store.finalized.height == 10
        assert [item.height for item in store.unfinalized()] == [11, 12]
        for made in maker.made:
            assert payload_of(store, made.block_hash) == made.payload
        loaded = store.load_state(backend)
        assert loaded.state.state_hash() == maker.made[9].outcome.state_hash
        spans = store.unindexed()
        for made in maker.made[:10]:
            if any(first <= made.height <= last for first, last in spans):
                index_block(store, maker, made)
            for position in range(len(made.outcome.statuses)):
                place = store.find_transaction(made.outcome.transaction_hashes[position].tobytes())
                assert place is not None
                assert (place.height, place.position) == (made.height, position)
        store.verify()
        return store.take_notices()


KINDS = (
    "FORMAT",
    "genesis/genesis.bin",
    "genesis/accounts.bin",
    "blocks/*.seg",
    "history/*.seg",
    "rows/data.mdb",
    "snapshots/*.snapshot",
    "transactions/*.run",
    "accounts/*.run",
)


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_byte(
    kind: str, made_home: tuple[Path, Maker], tmp_path: Path, backend: Backend,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Of each kind of file a flipped byte is an error with a file's name, or repaired and told."""
    source, maker = made_home
    for attempt in range(3):
        home = tmp_path / f"{attempt}"
        shutil.copytree(source, home)
        path = sorted(home.glob(kind))[int(rng.integers(len(list(home.glob(kind)))))]
        data = bytearray(path.read_bytes())
        place = int(rng.integers(len(data)))
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        is_row = kind.startswith("rows")
        refusal, notices = None, []
        try:
            notices = read_all(home, maker, backend)
        except StoreError as error:
            refusal = error
        if refusal is None:
            # LMDB has pages that nobody reads, so a flip there changes nothing.
            assert is_row or notices, (path, place)
        else:
            assert refusal.code in ("store.damaged", "store.newer_version"), refusal
            assert path.name in refusal.where, (path, refusal.where)
            assert not is_row, "rows are redundant"


@pytest.mark.parametrize("table", ["blocks", "heights", "unfinalized", "state", "segments"])
def test_one_flipped_byte_in_a_row(
    table: str, made_home: tuple[Path, Maker], tmp_path: Path, backend: Backend
) -> None:
    """A byte that differs in any table is noticed by its row's checksum, and the rows are made."""
    source, maker = made_home
    shutil.copytree(source, tmp_path / "home")
    path = tmp_path / "home" / "rows" / "data.mdb"
    with lmdb.open(str(path.parent), max_dbs=5) as environment:
        tables = environment.open_db(table.encode(), create=False)
        with environment.begin(write=True) as transaction:
            cursor = transaction.cursor(db=tables)
            assert cursor.first()
            value = bytearray(cursor.value())
            value[-20 if len(value) > 20 else 0] ^= 1
            transaction.put(cursor.key(), bytes(value), db=tables)
    notices = read_all(tmp_path / "home", maker, backend)
    assert any("checksum" in text for text in notices)
    assert any("made the rows anew" in text for text in notices)


def spoil_header(home: Path, maker: Maker, height: int) -> None:
    """Flip a bit of a block's row wherever it stands in the file, as a failing disk would."""
    path = home / "rows" / "data.mdb"
    header = maker.made[height - 1].header
    data = path.read_bytes()
    assert header in data
    path.write_bytes(data.replace(header, header[:-1] + bytes([header[-1] ^ 1])))


@pytest.mark.parametrize("is_clean", [True, False])
def test_old_rows_are_read_after_an_end_that_was_not_clean(
    made_home: tuple[Path, Maker], tmp_path: Path, backend: Backend,
    monkeypatch: pytest.MonkeyPatch, is_clean: bool,
) -> None:  # fmt: skip
    """After a clean one the newest are, and damage in old ones is found when they are asked for."""
    monkeypatch.setattr(rows_check, "NEWEST", 3)
    source, maker = made_home
    home = tmp_path / "home"
    shutil.copytree(source, home)
    if not is_clean:
        with Store.open(home, SMALL):
            shutil.copytree(home, tmp_path / "killed")
        home = tmp_path / "killed"
    spoil_header(home, maker, 7)
    store = Store.open(home, SMALL)
    if is_clean:
        assert store.take_notices() == []
        with pytest.raises(StoreDamaged, match="checksum"):
            store.block_at(7)
        assert store.block_at(8) is not None
        store.close()
        store = Store.open(home, SMALL)
    assert any("made the rows anew" in text for text in store.take_notices())
    assert store.block_at(7) is not None
    store.close()
    assert read_all(home, maker, backend) == []


@pytest.mark.parametrize("height", [8, 10, 11, 12])
def test_the_newest_rows_are_always_read(
    made_home: tuple[Path, Maker], tmp_path: Path, backend: Backend,
    monkeypatch: pytest.MonkeyPatch, height: int,
) -> None:  # fmt: skip
    """Damage in them, final or not, is mended before anything is read from them."""
    monkeypatch.setattr(rows_check, "NEWEST", 3)
    source, maker = made_home
    shutil.copytree(source, tmp_path / "home")
    spoil_header(tmp_path / "home", maker, height)
    notices = read_all(tmp_path / "home", maker, backend)
    assert any("made the rows anew" in text for text in notices)


def test_a_mark_of_another_commit_counts_for_nothing(
    made_home: tuple[Path, Maker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark stands beside closed rows alone, and an older one does not speak for newer rows."""
    monkeypatch.setattr(rows_check, "NEWEST", 3)
    source, maker = made_home
    home = tmp_path / "home"
    shutil.copytree(source, home)
    mark = home / "rows" / MARK_NAME
    old = mark.read_bytes()
    with Store.open(home, SMALL) as store:
        assert not mark.exists()
        store.set_head(maker.made[10].block_hash)
    assert int(mark.read_bytes()) > int(old)
    for text in (old, b"", b"9" * 5_000, b"\xff"):
        mark.write_bytes(text)
        spoil_header(home, maker, 7)
        with Store.open(home, SMALL) as store:
            assert any("made the rows anew" in notice for notice in store.take_notices())


def test_a_whole_file_that_is_lost(
    made_home: tuple[Path, Maker], tmp_path: Path, backend: Backend
) -> None:
    """Lost rows, snapshots and indexes are made again; a lost segment is an error that names it."""
    source, maker = made_home
    for folder in ("rows", "snapshots", "transactions", "accounts"):
        home = tmp_path / folder
        shutil.copytree(source, home)
        for path in (home / folder).iterdir():
            path.unlink()
        read_all(home, maker, backend)
    for folder in ("blocks", "history"):
        home = tmp_path / folder
        shutil.copytree(source, home)
        path = sorted((home / folder).glob("*.seg"))[1]
        path.unlink()
        with pytest.raises(StoreDamaged, match="missing") as caught:
            Store.open(home, SMALL)
        assert path.name in caught.value.where


def test_homes_that_are_not_ours(made_home: tuple[Path, Maker], tmp_path: Path) -> None:
    """A locked home names its holder; another chain's and a newer version's are refused."""
    source, maker = made_home
    home = tmp_path / "home"
    shutil.copytree(source, home)
    with (
        Store.open(home, SMALL, maker.chain_hash),
        pytest.raises(StoreError, match=rf"(?s)process {os.getpid()} .*store\.locked"),
    ):
        Store.open(home, SMALL)
    with pytest.raises(StoreError, match=r"store\.other_chain"):
        Store.open(home, SMALL, bytes(32))
    with pytest.raises(StoreError, match=r"store\.home_exists"):
        Store.create(home, maker.genesis)
    with pytest.raises(StoreError, match=r"store\.no_home"):
        Store.open(tmp_path / "nothing", SMALL)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"store\.home_not_empty"):
        Store.create(tmp_path / "strange", maker.genesis)
    data = bytearray((home / FORMAT_NAME).read_bytes())
    data[8] = 2
    (home / FORMAT_NAME).write_bytes(data)
    with pytest.raises(StoreError, match=r"store\.newer_version"):
        Store.open(home, SMALL)


def test_the_genesis_comes_back(made_home: tuple[Path, Maker]) -> None:
    """A home gives back the genesis that it was made with, schedule and parameters included."""
    source, maker = made_home
    with Store.open(source, SMALL) as store:
        assert store.genesis.schedule == maker.genesis.schedule
        assert store.genesis.parameters == maker.genesis.parameters
        assert store.genesis.accounts == maker.genesis.accounts


def test_a_file_size_limit(tmp_path: Path, backend: Backend, rng: np.random.Generator) -> None:
    """Where a file may not grow, a block is refused, the store is as it was and goes on."""
    maker = Maker(chain_genesis(), backend)
    config = StoreConfig(segment_bytes=2**20, free_bytes_min=0, snapshot_every=10**6)
    with new_store(tmp_path / "home", maker.genesis, config) as store:
        small = [maker.block(rng) for _ in range(2)]
        for made in small:
            store_block(store, made)
        large = maker.block(rng, 2_000)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(StoreFull):
                store_block(store, large)
            store.finalize([small[0].final], small[1].block_hash)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        store_block(store, large)
        store.finalize([small[1].final, large.final])
        assert store.verify() == 6
    with Store.open(tmp_path / "home", config) as store:
        assert store.finalized.height == 3
        assert payload_of(store, large.block_hash) == large.payload


def test_a_full_disk(tmp_path: Path, backend: Backend, rng: np.random.Generator) -> None:
    """On a file system without room, every refusal leaves what was stored, also for a restart."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    try:
        maker = Maker(chain_genesis(), backend)
        config = StoreConfig(segment_bytes=2**18, free_bytes_min=0, snapshot_every=10**6)
        store = new_store(place / "home", maker.genesis, config)
        full = 0
        while full < 3:
            made = maker.block(rng, 200)
            try:
                store_block(store, made)
                store.finalize([made.final], made.block_hash)
            except StoreFull:
                full += 1
                if store.head.block_hash != made.block_hash:
                    maker.back()
                    maker.made.pop()
            # What was refused may be stored half way: stored, but not finalized.
            if store.unfinalized():
                break
        kept = store.finalized.height
        assert kept >= 3
        store.close()
        with Store.open(place / "home", config) as opened:
            assert opened.finalized.height == kept
            assert opened.verify() >= 2 * kept
            loaded = opened.load_state(backend)
            assert loaded.state.state_hash() == maker.made[kept - 1].outcome.state_hash
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


READ_ONLY = """
import os, sys
from pathlib import Path
from engine.store.errors import StoreError
from engine.store.store import Store
os.setgid(65534); os.setuid(65534)
try:
    Store.open(Path(sys.argv[1]))
except StoreError as error:
    print(error.code)
"""


def test_a_read_only_home(made_home: tuple[Path, Maker], tmp_path: Path) -> None:
    """A home that may not be written is refused with a sentence, not with a traceback."""
    if os.getuid():
        pytest.skip("changing the user takes root")
    source, _ = made_home
    home = tmp_path / "home"
    shutil.copytree(source, home)
    for path in (*tmp_path.parents, tmp_path):
        if path.is_relative_to("/tmp/pytest-of-root"):
            path.chmod(0o755)
    for path in (home, *home.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", READ_ONLY, str(home)]
    done = subprocess.run(command, env=child_environment(), capture_output=True, check=False)
    assert done.stdout.decode().split() == ["store.unwritable"], done.stderr.decode()
    assert issubclass(StoreError, ExplainedError)
