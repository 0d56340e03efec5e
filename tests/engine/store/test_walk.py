"""Random forks, finalizations, snapshots, restarts: the store agrees with a dictionary."""

from pathlib import Path

import numpy as np
import pytest

from engine.store.config import StoreConfig
from engine.store.errors import StoreDamaged
from engine.store.snapshot import list_snapshots
from engine.store.store import Store
from kernels.backend import Backend
from tests.engine.store.chains import (
    SMALL,
    Made,
    Maker,
    chain_genesis,
    index_block,
    new_store,
    payload_of,
    store_block,
)

DEPTH = 8


def stand_on(maker: Maker, target: Made | None) -> None:
    """Move the maker to a block that it has made, or to genesis."""
    by_hash = {item.block_hash: item for item in maker.made}
    ahead = []
    while target is not None and not _is_ancestor(maker, target):
        ahead.append(target)
        target = by_hash.get(target.parent_hash)
    while maker.tip is not target:
        maker.back()
    for item in reversed(ahead):
        maker.state.redo([item.outcome.changes])
        maker.tip = item


def _is_ancestor(maker: Maker, item: Made) -> bool:
    by_hash = {made.block_hash: made for made in maker.made}
    node = maker.tip
    while node is not None and node.height > item.height:
        node = by_hash.get(node.parent_hash)
    return node is item


def check(store: Store, final: list[Made], alive: list[Made], gone: list[Made]) -> None:
    """Compare everything that the store says with what it should."""
    assert store.finalized.height == len(final)
    assert [item.block_hash for item in store.blocks_at(1, 1_000)] == [
        item.block_hash for item in final
    ]
    assert {item.block_hash for item in store.unfinalized()} == {i.block_hash for i in alive}
    order = [item.height for item in store.unfinalized()]
    assert order == sorted(order)
    for made in [*final[-10:], *alive]:
        assert payload_of(store, made.block_hash) == made.payload
    for made in gone[-10:]:
        assert store.block(made.block_hash) is None


def test_forks_and_restarts(tmp_path: Path, backend: Backend, rng: np.random.Generator) -> None:
    """250 random steps up to 8 deep: nothing is lost, nothing that was abandoned comes back."""
    maker = Maker(chain_genesis(), backend)
    store = new_store(tmp_path / "home", maker.genesis)
    final: list[Made] = []
    alive: list[Made] = []
    gone: list[Made] = []
    for step in range(250):
        places = [None, *alive] if not final else [final[-1], *alive]
        parent = places[int(rng.integers(len(places)))]
        if (parent.height if parent else 0) < len(final) + DEPTH:
            stand_on(maker, parent)
            made = maker.block(rng, int(rng.integers(0, 12)))
            store_block(store, made)
            alive.append(made)
        if step % 7 == 6:
            target = alive[int(rng.integers(len(alive)))]
            branch = [target]
            while branch[-1].height > len(final) + 1:
                parent_hash = branch[-1].parent_hash
                branch.append(next(i for i in alive if i.block_hash == parent_hash))
            abandoned = store.finalize([item.final for item in branch[::-1]], target.block_hash)
            final += branch[::-1]
            kept, lost = {target.block_hash}, []
            for item in sorted(alive, key=lambda item: item.height):
                if item.parent_hash in kept:
                    kept.add(item.block_hash)
                elif item not in branch:
                    lost.append(item)
            assert sorted(abandoned) == sorted(item.block_hash for item in lost)
            gone += lost
            alive = [i for i in alive if i.block_hash in kept and i is not target]
        if step % 50 == 49:
            store.close()
            if step % 100 == 99:
                (tmp_path / "home" / "rows" / "data.mdb").unlink()
            store = Store.open(tmp_path / "home", SMALL)
            check(store, final, alive, gone)
            loaded = store.load_state(backend)
            assert loaded.state.state_hash() == final[-1].outcome.state_hash
            told = ["made the rows anew" in text for text in store.take_notices()]
            assert told == [True] * (step % 100 == 99)
    check(store, final, alive, gone)
    store.close()


