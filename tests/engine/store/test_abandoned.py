"""Blocks beside the finalized ones: they are forgotten, and what they took is given back."""

import ctypes
import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from engine.store import disk
from engine.store.segment import SegmentLog
from engine.store.store import Store
from kernels.backend import Backend
from tests.engine.store.chains import (
    SMALL,
    Maker,
    chain_genesis,
    new_store,
    payload_of,
    store_block,
)


def test_forks_are_abandoned_and_reclaimed(
    tmp_path: Path, backend: Backend, rng: np.random.Generator
) -> None:
    """Finalizing one branch forgets the others, of any length, and takes their room back."""
    maker = Maker(chain_genesis(), backend)
    store = new_store(tmp_path / "home", maker.genesis)
    first = maker.block(rng)
    store_block(store, first)
    beside = [maker.block(rng, 300) for _ in range(3)]
    for item in beside:
        store_block(store, item)
    for _ in beside:
        maker.back()
    second = maker.block(rng)
    store_block(store, second)
    before = store.disk_use().blocks
    abandoned = store.finalize([first.final, second.final], second.block_hash)
    assert sorted(abandoned) == sorted(item.block_hash for item in beside)
    assert store.disk_use().blocks < before - 2 * len(beside[0].payload)
    for _ in range(2):
        assert store.unfinalized() == []
        assert [store.payload(item.block_hash) for item in beside] == [None] * 3
        assert payload_of(store, first.block_hash) == first.payload
        assert payload_of(store, second.block_hash) == second.payload
        store.close()
        store = Store.open(tmp_path / "home", SMALL)
    store.close()


def test_a_record_of_a_block_that_is_abandoned_meanwhile_is_gone(
    tmp_path: Path, backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read after its bytes were given back is no record; nor is it damage."""
    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        abandoned = maker.block(rng, 300)
        store_block(store, abandoned)
        maker.back()
        other = maker.block(rng)
        store_block(store, other)
        record = store.record(abandoned.block_hash, 280)
        assert record is not None
        assert blake3(record).digest() == abandoned.outcome.transaction_hashes[280].tobytes()
        real = SegmentLog.read_parts
        later = [lambda: store.finalize([other.final])]

        def read_parts(log: SegmentLog, *place: Any) -> list[bytes]:
            """Abandon the block once its head is read; then read on."""
            found = real(log, *place)
            if later:
                later.pop()()
            return found

        monkeypatch.setattr(SegmentLog, "read_parts", read_parts)
        assert store.record(abandoned.block_hash, 280) is None
        assert not later
        assert store.record(other.block_hash, 3) is not None


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSPC])
def test_bytes_that_cannot_be_given_back_stay(
    tmp_path: Path, backend: Backend, rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch, code: int,
) -> None:  # fmt: skip
    """To punch a hole may need room, or be unknown: what was finalized is final all the same."""
    calls: list[int] = []

    class NoHoles:
        """A C library whose file system makes none."""

        def fallocate(self, *_: Any) -> int:
            """Fail."""
            calls.append(ctypes.set_errno(code))
            return -1

    maker = Maker(chain_genesis(), backend)
    with new_store(tmp_path / "home", maker.genesis) as store:
        abandoned = maker.block(rng, 300)
        store_block(store, abandoned)
        maker.back()
        other = maker.block(rng)
        store_block(store, other)
        before = store.disk_use().blocks
        monkeypatch.setattr(disk, "_LIBC", NoHoles())
        assert store.finalize([other.final]) == [abandoned.block_hash]
        assert len(calls) == 1
        assert store.disk_use().blocks == before
        assert store.finalized.block_hash == other.block_hash
        assert store.payload(abandoned.block_hash) is None
