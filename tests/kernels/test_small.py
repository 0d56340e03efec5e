"""The small parts that kernels stand on: bitmaps, thread pool, large arrays."""

import platform
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from kernels import bitmap, memory
from kernels.layout import NO_SLOT
from kernels.pool import THREADS_MAX, Pool


def test_marked_slots_come_back_in_order(rng: np.random.Generator) -> None:
    """Slots that were marked, at word edges too, are counted and taken ascending, once each."""
    slots = np.concatenate(([0, 63, 64, 127, 4095], rng.integers(0, 4096, 500))).astype(np.uint32)
    words = np.zeros(bitmap.words_for(4096), np.uint64)
    for slot in slots:
        bitmap.mark(words, slot)
        assert bitmap.is_marked(words, slot)
    expected = np.unique(slots)
    assert bitmap.count_marked(words, 0, len(words)) == len(expected)
    out = np.zeros(len(expected), np.uint32)
    middle = bitmap.take_marked(words, 0, 7, out, 0)
    assert bitmap.take_marked(words, 7, len(words), out, middle) == len(expected)
    assert out.tolist() == expected.tolist()
    assert not words.any()


@pytest.mark.parametrize(
    ("slots", "repeat"),
    [
        ([], 0),
        ([5], 1),
        ([5, 6, 5], 2),
        ([5, 5, 5], 1),
        ([NO_SLOT, NO_SLOT, 3], 3),
        ([64, 0, 64], 2),
    ],
)
def test_the_first_repeat(slots: list[int], repeat: int) -> None:
    """The least index whose slot came before is found, and the bitmap is left empty."""
    words = np.zeros(4, np.uint64)
    assert bitmap.first_repeat(words, np.array(slots, np.uint32)) == repeat
    assert not words.any()


def test_ranges_cover_everything_once() -> None:
    """Ranges are in order, touch, are not smaller than the grain, and are at most the threads."""
    for threads in (1, 2, 7):
        pool = Pool(threads)
        for count in (0, 1, 99, 100, 1000):
            ranges = pool.ranges(count, grain=50)
            assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
            assert ranges[-1][1] == count
            assert len(ranges) <= threads
            assert len(ranges) == 1 or min(stop - start for start, stop in ranges) >= 50
        pool.close()


def test_a_pool_runs_parts_at_the_same_time_and_raises_what_they_raise() -> None:
    """Two parts meet at a barrier; an error of one reaches the caller."""
    pool = Pool(2)
    barrier = threading.Barrier(2)

    def meet(start: int, stop: int) -> int:
        barrier.wait(60)
        return stop - start

    def fail(start: int, stop: int) -> None:
        raise RuntimeError(f"part {start} to {stop}")

    assert pool.run(meet, [(0, 3), (3, 10)]) == [3, 7]
    with pytest.raises(RuntimeError, match="part 0 to 3"):
        pool.run(fail, [(0, 3), (3, 10)])
    pool.close()
    with pytest.raises(ValueError, match="threads must be"):
        Pool(THREADS_MAX + 1)


@pytest.mark.parametrize("shape", [0, 1, 1000, (3, 5), (1 << 20, 4)])
def test_large_arrays_are_zero_and_aligned(shape: int | tuple[int, ...]) -> None:
    """Arrays below and above the size of a huge page are zero, writable and 64-byte aligned."""
    array = memory.zeros(shape, np.uint64)
    assert array.shape == (shape if isinstance(shape, tuple) else (shape,))
    assert not array.any()
    assert array.size == 0 or array.ctypes.data % 64 == 0
    array[...] = 1
    assert array.all()


def resident_bytes() -> int:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_memory_is_taken_ahead_and_stays_as_it_is() -> None:
    """All pages are there afterwards, with what was written to some of them; small ones too."""
    array = memory.zeros(8 * memory.HUGE_PAGE_BYTES, np.uint8)
    array[5] = 7
    before = resident_bytes()
    memory.take(array)
    version = tuple(int(part) for part in platform.release().split(".")[:2])
    if version >= (5, 14):
        assert resident_bytes() - before >= 6 * memory.HUGE_PAGE_BYTES
    assert (array[5], int(array.sum())) == (7, 7)
    small = memory.zeros(100, np.uint64)
    memory.take(small)
    assert not small.any()
