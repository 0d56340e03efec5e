"""Power cuts: at every durable point a copy with a torn tail opens to what was answered for."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from engine.store.config import StoreConfig
from engine.store.errors import StoreDamaged
from engine.store.segment import FILE_HEAD_BYTES, RECORD_HEAD_BYTES, SegmentLog
from engine.store.store import Store
from kernels.backend import Backend
from tests.engine.store.chains import (
    SMALL,
    Made,
    Maker,
    chain_genesis,
    new_store,
    payload_of,
    store_block,
)

SINGLE = StoreConfig(segment_bytes=1, free_bytes_min=0)
"""One record in a file."""


@dataclass
class Crash:
    """A copy of the home at one instant, and what had been answered for."""

    home: Path
    stored: list[Made]
    finalized_height: int


@dataclass
class Recorder:
    """Copies a home before and after each sync; before it, with the unsynced tail torn."""

    home: Path
    target: Path
    rng: np.random.Generator
    crashes: list[Crash] = field(default_factory=list)
    stored: list[Made] = field(default_factory=list)
    finalized_height: int = 0

    def copy(self) -> Path:
        """Copy the home as it is and note what was answered for."""
        target = self.target / f"{len(self.crashes):04d}"
        shutil.copytree(self.home, target)
        self.crashes.append(Crash(target, list(self.stored), self.finalized_height))
        return target

    def hook(self, sync: Callable[[SegmentLog], None]) -> Callable[[SegmentLog], None]:
        """Return a sync that records."""
        durable = {"blocks": (0, 0), "history": (0, 0)}

        def recorded(log: SegmentLog) -> None:
            name = log.folder.name
            if log.end > durable[name]:
                self.tear(self.copy() / name, durable[name])
            sync(log)
            if log.end > durable[name]:
                durable[name] = log.end
                self.copy()

        return recorded

    def tear(self, folder: Path, durable: tuple[int, int]) -> None:
        """Damage what was not durable: cut the last file, or lose pages in the middle of it."""
        path = max(folder.glob("*.seg"))
        first = durable[1] if int(path.stem) == durable[0] else 0
        size = path.stat().st_size
        place = int(self.rng.integers(first, size))
        if self.rng.integers(2):
            with path.open("r+b") as file:
                file.truncate(place)
        else:
            data = bytearray(path.read_bytes())
            data[place : place + 512] = bytes(len(data[place : place + 512]))
            path.write_bytes(data)


def test_every_durable_point(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was not synced may be lost; nothing else is, and the state is an exact one."""
    maker = Maker(chain_genesis(), backend)
    home, copies = tmp_path / "home", tmp_path / "copies"
    copies.mkdir()
    store = new_store(home, maker.genesis)
    recorder = Recorder(home, copies, rng)
    monkeypatch.setattr(SegmentLog, "sync", recorder.hook(SegmentLog.sync))
    for number in range(9):
        made = maker.block(rng)
        store_block(store, made)
        recorder.stored.append(made)
        if number % 4 == 3:
            final = [item for item in maker.made if item.height > store.finalized.height]
            store.finalize([item.final for item in final], made.block_hash)
            recorder.finalized_height = made.height
    monkeypatch.undo()
    store.close()
    assert len(recorder.crashes) >= 20
    for crash in recorder.crashes:
        with Store.open(crash.home, SMALL) as opened:
            height = opened.finalized.height
            assert crash.finalized_height <= height <= len(crash.stored) + 1
            for made in crash.stored:
                assert payload_of(opened, made.block_hash) == made.payload
            loaded = opened.load_state(backend)
            if height:
                assert loaded.state.state_hash() == maker.made[height - 1].outcome.state_hash
            above = [item.height for item in opened.unfinalized()]
            assert above == list(range(height + 1, height + 1 + len(above)))
            opened.verify()
            # It goes on from there.
            following = maker.made[height + len(above) :][:1]
            for made in following:
                store_block(opened, made)
                assert payload_of(opened, made.block_hash) == made.payload
            known = [item.block_hash for item in opened.unfinalized()]
        # The logs are whole without the rows: nothing torn was left between records.
        shutil.rmtree(crash.home / "rows")
        (crash.home / "rows").mkdir()
        with Store.open(crash.home, SMALL) as opened:
            assert opened.finalized.height == height
            assert [item.block_hash for item in opened.unfinalized()] == known


def test_a_block_that_was_being_taken_back(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgotten but not yet cut off: it is there again, as one that nobody has answered for."""
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        first, second = maker.block(rng), maker.block(rng)
        store_block(store, first)
        store_block(store, second)
        with monkeypatch.context() as cut:
            cut.setattr(SegmentLog, "cut", lambda log, end: 0)
            assert store.take_back(second.block_hash)
        shutil.copytree(tmp_path / "home", tmp_path / "killed")
    with Store.open(tmp_path / "killed", SMALL) as store:
        assert any("had not been answered for" in text for text in store.take_notices())
        assert [item.height for item in store.unfinalized()] == [1, 2]
        assert store.take_back(second.block_hash)
        assert store.verify() == 1


def logs_of_two(home: Path, backend: Backend, rng: np.random.Generator) -> list[Path]:
    """Make a home of two finalized blocks, each record in a file of its own, and no rows.

    Returns the four files: blocks, then history.
    """
    maker = Maker(chain_genesis(), backend)
    with new_store(home, maker.genesis, SINGLE) as store:
        for _ in range(2):
            made = maker.block(rng)
            store_block(store, made)
            store.finalize([made.final])
    shutil.rmtree(home / "rows")
    (home / "rows").mkdir()
    return [path for name in ("blocks", "history") for path in sorted((home / name).iterdir())]


@pytest.mark.parametrize("length", [FILE_HEAD_BYTES + 20, FILE_HEAD_BYTES + RECORD_HEAD_BYTES + 20])
@pytest.mark.parametrize("count", [1, 2])
def test_a_torn_record_begins_a_file_and_the_rows_are_lost(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, length: int, count: int
) -> None:
    """Nothing stands behind it: it is the end of the log, though it is all that the file has."""
    files = logs_of_two(tmp_path, backend, rng)
    for path in (files[1], files[3]) if count == 2 else (files[3],):
        os.truncate(path, length)
    with Store.open(tmp_path, SINGLE) as store:
        assert store.finalized.height == 1
        assert len(store.unfinalized()) == 2 - count
        assert store.verify() == 4 - count


@pytest.mark.parametrize("which", ["head of the file", "file before a torn one"])
def test_what_is_no_torn_tail_is_never_cut(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, which: str
) -> None:
    """A whole record behind bytes that are none, or a later file: damage, and all stays."""
    files = logs_of_two(tmp_path, backend, rng)
    broken, place = (files[3], 0) if which == "head of the file" else (files[2], FILE_HEAD_BYTES)
    data = bytearray(broken.read_bytes())
    data[place] ^= 1
    broken.write_bytes(data)
    if which == "file before a torn one":
        os.truncate(files[3], FILE_HEAD_BYTES + 20)
    before = [path.read_bytes() for path in files]
    with pytest.raises(StoreDamaged):
        Store.open(tmp_path, SINGLE)
    assert [path.read_bytes() for path in files] == before
