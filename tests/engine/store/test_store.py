"""The store as its owner uses it: append, finalize, read, restart."""

import errno
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from engine.queries.app import THREADS
from engine.store.config import StoreConfig
from engine.store.errors import StoreError, StoreFull, full
from engine.store.indexes import Place
from engine.store.segment import FILE_HEAD_BYTES, Location, SegmentLog
from engine.store.store import APPENDS_MAX, Store
from engine_api.server import CALLS_MAX
from kernels.backend import Backend
from tests.engine.store.chains import (
    SMALL,
    Maker,
    chain_genesis,
    index_block,
    new_store,
    payload_of,
    store_block,
)


def test_what_is_stored_is_there_again(
    tmp_path: Path, backend: Backend, rng: np.random.Generator
) -> None:
    """Payloads, headers, receipts and deltas come back as they went in, also after a restart."""
    maker = Maker(chain_genesis(), backend)
    store = new_store(tmp_path / "home", maker.genesis)
    for _ in range(20):
        store_block(store, maker.block(rng))
        if len(maker.made) % 3 == 0:
            final = [item for item in maker.made if item.height > store.finalized.height]
            assert store.finalize([item.final for item in final], maker.tip_hash) == []
    for _ in range(2):
        assert store.finalized.height == 18
        assert store.head.block_hash == maker.made[17].block_hash
        assert [item.height for item in store.unfinalized()] == [19, 20]
        for made in maker.made:
            assert payload_of(store, made.block_hash) == made.payload
            stored = store.block(made.block_hash)
            assert stored is not None
            assert stored.header == made.header
            history = store.history(made.block_hash)
            assert (history is not None) == (made.height <= 18)
            if history is not None:
                assert history.statuses.tolist() == made.outcome.statuses.tolist()
                changes = made.outcome.changes
                assert history.delta.slots.tolist() == changes.slots.tolist()
                assert history.delta.balances.tolist() == changes.balances_after.tolist()
                assert history.delta.nonces.tolist() == changes.nonces_after.tolist()
                assert history.delta.created_keys.tolist() == changes.created_keys.tolist()
        assert [b.block_hash for b in store.blocks_at(4, 100)] == [
            item.block_hash for item in maker.made[3:18]
        ]
        loaded = store.load_state(backend)
        assert loaded.state.state_hash() == maker.made[17].outcome.state_hash
        assert store.verify() == 20 + 18
        assert store.take_notices() == []
        store.close()
        store = Store.open(tmp_path / "home", SMALL, maker.chain_hash)
    store.close()


def test_the_last_block_is_taken_back(
    tmp_path: Path, backend: Backend, rng: np.random.Generator
) -> None:
    """Its row and its bytes go, also as the first of a file; one with others behind it stays."""
    maker = Maker(chain_genesis(), backend)
    store = new_store(tmp_path / "home", maker.genesis)
    first = maker.block(rng)
    store_block(store, first)
    used = store.disk_use().blocks
    for size in (10, 300, 300, 10):  # some begin a file of their own
        made = maker.block(rng, size)
        for _ in range(3):
            store_block(store, made)
            assert payload_of(store, made.block_hash) == made.payload
            assert store.take_back(made.block_hash)
            assert not store.take_back(made.block_hash)
            assert store.payload(made.block_hash) is None
            assert used <= store.disk_use().blocks <= used + FILE_HEAD_BYTES
        store_block(store, made)
        assert not store.take_back(maker.made[-2].block_hash)
        used = store.disk_use().blocks
    assert store.take_back(made.block_hash)
    for is_lost in (False, True):
        store.close()
        if is_lost:
            (tmp_path / "home" / "rows" / "data.mdb").unlink()
        store = Store.open(tmp_path / "home", SMALL)
        assert [item.height for item in store.unfinalized()] == [1, 2, 3, 4]
        assert store.verify() == 4
    store.finalize([item.final for item in maker.made[:4]])
    assert not store.take_back(maker.made[3].block_hash)
    store.close()


