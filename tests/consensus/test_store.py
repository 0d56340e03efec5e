"""The store answers what a plain dictionary does, before and after it is opened anew."""

from pathlib import Path

import lmdb
import numpy as np
import pytest

from consensus.core.events import Persist
from consensus.core.types import Epoch, Hash32, Request, Want
from consensus.store import Store, StoreError
from tests.consensus.blocks import make_block, make_boundary, make_evidence
from tests.sim.store import Store as Model

GENESIS = Hash32(b"g" * 32)
EPOCH_HEIGHTS = 20


def fill(rng: np.random.Generator, store: Store, model: Model, heights: int) -> None:
    """Give both the same random history, several Persists at a time."""
    height, group = 1, []
    while height <= heights:
        blocks = []
        for _ in range(int(rng.integers(1, 9))):
            epoch = (height - 1) // EPOCH_HEIGHTS
            ends = height % EPOCH_HEIGHTS == 0
            certified = ends or bool(rng.integers(3) == 0)
            blocks.append(make_block(rng, height, epoch, is_certified=certified))
            height += 1
            if ends:
                break
        if blocks[-1].certificate is None:
            last = blocks[-1].header
            blocks[-1] = make_block(rng, last.height, last.epoch, is_certified=True)
        ends = blocks[-1].header.height % EPOCH_HEIGHTS == 0
        persist = Persist(
            finalized=tuple(blocks),
            boundary=make_boundary(rng, blocks[-1]) if ends else None,
            evidence=(make_evidence(rng, 1, height),) if rng.integers(4) == 0 else (),
        )
        model.put(persist)
        group.append(persist)
        if rng.integers(2):
            assert store.put(group)
            group = []
    store.put(group)


def check_same(rng: np.random.Generator, store: Store, model: Model, heights: int) -> None:
    """Compare every answer."""
    assert store.top() == model.top()
    for count in (1, 3, 100):
        assert store.last_boundaries(count) == model.last_boundaries(count)
    for epoch in (*range(8), 2**64 - 2, 2**64 - 1):
        assert store.boundary(epoch) == model.boundaries.get(epoch)
        request = Request(want=Want.BOUNDARY, epoch=Epoch(epoch))
        assert store.answer(request) == model.answer(request)
    assert set(store.evidence()) == set(model.evidence)
    for _ in range(100):
        first, count = int(rng.integers(0, heights + 5)), int(rng.integers(1, 65))
        assert store.load(first, count) == model.load(first, count)
        request = Request(want=Want.RANGE, first=first)
        assert store.answer(request) == model.answer(request)
    for height in range(heights + 2):
        block = model.blocks.get(height)
        assert store.block(height) == block
        name = Hash32(bytes(32)) if block is None else block.block_hash
        assert store.height_of(name) == (None if block is None else height)
        request = Request(want=Want.BLOCK, block_hash=name)
        assert store.answer(request) == model.answer(request)
    assert store.answer(Request(want=Want.FINAL)) == model.answer(Request(want=Want.FINAL))


def test_it_answers_as_the_model_does(tmp_path: Path, rng: np.random.Generator) -> None:
    """Blocks, ranges, boundaries and evidence come back as they were put, also after a restart."""
    store, model = Store(tmp_path / "store", GENESIS), Model()
    check_same(rng, store, model, 3)
    fill(rng, store, model, 90)
    check_same(rng, store, model, 100)
    store.close()
    again = Store(tmp_path / "store", GENESIS)
    check_same(rng, again, model, 100)
    again.close()


def test_a_certificate_is_found_above_a_height_that_has_none(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """What makes a height final is the first certificate at it or above."""
    store = Store(tmp_path / "store", GENESIS)
    blocks = tuple(make_block(rng, n, 0, is_certified=n in (3, 6)) for n in range(1, 7))
    store.put([Persist(finalized=blocks)])
    for height, expected in ((1, 3), (3, 3), (4, 6), (6, 6)):
        found = store.certificate(height)
        assert found is not None
        assert found.header.height == expected
    assert store.certificate(7) is None
    store.close()


def test_the_same_evidence_again_is_kept_once(tmp_path: Path, rng: np.random.Generator) -> None:
    """Evidence of one signer, view and kinds is one row."""
    store = Store(tmp_path / "store", GENESIS)
    item = make_evidence(rng, 1, 5)
    assert store.put([Persist(evidence=(item, item)), Persist(evidence=(item,))])
    assert store.evidence() == (item,)
    assert not store.put([Persist(append=(b"only the journal's",))])
    store.close()


def test_a_store_of_another_chain_is_refused(tmp_path: Path) -> None:
    """A store opens for the chain it was made for, and says so otherwise."""
    Store(tmp_path / "store", GENESIS).close()
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "store", Hash32(b"h" * 32))
    assert caught.value.code == "consensus_store.other_chain"


def test_a_changed_row_is_an_error_and_never_an_answer(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """A row whose bytes were changed is told, with the way out."""
    store = Store(tmp_path / "store", GENESIS)
    block = make_block(rng, 1, 0, is_certified=True)
    store.put([Persist(finalized=(block,))])
    store.close()
    with (
        lmdb.open(str(tmp_path / "store"), max_dbs=8) as environment,
        environment.begin(write=True) as transaction,
    ):
        table, key = environment.open_db(b"heights", transaction), (1).to_bytes(8, "big")
        value = bytearray(transaction.get(key, db=table) or b"")
        value[int(rng.integers(len(value)))] ^= 1
        transaction.put(key, bytes(value), db=table)
    store = Store(tmp_path / "store", GENESIS)
    for ask in (store.top, lambda: store.block(1), lambda: store.load(1, 1)):
        with pytest.raises(StoreError) as caught:
            ask()
        assert caught.value.code == "consensus_store.damaged"
    store.close()
