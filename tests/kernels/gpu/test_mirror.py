"""Claims about the host's copy of a device's accounts: in order, and not without a bound behind."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kernels.gpu.mirror import FOLLOWING_MAX, Mirror

LOOK_SECONDS = 0.2
"""So long one looks whether somebody waits: too short a look sees it waiting, too."""


@pytest.fixture
def gate() -> threading.Event:
    """Return what write sets wait for."""
    return threading.Event()


def test_write_sets_follow_in_order_and_are_bounded(gate: threading.Event) -> None:
    """As many as may be under way are taken at once; one more waits until the first is in."""
    applied: list[int] = []

    def move(changes: Any) -> None:
        gate.wait()
        applied.append(changes)

    accounts: Any = object()
    tree: Any = object()
    mirror = Mirror(accounts, tree)
    for number in range(FOLLOWING_MAX):
        mirror.follow(move, number)  # type: ignore[arg-type]  # any value is handed over
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(mirror.follow, move, FOLLOWING_MAX)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            late.result(LOOK_SECONDS)
        assert not applied
        gate.set()
        late.result()
        assert applied[0] == 0
    assert mirror.now is accounts
    assert applied == list(range(FOLLOWING_MAX + 1))
    mirror.close()


def test_a_copy_that_missed_a_write_set_is_of_no_use(gate: threading.Event) -> None:
    """What failed is raised for whoever reads, and nothing is applied on top of it."""
    applied: list[int] = []

    def move(changes: Any) -> None:
        if changes == 1:
            raise MemoryError("no room")
        applied.append(changes)

    accounts: Any = object()
    tree: Any = object()
    mirror = Mirror(accounts, tree)
    for number in range(2 * FOLLOWING_MAX):
        mirror.follow(move, number)  # type: ignore[arg-type]  # any value is handed over
    with pytest.raises(MemoryError, match="no room"):
        _ = mirror.now
    assert applied == [0]
    mirror.close()
