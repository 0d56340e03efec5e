"""Boot: what is on disk is found; a journal that cannot be trusted makes an observer, durably."""

from pathlib import Path

import numpy as np
import pytest

from consensus.core.events import Persist
from consensus.core.journal import empty_journal, observer_journal, replay
from consensus.core.types import Hash32
from consensus.journal import Journal, create_journal, read_journal
from consensus.recovery import JOURNAL_NAME, STORE_NAME, Disks, open_disks
from consensus.store import Store
from tests.consensus.blocks import make_block, make_boundary

GENESIS = Hash32(b"g" * 32)
WALL_MS = 1_234_567


def open_home(folder: Path, *, has_key: bool = True) -> Disks:
    """Open a home."""
    return open_disks(folder, genesis_hash=GENESIS, has_key=has_key, wall_ms=WALL_MS)


def test_a_new_home_boots_from_genesis(tmp_path: Path) -> None:
    """With the journal of `init` there is nothing to tell, and nothing final."""
    create_journal(tmp_path / JOURNAL_NAME, empty_journal())
    disks = open_home(tmp_path)
    boot = disks.boot()
    assert boot.journal == empty_journal()
    assert boot.finalized is None
    assert boot.boundaries == ()
    assert disks.notices == []
    disks.close()


def test_what_is_on_disk_is_found(tmp_path: Path, rng: np.random.Generator) -> None:
    """Journal, highest final block and boundaries are those that were written."""
    create_journal(tmp_path / JOURNAL_NAME, [*empty_journal(), b"record"])
    block = make_block(rng, 5, 0, is_certified=True)
    boundary = make_boundary(rng, block)
    store = Store(tmp_path / STORE_NAME, GENESIS)
    store.put([Persist(finalized=(block,), boundary=boundary)])
    store.close()
    disks = open_home(tmp_path)
    boot = disks.boot()
    assert boot.journal == (*empty_journal(), b"record")
    assert boot.finalized == block
    assert boot.boundaries == (boundary,)
    disks.close()


def test_a_missing_journal_makes_an_observer_for_good(tmp_path: Path) -> None:
    """W3: the mark is on disk at once, so that a second start finds an observer, too."""
    disks = open_home(tmp_path)
    assert disks.boot().journal == observer_journal(WALL_MS)
    assert len(disks.notices) == 1
    disks.close()
    again = open_home(tmp_path)
    assert replay(again.boot().journal).observer_since_ms == WALL_MS
    assert again.notices == []
    again.close()


def test_a_clock_that_is_behind_makes_no_early_mark(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """W3: the mark is not before the last final block, whatever the clock of the machine says."""
    block = make_block(rng, 2_000, 0, is_certified=True)
    assert block.header.timestamp_ms > WALL_MS
    store = Store(tmp_path / STORE_NAME, GENESIS)
    store.put([Persist(finalized=(block,))])
    store.close()
    disks = open_home(tmp_path)
    assert disks.boot().journal == observer_journal(block.header.timestamp_ms)
    disks.become_observer("votes of another key", WALL_MS)
    assert disks.boot().journal == observer_journal(block.header.timestamp_ms)
    disks.close()


def test_a_follower_needs_no_journal(tmp_path: Path) -> None:
    """Without a key nothing was signed: an empty journal is made, and nobody observes."""
    disks = open_home(tmp_path, has_key=False)
    assert disks.boot().journal == empty_journal()
    assert disks.notices == []
    disks.close()


def test_a_torn_tail_is_told_and_nothing_else(tmp_path: Path) -> None:
    """A crash in the middle of a write leaves a validator a validator."""
    path = tmp_path / JOURNAL_NAME
    create_journal(path, empty_journal())
    journal = Journal(path)
    journal.append([b"record"])
    journal.append([b"torn"])
    journal.close()
    path.write_bytes(path.read_bytes()[:-1])
    disks = open_home(tmp_path)
    assert disks.boot().journal == (*empty_journal(), b"record")
    assert "cut off" in disks.notices[0]
    disks.close()


@pytest.mark.parametrize("at", [0, 20, 60])
def test_damage_makes_an_observer_and_is_kept(tmp_path: Path, at: int) -> None:
    """A damaged journal is put aside for people, each time under another name."""
    path = tmp_path / JOURNAL_NAME
    create_journal(path, empty_journal())
    journal = Journal(path)
    journal.append([b"record"])
    journal.close()
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 1
    for number in (1, 2):
        path.write_bytes(damaged)
        disks = open_home(tmp_path)
        assert disks.boot().journal == observer_journal(WALL_MS)
        assert "does not vote" in disks.notices[0]
        disks.close()
        kept = tmp_path / f"{JOURNAL_NAME}.damaged-{number}"
        assert kept.read_bytes() == bytes(damaged)


def test_records_that_make_no_sense_make_an_observer(tmp_path: Path) -> None:
    """Whole records that the core refuses are put aside in the same way."""
    path = tmp_path / JOURNAL_NAME
    create_journal(path, [b"\xff nonsense"])
    disks = open_home(tmp_path)
    disks.become_observer("the core refuses it", WALL_MS)
    assert disks.boot().journal == observer_journal(WALL_MS)
    assert read_journal(path).records == observer_journal(WALL_MS)
    assert "the core refuses it" in disks.notices[0]
    disks.close()