def test_a_block_that_goes_while_it_is_read(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for it gets nothing and no word of damage, though another one stands there."""
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        gone = maker.block(rng)
        store_block(store, gone)
        maker.back()
        other = maker.block(rng, 5)
        real = SegmentLog.read

        def late(log: SegmentLog, location: Location, block_hash: bytes) -> memoryview:
            monkeypatch.undo()
            assert store.take_back(gone.block_hash)
            store_block(store, other)
            return real(log, location, block_hash)

        monkeypatch.setattr(SegmentLog, "read", late)
        assert store.payload(gone.block_hash) is None
        assert payload_of(store, other.block_hash) == other.payload


def test_what_is_refused(tmp_path: Path, backend: Backend, rng: np.random.Generator) -> None:
    """Blocks without a parent, and finalizations out of order, change nothing."""
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        first, second = maker.block(rng), maker.block(rng)
        with pytest.raises(StoreError, match=r"store\.parent_unknown"):
            store_block(store, second)
        with pytest.raises(StoreError, match=r"store\.not_descendant"):
            store.finalize([first.final])
        store_block(store, first)
        store_block(store, first)
        store_block(store, second)
        with pytest.raises(StoreError, match=r"store\.not_descendant"):
            store.finalize([second.final])
        with pytest.raises(StoreError, match=r"store\.not_descendant"):
            store.set_head(b"?" * 32)
        store.set_head(second.block_hash)
        assert store.head.height == 2
        store.finalize([first.final, second.final])
        assert store.verify() == 4
        with pytest.raises(StoreError, match=r"store\.parent_unknown"):
            store_block(store, first)


def test_disk_use_is_bounded(tmp_path: Path, backend: Backend, rng: np.random.Generator) -> None:
    """Beyond max_disk_bytes new blocks are refused, finalization still has its share."""
    maker = Maker(chain_genesis(), backend)
    home = tmp_path / "home"
    new_store(home, maker.genesis).close()
    config = StoreConfig(max_disk_bytes=4_000_000, free_bytes_min=0, segment_bytes=4096)
    with Store.open(home, config) as store:
        refusal = None
        while refusal is None:
            made = maker.block(rng, 300)
            try:
                store_block(store, made)
            except StoreFull as error:
                refusal = error
        last = maker.made[-2]
        assert "max_disk_bytes" in str(refusal)
        store.finalize([item.final for item in maker.made[:-1]])
        use = store.disk_use()
        assert use.total <= 4_000_000
        assert store.verify() == 2 * last.height


def test_old_blocks_are_pruned(tmp_path: Path, backend: Backend, rng: np.random.Generator) -> None:
    """With keep_blocks, files and rows of old blocks go; state and newer blocks stay."""
    maker = Maker(chain_genesis(), backend)
    home = tmp_path / "home"
    new_store(home, maker.genesis).close()
    config = StoreConfig(keep_blocks=10, snapshot_every=20, free_bytes_min=0, segment_bytes=4096)
    store = Store.open(home, config)
    for _ in range(90):
        made = maker.block(rng)
        store_block(store, made)
        store.finalize([made.final], made.block_hash)
        index_block(store, maker, made)
        store.maintain()
        if made.height % 20 == 0:
            assert store.upkeep.collect_snapshot(is_waiting=True), store.take_notices()
    store.maintain()
    assert store.take_notices() == []
    for _ in range(2):
        assert [store.payload(item.block_hash) is None for item in maker.made[:75]] == [True] * 75
        assert all(payload_of(store, i.block_hash) == i.payload for i in maker.made[80:])
        assert store.history(maker.made[70].block_hash) is not None
        assert store.block_at(30) is None
        loaded = store.load_state(backend)
        assert loaded.base_height == 80
        assert loaded.state.state_hash() == maker.made[-1].outcome.state_hash
        hashes = maker.made[-1].outcome.transaction_hashes
        place = store.find_transaction(hashes[3].tobytes())
        assert place is not None
        assert (place.height, place.position) == (90, 3)
        assert store.find_transaction(maker.made[0].outcome.transaction_hashes[0].tobytes()) is None
        assert store.unindexed() == []
        store.close()
        store = Store.open(home, config)
    store.close()


def test_indexes_that_nobody_wants_are_made_when_somebody_does(
    tmp_path: Path, backend: Backend, rng: np.random.Generator
) -> None:
    """Without indexes nothing is entered, missed or found, and records are read all the same."""
    maker, home = Maker(chain_genesis(), backend), tmp_path / "home"
    made = maker.block(rng)
    name, place = made.outcome.transaction_hashes[2].tobytes(), Place(1, 2)
    with new_store(home, maker.genesis, replace(SMALL, is_indexed=False)) as store:
        store_block(store, made)
        with pytest.raises(AssertionError):
            index_block(store, maker, made)
        store.finalize([made.final], made.block_hash)
        index_block(store, maker, made)
        assert store.unindexed() == []
        assert store.find_transaction(name) is None
        record = store.compared_at(place)
        assert record is not None
        assert blake3(record).digest() == name
    with Store.open(home, SMALL) as store:
        assert store.unindexed() == [(1, 1)]
        index_block(store, maker, made)
        assert store.unindexed() == []
        assert store.find_transaction(name) == place
        assert store.compared_at(place) == record
        assert any(store.account_history(slot).places for slot in range(8))


def test_a_snapshot_for_which_no_process_can_be_started_is_tried_again(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that is short of processes or memory costs a snapshot, and no more."""
    maker = Maker(chain_genesis(), backend)
    config = StoreConfig(snapshot_every=1, free_bytes_min=0)
    with new_store(tmp_path / "home", maker.genesis, config) as store:

        def no_process(*_: object, **__: object) -> None:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        for attempt in range(2):
            made = maker.block(rng)
            store_block(store, made)
            store.finalize([made.final])
            with monkeypatch.context() as patched:
                if attempt == 0:
                    patched.setattr(subprocess, "Popen", no_process)
                store.maintain()
            assert [os.strerror(errno.EAGAIN) in text for text in store.take_notices()] == (
                [True] if attempt == 0 else []
            )
            assert store.upkeep.collect_snapshot(is_waiting=True) == (attempt == 1)


def test_all_threads_of_a_node_may_read_at_once(
    tmp_path: Path, backend: Backend, rng: np.random.Generator
) -> None:
    """However many calls and questions look at rows, blocks are stored and finalized beside them.

    A thread that is put aside in the middle of a look keeps its place.
    """
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store, ExitStack() as looks:
        for _ in range(CALLS_MAX + THREADS + 16):  # and pages, gossip, merges
            looks.enter_context(store._rows.read())
        made = maker.block(rng)
        store_block(store, made)
        store.finalize([made.final])
        assert store.verify() == 2


def test_old_blocks_wait_for_room_to_be_forgotten(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To forget them takes a commit: one without room is told, and made after a later block."""
    maker = Maker(chain_genesis(), backend)
    config = StoreConfig(keep_blocks=1, snapshot_every=10**6, free_bytes_min=0, segment_bytes=1)
    with new_store(tmp_path / "home", maker.genesis, config) as store:
        for _ in range(2):
            made = maker.block(rng)
            store_block(store, made)
            store.finalize([made.final])

        def no_room() -> None:
            raise full(tmp_path, "no room")

        monkeypatch.setattr(store._rows, "write", no_room)
        store.maintain()
        monkeypatch.undo()
        [notice] = store.take_notices()
        assert "no room" in notice
        assert payload_of(store, maker.made[0].block_hash) == maker.made[0].payload
        store.maintain()
        assert store.take_notices() == []
        assert [store.payload(item.block_hash) is None for item in maker.made] == [True, False]


def test_what_is_pruned_while_it_is_read_is_gone_not_damaged(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that goes between the look whether it is there and the opening is no damage."""
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        for _ in range(8):
            made = maker.block(rng, 30)
            store_block(store, made)
            store.finalize([made.final], made.block_hash)
        names = [item.block_hash for item in maker.made]
        real_has = SegmentLog.has
        prune: list[bool] = []

        def has(log: SegmentLog, location: Location) -> bool:
            """Look, and let the file go before anybody opens it."""
            found = real_has(log, location)
            if found and prune:
                prune.pop()
                log.remove(location.segment)
            return found

        monkeypatch.setattr(SegmentLog, "has", has)
        reads: list[Callable[[], object]] = [
            lambda: store.payload(names[0]),
            lambda: store.record(names[2], 0),
            lambda: store.transaction_at(Place(5, 0)),
            lambda: store.history(names[6]),
        ]
        for read in reads:
            assert read() is not None
            prune.append(True)
            assert read() is None
            assert not prune


def test_appends_run_beside_their_caller(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ticket is over when the block is durable, not before; so many may wait and no more."""
    maker = Maker(chain_genesis(), backend)
    release = threading.Event()
    with new_store(tmp_path / "home", maker.genesis) as store:
        sync = SegmentLog.sync

        def slow(log: SegmentLog) -> None:
            release.wait()
            sync(log)

        monkeypatch.setattr(SegmentLog, "sync", slow)
        blocks = [maker.block(rng, 3) for _ in range(APPENDS_MAX + 1)]
        tickets = []
        for made in blocks[:-1]:
            tickets.append(store.begin_append(made.block_hash, made.header, made.payload))
        again = store.begin_append(blocks[0].block_hash, blocks[0].header, blocks[0].payload)
        assert again is tickets[0]
        with pytest.raises(StoreFull):
            store.begin_append(blocks[-1].block_hash, blocks[-1].header, blocks[-1].payload)
        assert not any(ticket.is_over for ticket in tickets)
        assert store.unfinalized() == []
        release.set()
        store.finalize([made.final for made in blocks[:-1]])
        assert all(ticket.is_over for ticket in tickets)
        store_block(store, blocks[-1])
        assert store.verify() == 2 * APPENDS_MAX + 1


def test_a_disk_that_fails(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync nothing is written any more; what was answered for is there again."""
    maker = Maker(chain_genesis(), backend)
    store = new_store(tmp_path / "home", maker.genesis)
    first, second, third = (maker.block(rng) for _ in range(3))
    store_block(store, first)
    store_block(store, second)
    store.finalize([first.final])

    def broken(_: SegmentLog) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(SegmentLog, "sync", broken)
    with pytest.raises(StoreError, match=r"store\.failed"):
        store_block(store, third)
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"store\.failed"):
        store_block(store, third)
    with pytest.raises(StoreError, match=r"store\.failed"):
        store.finalize([second.final])
    assert payload_of(store, second.block_hash) == second.payload
    store.close()
    with Store.open(tmp_path / "home", SMALL) as opened:
        assert opened.finalized.block_hash == first.block_hash
        assert payload_of(opened, second.block_hash) == second.payload
        store_block(opened, third)
        opened.finalize([second.final, third.final])


def test_a_finalization_without_room_for_rows(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalization whose rows find no room is taken back whole, and can be asked for again."""
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        made = maker.block(rng)
        store_block(store, made)
        before = store.disk_use().history

        def no_room() -> None:
            raise full(tmp_path, "no room")

        monkeypatch.setattr(store._rows, "write", no_room)
        with pytest.raises(StoreFull):
            store.finalize([made.final])
        monkeypatch.undo()
        assert store.disk_use().history == before
        assert store.finalized.height == 0
        store.finalize([made.final])
        assert store.verify() == 2
