"""Sorted runs against a dictionary: whatever is merged, pruned, lost or cut off, answers agree."""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.store import indexes, runs
from engine.store.indexes import Place
from engine.store.runs import FANOUT, RUNS_MAX, SortedRuns
from kernels.layout import U8

CHAIN = bytes(32)


def merge_once(index: SortedRuns) -> None:
    """Do the one merge that is due."""
    assert index.start_merge()
    index.finish_merge()


def random_hashes(rng: np.random.Generator, count: int) -> U8:
    """Return hashes of which some share their first 8 bytes."""
    hashes = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    hashes[: count // 4, :8] = 7
    return hashes


def heights(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the heights in spans."""
    return [height for first, last in spans for height in range(first, last + 1)]


def settle(index: SortedRuns) -> None:
    """Merge until nothing is due."""
    while index.start_merge():
        index.finish_merge()


def test_every_hash_is_found(tmp_path: Path, rng: np.random.Generator) -> None:
    """Hashes of 150 blocks, some empty, some with equal prefixes, are found at their places."""
    known: dict[bytes, Place] = {}
    blocks: dict[int, U8] = {}
    index = SortedRuns(tmp_path, CHAIN)
    for height in range(1, 151):
        hashes = blocks[height] = random_hashes(rng, int(rng.integers(0, 40)))
        known.update({row.tobytes(): Place(height, i) for i, row in enumerate(hashes)})
        indexes.index_hashes(index, height, hashes)
        indexes.index_hashes(index, height, hashes)
        if height % 5 == 0:
            settle(index)
        if height % 50 == 0:
            index.close()
            index = SortedRuns(tmp_path, CHAIN)
            for lost in heights(index.missing(1, height)):
                indexes.index_hashes(index, lost, blocks[lost])
        assert len(index.runs) <= 5 * FANOUT
    assert index.missing(1, 150) == []
    for value, place in known.items():
        assert place in indexes.find_hash(index, value)
    assert indexes.find_hash(index, bytes(32)) == []
    index.close()


def test_pages_of_an_account(tmp_path: Path, rng: np.random.Generator) -> None:
    """Pages of any size list an account's transactions once, the newest first."""
    known: dict[int, list[Place]] = {}
    index = SortedRuns(tmp_path, CHAIN)
    for height in range(1, 60):
        count = int(rng.integers(0, 30))
        senders, recipients = rng.integers(0, 6, (2, count)).astype(np.uint32)
        statuses = rng.integers(0, 2, count).astype(np.uint8)
        for i in range(count):
            known.setdefault(int(senders[i]), []).append(Place(height, i))
            if statuses[i] == 0 and senders[i] != recipients[i]:
                known.setdefault(int(recipients[i]), []).append(Place(height, i))
        indexes.index_parties(index, height, senders, recipients, statuses)
        settle(index)
    for slot, places in known.items():
        limit = int(rng.integers(1, 50))
        listed: list[Place] = []
        page = indexes.account_page(index, slot, None, limit)
        listed += page.places
        while page.before is not None:
            page = indexes.account_page(index, slot, page.before, limit)
            listed += page.places
        assert listed == places[::-1]
    index.close()


def test_what_is_lost_is_indexed_again(tmp_path: Path, rng: np.random.Generator) -> None:
    """Damaged and missing runs leave gaps that are told and can be filled, in any number."""
    blocks = {height: random_hashes(rng, 20) for height in range(1, 100)}
    index = SortedRuns(tmp_path, CHAIN)
    for height, hashes in blocks.items():
        indexes.index_hashes(index, height, hashes)
        settle(index)
    index.close()
    for attempt in range(20):
        paths = sorted(tmp_path.glob("*.run"))
        path = paths[int(rng.integers(len(paths)))]
        if attempt % 2:
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[int(rng.integers(len(data)))] ^= 0x10
            path.write_bytes(data)
        index = SortedRuns(tmp_path, CHAIN)
        assert len(index.removed) == 1 - attempt % 2
        gaps = heights(index.missing(1, 99))
        assert gaps
        for height in rng.permutation(gaps).tolist():
            indexes.index_hashes(index, height, blocks[height])
            if rng.integers(2):
                settle(index)
        assert index.missing(1, 99) == []
        assert len(index.runs) <= RUNS_MAX
        for height, hashes in blocks.items():
            assert Place(height, 3) in indexes.find_hash(index, hashes[3].tobytes())
        index.close()


def test_a_merge_that_was_cut_off(tmp_path: Path, rng: np.random.Generator) -> None:
    """Inputs that outlive their merge, and half-written files, are removed; nothing is doubled."""
    (tmp_path / "a").mkdir()
    index = SortedRuns(tmp_path / "a", CHAIN)
    hashes = random_hashes(rng, 20)
    last = FANOUT**2
    for height in range(1, last + 1):
        indexes.index_hashes(index, height, hashes)
        if height % FANOUT == 0:
            merge_once(index)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert len(list((tmp_path / "b").iterdir())) == FANOUT
    settle(index)
    index.close()
    for path in (tmp_path / "b").iterdir():
        shutil.copy(path, tmp_path / "a")
    (tmp_path / "a" / "half.run.tmp").write_bytes(b"half")
    index = SortedRuns(tmp_path / "a", CHAIN)
    assert len(index.runs) == 1
    assert len(list((tmp_path / "a").iterdir())) == 1
    found = indexes.find_hash(index, hashes[9].tobytes())
    assert found == [Place(height, 9) for height in range(1, last + 1)]
    index.close()


def test_what_was_in_memory_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    """Blocks that were not merged are missing after a kill, and no others; none after an end."""
    folder, killed = tmp_path / "index", tmp_path / "killed"
    folder.mkdir()
    index = SortedRuns(folder, CHAIN)
    for height in range(1, FANOUT + 4):
        indexes.index_hashes(index, height, random_hashes(rng, 20))
        settle(index)
    on_disk = sum(path.stat().st_size for path in folder.iterdir())
    assert index.disk_bytes == on_disk > 16 * 20 * FANOUT
    shutil.copytree(folder, killed)
    index.close()
    for where, spans in ((killed, [(FANOUT + 1, FANOUT + 3)]), (folder, [])):
        index = SortedRuns(where, CHAIN)
        assert index.missing(1, FANOUT + 3) == spans
        index.close()


def test_an_end_without_room(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be written, no merge and nothing in memory is in the way of an end."""

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for count in (FANOUT, 3):
        index = SortedRuns(tmp_path, CHAIN)
        for height in range(1, count + 1):
            indexes.index_hashes(index, height, random_hashes(rng, 20))
        with monkeypatch.context() as patched:
            patched.setattr(runs, "whole_file", no_room)
            assert index.start_merge() == (count == FANOUT)
            index.close()
        index = SortedRuns(tmp_path, CHAIN)
        assert index.missing(1, count) == [(1, count)]
        index.close()


def test_memory_has_a_bound(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many entries are written before another block is taken, in rows of heights."""
    monkeypatch.setattr(runs, "HELD_ENTRIES_MAX", 60)
    index = SortedRuns(tmp_path, CHAIN)
    blocks = {height: random_hashes(rng, 20) for height in (1, 2, 4, 5, 6, 7, 8, 10, 11)}
    for height, hashes in blocks.items():
        indexes.index_hashes(index, height, hashes)
        held = [run for run in index.runs if run.path is None]
        assert sum(len(run.keys) for run in held) <= 60
    spans = [(run.first, run.last) for run in index.runs if run.path is not None]
    assert spans == [(1, 2), (4, 6), (7, 8)]
    for height, hashes in blocks.items():
        assert Place(height, 7) in indexes.find_hash(index, hashes[7].tobytes())
    index.close()


def test_a_floor(tmp_path: Path, rng: np.random.Generator) -> None:
    """Below the floor whole runs go at once, and merged ones keep only what is above."""
    index = SortedRuns(tmp_path, CHAIN)
    last = FANOUT**2
    for height in range(1, last + 1):
        indexes.index_hashes(index, height, random_hashes(rng, 10))
        if height % FANOUT == 0:
            merge_once(index)
    before = index.disk_bytes
    index.drop_below(3)
    assert index.disk_bytes == before
    settle(index)
    (run,) = index.runs
    assert index.missing(3, last) == []
    assert run.path is not None
    assert len(run.keys) == 10 * (last - 2)
    assert int(run.values.min()) >> 32 == 3
    assert index.disk_bytes == run.path.stat().st_size < before
    indexes.index_hashes(index, last + 1, random_hashes(rng, 10))
    index.drop_below(last + 1)
    assert [run.first for run in index.runs] == [last + 1]
    assert list(tmp_path.iterdir()) == []
    index.close()


def test_merges_in_parts(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that does not fit its memory goes part by part and gives the same."""
    monkeypatch.setattr(runs, "MERGE_ENTRIES", 50)
    index = SortedRuns(tmp_path, CHAIN)
    blocks = {height: random_hashes(rng, 100) for height in range(1, FANOUT + 1)}
    for height, hashes in blocks.items():
        indexes.index_hashes(index, height, hashes)
    settle(index)
    assert len(index.runs) == 1
    keys = index.runs[0].keys
    assert bool((keys[1:] >= keys[:-1]).all())
    for height, hashes in blocks.items():
        for position in (0, 99):
            assert Place(height, position) in indexes.find_hash(index, hashes[position].tobytes())
    index.close()
