"""The file that keeps a development chain: whole, or as it was; and nothing else is unpacked."""

import resource
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine import dev
from engine.events import Event, Finalized
from engine.node import Ready
from engine.opening import open_service
from engine.store.config import StoreConfig
from engine.store.store import Store

ROOM_BYTES = 2**16
WAIT_S = 60
"""far beyond what a block takes"""


@pytest.fixture
def little_room() -> Iterator[None]:
    """Let no file of this process grow beyond ROOM_BYTES, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_state_comes_back_without_what_ran(tmp_path: Path) -> None:
    """What is saved can be opened; sockets and secrets of the process before are left out."""
    home, state = tmp_path / "home", tmp_path / "state"
    dev.open_home(home, None, 2, 1)
    (home / "run").mkdir(exist_ok=True)
    (home / "run" / "left").write_text("x")
    dev.save_home(home, state)
    again = tmp_path / "again"
    dev.open_home(again, state, 9, 2)
    assert not (again / "run").exists()
    with Store.open(home) as first, Store.open(again) as second:
        assert second.genesis_hash == first.genesis_hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "home", "state"]


def test_a_state_that_finds_no_room_leaves_the_one_before(
    tmp_path: Path, little_room: None
) -> None:
    """The old file stays as it was, and nothing half written takes the room that is left."""
    folder, state = tmp_path / "home", tmp_path / "state"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_bytes(bytes(ROOM_BYTES))
    state.write_text("before")
    with pytest.raises(OSError, match="too large"):
        dev.save_home(folder, state)
    assert state.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "state"]


def test_a_state_of_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds count all members together, before the first is written."""
    folder, state = tmp_path / "home", tmp_path / "state"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(bytes(100))
    dev.save_home(folder, state)
    for bound, number in (("STATE_BYTES_MAX", 299), ("STATE_MEMBERS_MAX", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(dev, bound, number)
            with pytest.raises(dev.DevError, match="larger than any"):
                dev.open_home(tmp_path / "out", state, 1, 1)
    assert not (tmp_path / "out").exists()
    dev.open_home(tmp_path / "out", state, 1, 1)
    assert (tmp_path / "out" / "c").stat().st_size == 100


def test_a_full_disk_stops_blocks_and_not_the_chain(tmp_path: Path) -> None:
    """It is told once, and blocks are made again when there is room."""
    Store.create(tmp_path / "home", dev.dev_genesis(2, 1))
    told: list[str] = []
    is_told, is_made = threading.Event(), threading.Event()

    def tell(why: str) -> None:
        told.append(why)
        is_told.set()

    def report(event: Event) -> None:
        if isinstance(event, Finalized):
            is_made.set()

    full = StoreConfig(free_bytes_min=2**62)
    with Store.open(tmp_path / "home", full) as store:
        service = open_service(store, backend="serial", report=report)
        ready = Ready(service=service, store=store, engine_api="", queries="")
        finalizer = dev.Finalizer(ready, dev.Pace(block_ms=1, is_on_demand=False), tell=tell)
        finalizer.start()
        try:
            assert is_told.wait(WAIT_S)
            assert not is_made.is_set()
            store.config = replace(full, free_bytes_min=0)
            assert is_made.wait(WAIT_S)
        finally:
            finalizer.stop()
            service.close()
    assert len(told) == 1
    assert "free disk space" in told[0]