def test_a_finalization_between_sync_and_commit(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalization that was synced and not committed is finished on opening, forks abandoned."""
    maker = Maker(chain_genesis(), backend)
    store = new_store(tmp_path / "home", maker.genesis)
    beside = maker.block(rng)
    maker.back()
    final = [maker.block(rng) for _ in range(3)]
    above = maker.block(rng)
    for made in (beside, *final, above):
        store_block(store, made)
    monkeypatch.setattr(store._rows, "write", _power_cut)
    with pytest.raises(KeyboardInterrupt):
        store.finalize([item.final for item in final])
    monkeypatch.undo()
    store.close()
    with Store.open(tmp_path / "home", SMALL) as opened:
        assert opened.finalized.height == 3
        assert [item.block_hash for item in opened.unfinalized()] == [above.block_hash]
        assert opened.block(beside.block_hash) is None
        assert opened.load_state(backend).state.state_hash() == final[-1].outcome.state_hash
        assert len(opened.take_notices()) == 1


def _power_cut() -> None:
    raise KeyboardInterrupt


def test_snapshots_fall_back(tmp_path: Path, backend: Backend, rng: np.random.Generator) -> None:
    """The newest good snapshot is used; a damaged one is told, and the one before or genesis is."""
    maker = Maker(chain_genesis(), backend)
    config = StoreConfig(segment_bytes=4096, free_bytes_min=0, snapshot_every=5)
    home = tmp_path / "home"
    store = new_store(home, maker.genesis, config)
    for _ in range(23):
        made = maker.block(rng)
        store_block(store, made)
        store.finalize([made.final], made.block_hash)
        index_block(store, maker, made)
        store.maintain()
        store.upkeep.collect_snapshot(is_waiting=True)
    assert store.take_notices() == []
    bases = []
    for _ in range(3):
        loaded = store.load_state(backend)
        assert loaded.state.state_hash() == made.outcome.state_hash
        bases.append(loaded.base_height)
        store.close()
        paths = list_snapshots(home / "snapshots")
        if paths:
            data = bytearray(paths[0].read_bytes())
            data[-20] ^= 1
            paths[0].write_bytes(data)
        store = Store.open(home, config)
    assert bases == [20, 15, 0]
    assert list_snapshots(home / "snapshots") == []
    store.close()


def test_a_snapshot_process_that_ends(
    tmp_path: Path, backend: Backend, rng: np.random.Generator
) -> None:
    """A snapshot whose process is killed is told; nothing is left, and the next one works."""
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        made = maker.block(rng)
        store_block(store, made)
        store.finalize([made.final])
        task = store.upkeep.start_snapshot(store.finalized)
        task.stop()
        assert not store.upkeep.collect_snapshot()
        assert "height 1" in store.take_notices()[0]
        assert list((tmp_path / "home" / "snapshots").iterdir()) == []
        assert not store.upkeep.collect_snapshot()
        store.upkeep.start_snapshot(store.finalized)
        assert store.upkeep.collect_snapshot(is_waiting=True)
        assert store.load_state(backend).base_height == 1


def test_a_snapshot_is_never_made_of_a_damaged_one_again(
    tmp_path: Path, backend: Backend, rng: np.random.Generator
) -> None:
    """What spoils while the home is open is removed by the first job that reads it, and told."""
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        for height in range(1, 7):
            made = maker.block(rng)
            store_block(store, made)
            store.finalize([made.final], made.block_hash)
            if height in (2, 4):
                store.upkeep.start_snapshot(store.finalized)
                assert store.upkeep.collect_snapshot(is_waiting=True)
        newest, older = list_snapshots(tmp_path / "home" / "snapshots")
        data = bytearray(newest.read_bytes())
        data[-20] ^= 1
        newest.write_bytes(data)
        store.upkeep.start_snapshot(store.finalized)
        assert not store.upkeep.collect_snapshot(is_waiting=True)
        told = store.take_notices()
        assert any("removed the snapshot of height 4" in text for text in told)
        assert list_snapshots(tmp_path / "home" / "snapshots") == [older]
        store.upkeep.start_snapshot(store.finalized)
        assert store.upkeep.collect_snapshot(is_waiting=True), store.take_notices()
        assert store.load_state(backend).base_height == 6


def test_damage_that_stands_alone(
    tmp_path: Path, backend: Backend, rng: np.random.Generator
) -> None:
    """Without rows, a broken record is damage, unless it breaks off at the very end."""
    maker = Maker(chain_genesis(), backend)
    config = StoreConfig(segment_bytes=2**20, free_bytes_min=0)
    home = tmp_path / "home"
    with new_store(home, maker.genesis, config) as store:
        for _ in range(4):
            store_block(store, maker.block(rng))
    log = home / "blocks" / "0000000001.seg"
    whole = log.read_bytes()
    for path in (home / "rows").iterdir():
        path.unlink()
    log.write_bytes(whole[:64] + bytes([whole[64] ^ 1]) + whole[65:])
    with pytest.raises(StoreDamaged, match=r"0000000001\.seg, byte 64"):
        Store.open(home, config)
    log.write_bytes(whole[:-100])
    with Store.open(home, config) as store:
        assert [item.height for item in store.unfinalized()] == [1, 2, 3]
        assert any("cut" in text for text in store.take_notices())
