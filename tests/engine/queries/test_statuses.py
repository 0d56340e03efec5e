"""Statuses that are kept: copies, bounded in bytes and blocks, those asked for last."""

import numpy as np
import pytest

from engine.queries import statuses
from engine.queries.reader import PAGE_MAX
from engine.queries.statuses import StatusKeeper
from kernels.layout import U8


def asked(keeper: StatusKeeper, name: int, count: int = 10) -> bool:
    """Ask for a block's statuses; say whether they had to be read."""
    was_read = []

    def read() -> U8:
        was_read.append(name)
        return np.full(1_000 + count, name, np.uint8)[1_000:]

    found = keeper.statuses_of(bytes([name]), read)
    assert found.tolist() == [name] * count
    assert found.base is None, "the rest of the record is not kept"
    return bool(was_read)


def test_those_asked_for_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and blocks are bounded; what is too large for all of it is read each time."""
    monkeypatch.setattr(statuses, "STATUSES_BYTES_MAX", 40)
    keeper = StatusKeeper()
    assert [asked(keeper, name) for name in (1, 2, 3, 4, 1)] == [True] * 4 + [False]
    assert keeper.resident_bytes == 40
    assert [asked(keeper, name) for name in (5, 1, 3, 4, 5, 2)] == [True] + [False] * 4 + [True]
    assert asked(keeper, 9, count=41)
    assert asked(keeper, 9, count=41)
    assert keeper.resident_bytes == 0
    monkeypatch.setattr(statuses, "STATUSES_BLOCKS_MAX", 2)
    assert [asked(keeper, name) for name in (1, 2, 3, 2, 3, 1)] == [*[True] * 3, False, False, True]
    assert keeper.resident_bytes == 20


def test_a_page_reads_each_block_once() -> None:
    """A page over as many blocks as it has lines, each of 100,000, fits in."""
    keeper = StatusKeeper()
    for is_new in (True, False):
        assert [asked(keeper, n, 100_000) for n in range(PAGE_MAX)] == [is_new] * PAGE_MAX
