"""The crossover of two backends: measured on real ones, decided by times that are given."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from engine.crossover import REPEATS, crossover
from kernels.backend import Backend, open_backend

SIZES = (16, 32, 64)


@pytest.fixture(scope="module")
def backends() -> Iterator[list[Backend]]:
    """Open two arms of the host: which is which does not matter here."""
    opened = [open_backend("serial"), open_backend("cpu", 1)]
    yield opened
    for backend in opened:
        backend.close()


def clock_of(blocks_ns: list[int]) -> Callable[[], int]:
    """Return a clock by which each run of the i-th block takes blocks_ns[i]."""
    readings = (
        reading
        for number, taken in enumerate(blocks_ns)
        for _ in range(REPEATS + 1)
        for reading in (number, number + taken)
    )
    return lambda: next(readings)


@pytest.mark.parametrize(
    ("small", "large", "found"),
    [
        ([10, 20, 40], [15, 15, 15], 32),
        ([10, 20, 40], [5, 5, 5], 16),
        ([10, 20, 40], [5, 25, 5], 64),
        ([10, 20, 40], [5, 5, 45], None),
        ([10, 20, 40], [10, 20, 40], None),
    ],
)
def test_the_least_size_from_which_all_are_faster(
    backends: list[Backend], small: list[int], large: list[int], found: int | None
) -> None:
    """A backend that is faster only here and there does not count as faster."""
    clock_ns = clock_of(small + large)
    assert crossover(*backends, sizes=SIZES, clock_ns=clock_ns) == found


def test_a_clock_that_counts(backends: list[Backend]) -> None:
    """Two backends that take the same time have no crossover."""
    readings = count()
    assert crossover(*backends, sizes=SIZES, clock_ns=lambda: next(readings)) is None
