"""The disk's queue: nothing leaves before it and all before it are durable, and order is kept."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from consensus.core import events as ev
from consensus.core.types import FinalizedBlock, Hash32, Height, PeerId, Request, Want
from consensus.disk import Disk
from consensus.journal import Journal, create_journal, read_journal
from consensus.store import Store
from tests.consensus.blocks import make_block
from tests.consensus.local import wait_until

GENESIS = Hash32(b"g" * 32)


class Rig:
    """A disk with what it calls."""

    def __init__(self, folder: Path) -> None:
        """Make a home."""
        self.folder = folder
        create_journal(folder / "journal", [b"cut"])
        self.journal = Journal(folder / "journal")
        self.store = Store(folder / "store", GENESIS)
        self.left: list[tuple[ev.SendEffect, tuple[bytes, ...], int]] = []
        """what left, with the journal's records and the store's height at that moment"""
        self.loaded: list[ev.Loaded] = []
        self.failures: list[BaseException] = []
        self.groups: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.disk = Disk(
            journal=self.journal,
            store=self.store,
            perform=self._perform,
            on_durable=self._on_durable,
            on_loaded=self.loaded.append,
            on_failure=lambda _where, error: self.failures.append(error),
        )

    def _perform(self, effect: ev.SendEffect) -> None:
        top = self.store.top()
        height = 0 if top is None else top.header.height
        self.left.append((effect, read_journal(self.folder / "journal").records, height))

    def _on_durable(self, group: Sequence[ev.Persist], took_ms: int) -> None:
        assert took_ms >= 0
        self.groups.append(len(group))
        self.gate.wait(10)

    def close(self) -> None:
        """Stop and close."""
        self.disk.stop()
        self.journal.close()
        self.store.close()


def mark(number: int) -> ev.Send:
    """Return an effect that can be told from others."""
    return ev.Send(peer=PeerId(b"p"), message=Request(want=Want.RANGE, first=number))


def answer(peer: bytes, first: int) -> ev.AnswerFromStore:
    """Return a question of a peer."""
    return ev.AnswerFromStore(peer=PeerId(peer), request=Request(want=Want.RANGE, first=first))


def test_everything_leaves_in_order_and_behind_its_records(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """When an effect leaves, the records and blocks of its Persist and all before are durable."""
    rig = Rig(tmp_path)
    expected: list[tuple[ev.Send, tuple[bytes, ...], int]] = []
    records, height = [b"cut"], 0
    works: list[ev.Persist] = []
    for number in range(200):
        append: tuple[bytes, ...] = ()
        cut: tuple[bytes, ...] | None = None
        finalized: tuple[FinalizedBlock, ...] = ()
        choice = int(rng.integers(5))
        if choice == 0:
            records = [b"cut", bytes([number])]
            cut = tuple(records)
        elif choice < 3:
            append = (b"record %d" % number,)
            records.extend(append)
        if choice in (0, 3):
            height += 1
            finalized = (make_block(rng, height, 0, is_certified=True),)
        then = mark(number)
        works.append(ev.Persist(finalized=finalized, append=append, cut=cut, then=(then,)))
        expected.append((then, tuple(records), height))
    for work in works[:100]:
        rig.disk.put(work)
    rig.disk.start()
    for work in works[100:]:
        rig.disk.put(work)
    rig.close()
    assert not rig.failures
    assert [left[0] for left in rig.left] == [item[0] for item in expected]
    for (_, found, top), (_, least, height) in zip(rig.left, expected, strict=True):
        assert top >= height
        if found[: len(least)] != least:
            # A later cut of the same group is durable already: it holds what is still needed.
            assert any(found[:2] == item[1][:2] for item in expected)
    assert rig.left[-1][1] == expected[-1][1]


def test_what_waits_is_written_together(tmp_path: Path) -> None:
    """While one write is under way the next ones gather, and become one."""
    rig = Rig(tmp_path)
    rig.gate.clear()
    rig.disk.start()
    rig.disk.put(ev.Persist(append=(b"first",)))
    wait_until("the first is written", lambda: rig.groups == [1])
    for number in range(50):
        rig.disk.put(ev.Persist(append=(bytes([number]),), then=(mark(number),)))
    rig.gate.set()
    wait_until("all have left", lambda: len(rig.left) == 50)
    assert rig.groups == [1, 50]
    rig.close()


def test_answers_stand_aside(tmp_path: Path) -> None:
    """They come behind their records, in turn; a vote that comes later does not wait for all."""
    rig = Rig(tmp_path)
    asked = tuple(answer(peer, n) for peer in (b"a", b"b") for n in range(8))
    begun_ns = time.monotonic_ns()
    works = [ev.Persist(append=(b"r",), then=asked), ev.Persist(append=(b"s",), then=(mark(1),))]
    for work in works:
        rig.disk.put(work)
    rig.disk.start()
    wait_until("all have left", lambda: len(rig.left) == 17)
    rig.close()
    assert not rig.failures
    assert rig.left[0][0] == mark(1), "sent at the end of its group"
    assert [left[0] for left in rig.left[1:]] == [
        answer(peer, n) for n in range(8) for peer in (b"a", b"b")
    ]
    assert all(left[1] == (b"cut", b"r", b"s") for left in rig.left)
    assert rig.disk.answers._from_ns > begun_ns, "a rest follows"


def test_what_waits_for_an_answer_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """At the end all is written and sent, and whoever is not answered yet asks somebody else."""
    rig = Rig(tmp_path)
    asked = tuple(answer(bytes([n]), n) for n in range(100))
    rig.disk.put(ev.Persist(then=asked))
    rig.disk.put(ev.Persist(append=(b"r",), then=(mark(1),)))
    rig.disk.stop()
    rig.disk.start()
    wait_until("the thread ended", lambda: not rig.disk._thread.is_alive())
    assert [left[0] for left in rig.left] == [mark(1)]
    assert len(rig.disk.answers) == 100
    rig.close()


def test_nothing_to_write_is_no_write(tmp_path: Path) -> None:
    """A Persist without records is a place in the queue, and costs no sync."""
    rig = Rig(tmp_path)
    rig.disk.start()
    before = (tmp_path / "journal").stat().st_size
    rig.disk.put(ev.Persist(then=(mark(1),)))
    wait_until("it has left", lambda: len(rig.left) == 1)
    assert rig.groups == []
    assert (tmp_path / "journal").stat().st_size == before
    rig.close()


def test_blocks_are_read_behind_what_was_put_before(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """LoadFinalized sees every block of the Persists before it."""
    rig = Rig(tmp_path)
    blocks = tuple(make_block(rng, n, 0, is_certified=True) for n in range(1, 6))
    rig.disk.put(ev.Persist(finalized=blocks))
    rig.disk.put(ev.LoadFinalized(first=Height(2), count=10))
    rig.disk.start()
    wait_until("blocks are loaded", lambda: bool(rig.loaded))
    assert rig.loaded == [ev.Loaded(blocks=blocks[1:])]
    rig.close()


@pytest.mark.parametrize("part", ["journal", "store"])
def test_a_write_that_fails_lets_nothing_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, rng: np.random.Generator
) -> None:
    """After an error of either file nothing of the group leaves, nor anything later; it is told."""
    rig = Rig(tmp_path)

    def broken(_: object) -> bool:
        raise OSError(28, "No space left on device")

    target, name = (rig.journal, "append") if part == "journal" else (rig.store, "put")
    monkeypatch.setattr(target, name, broken)
    block = make_block(rng, 1, 0, is_certified=True)
    rig.disk.put(ev.Persist(append=(b"lost",), finalized=(block,), then=(mark(1),)))
    rig.disk.put(ev.Persist(then=(mark(2),)))
    rig.disk.start()
    wait_until("the failure is told", lambda: bool(rig.failures))
    # The store may be ahead of the journal, never behind it.
    assert (rig.store.top() is not None) is (part == "journal")
    assert read_journal(tmp_path / "journal").records == (b"cut",)
    rig.close()
    assert isinstance(rig.failures[0], OSError)
    assert rig.left == []
