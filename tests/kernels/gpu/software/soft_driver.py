"""Claims about the software device itself, run on it: it orders, checks and fails as it should.

`test_software.py` runs this file in a process of its own for each schedule.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError, binding, device_memset, driver

from kernels.gpu.grid import kernel
from tests.kernels.gpu.software.install import SoftwareDevice, installed

COUNT = 1000
ILLEGAL, NO_MEMORY = "CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_OUT_OF_MEMORY"
LAUNCH_FAILED = "CUDA_ERROR_LAUNCH_FAILED"
FAILURES = (CudaAPIError, import_module("cuda.core._utils.cuda_utils").CUDAError)
"""What Numba raises, and what the part of CUDA raises through which it launches."""


@kernel
def add_one(array: Any) -> None:
    """Add 1 to all items."""
    i = cuda.grid(1)
    if i < array.shape[0]:
        array[i] += np.uint32(1)


@kernel
def write_last(array: Any) -> None:
    """Let all threads write to one place, a race."""
    array[0] = np.uint32(cuda.grid(1))


@kernel
def write_at(array: Any, place: Any) -> None:
    """Write at a place that nobody checks."""
    array[place] = np.uint32(1)


@pytest.fixture
def device() -> Iterator[SoftwareDevice]:
    """Return the device, which is well again afterwards."""
    found = installed()
    yield found
    found.recover()
    found.let_frees_wait(False)


@pytest.fixture
def late(device: SoftwareDevice) -> SoftwareDevice:
    """Do everything as late as possible, in this test."""
    device.set_schedule("late", 1)
    return device


def zeros(stream: Any) -> Any:
    """Return an array of zeros, when the stream gets there."""
    array = cuda.device_array(COUNT, np.uint32)
    device_memset(array, 0, array.nbytes, stream=stream)
    return array


def test_memory_begins_as_noise(device: SoftwareDevice) -> None:
    """Nobody can rely on what new memory holds, neither zeros nor what it held before."""
    before = device.counts().device_bytes
    arrays = [cuda.device_array(COUNT, np.uint64) for _ in range(2)]
    assert device.counts().device_bytes == before + 2 * 8 * COUNT
    one, other = (array.copy_to_host() for array in arrays)
    assert len(set(one.tolist() + other.tolist())) == 2 * COUNT


def test_nothing_is_done_before_somebody_waits(late: SoftwareDevice) -> None:
    """Pinned memory is read and written when the work is done, pageable memory at the call."""
    stream = cuda.stream()
    here, back = cuda.pinned_array(COUNT, np.uint32), cuda.pinned_array(COUNT, np.uint32)
    plain = np.full(COUNT, 5, np.uint32)
    here[:], back[:] = 1, 0
    array, other = cuda.device_array(COUNT, np.uint32), cuda.device_array(COUNT, np.uint32)
    array.copy_to_device(here, stream=stream)
    other.copy_to_device(plain, stream=stream)
    add_one[4, 256, stream](array)
    array.copy_to_host(back, stream=stream)
    here[:], plain[:] = 7, 7
    assert not back.any()
    stream.synchronize()
    assert back.tolist() == [8] * COUNT
    assert other.copy_to_host(stream=stream).tolist() == [5] * COUNT


def test_early_work_is_done_at_once(device: SoftwareDevice) -> None:
    """Results are there before anybody waits, and sources are read at the call."""
    device.set_schedule("early", 1)
    stream, back = cuda.stream(), cuda.pinned_array(COUNT, np.uint32)
    array = zeros(stream)
    add_one[4, 256, stream](array)
    array.copy_to_host(back, stream=stream)
    assert back.tolist() == [1] * COUNT


@pytest.mark.parametrize("is_ordered", [True, False])
def test_only_events_order_streams(late: SoftwareDevice, is_ordered: bool) -> None:
    """A stream that waits for another's event comes after it; without, both orders come about."""
    totals = set()
    for seed in range(1, 40):
        late.set_schedule("random", seed)
        one, other = cuda.stream(), cuda.stream()
        array, back = zeros(one), cuda.pinned_array(COUNT, np.uint32)
        one.synchronize()
        add_one[4, 256, one](array)
        if is_ordered:
            event = cuda.event()
            event.record(one)
            add_one[4, 256, one](array)
            event.wait(other)
        array.copy_to_host(back, stream=other)
        other.synchronize()
        totals.add(int(back[0]))
        one.synchronize()
    assert totals == ({1, 2} if is_ordered else {0, 1})


def test_the_legacy_stream_waits_for_all(late: SoftwareDevice) -> None:
    """What is asked for without a stream comes after all streams, which come after it."""
    streams = [cuda.stream() for _ in range(3)]
    arrays = [zeros(stream) for stream in streams]
    for stream, array in zip(streams, arrays, strict=True):
        add_one[4, 256, stream](array)
    assert all(array.copy_to_host().tolist() == [1] * COUNT for array in arrays)
    device_memset(arrays[0], 0, arrays[0].nbytes)
    add_one[4, 256, streams[0]](arrays[0])
    assert arrays[0].copy_to_host(stream=streams[0]).tolist() == [1] * COUNT


def test_events_are_asked_and_have_times(late: SoftwareDevice) -> None:
    """Whoever asks an event again and again sees it come; times of events do not go back."""
    stream = cuda.stream()
    start, stop = cuda.event(), cuda.event()
    start.record(stream)
    add_one[4, 256, stream](zeros(stream))
    stop.record(stream)
    assert not stop.query()
    assert any(stop.query() for _ in range(10))
    assert start.elapsed_time(stop) >= 0


def test_threads_have_no_order(device: SoftwareDevice) -> None:
    """The winner of a race differs between seeds, and is the same for one seed."""
    stream, array = cuda.stream(), cuda.device_array(1, np.uint32)

    def winner(seed: int) -> int:
        device.set_schedule("late", seed)
        write_last[3, 64, stream](array)
        return int(array.copy_to_host(stream=stream)[0])

    assert winner(0) == 3 * 64 - 1
    assert len({winner(seed) for seed in range(1, 9)}) > 1
    assert winner(5) == winner(5)


def refused(name: str, what: Any, *arguments: Any) -> str:
    """Assert that a call fails with an error that the backend knows; returns what was wrong."""
    with pytest.raises(FAILURES, match=name):
        what(*arguments)
    return installed().error()


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("place", [COUNT, -1, 1 << 40])
def test_a_kernel_beyond_its_array_loses_the_device(place: int) -> None:
    """An address outside of all allocations is an error where it is waited for, and for good."""
    stream = cuda.stream()
    array = cuda.device_array(64 * 1024 // 4, np.uint32)
    place += len(array) if place == COUNT else 0
    where = place if place != -1 else -(1 << 20)
    write_at[1, 1, stream](array, where)
    assert "write_at" in refused(ILLEGAL, stream.synchronize)
    refused(ILLEGAL, stream.synchronize)
    refused(ILLEGAL, driver.cuMemAlloc, 8)


def raw_copy(address: int, size: int, stream: Any) -> None:
    """Copy from device memory by its address."""
    target = np.zeros(size, np.uint8)
    driver.cuMemcpyDtoHAsync(
        target.ctypes.data, binding.CUdeviceptr(address), size, int(stream.handle)
    )


@pytest.mark.usefixtures("late")
def test_copies_are_checked() -> None:
    """Copies of freed and foreign memory, and beyond an allocation, lose the device."""
    stream = cuda.stream()
    address = int(driver.cuMemAlloc(512))
    raw_copy(address + 12, 500, stream)
    assert "more than its allocation" in refused(ILLEGAL, raw_copy, address, 513, stream)
    installed().recover()
    assert "foreign" in refused(ILLEGAL, raw_copy, 4096, 8, stream)
    installed().recover()
    driver.cuMemFree(address)
    assert "freed" in refused(ILLEGAL, raw_copy, address, 8, stream)


@pytest.mark.parametrize("is_pinned", [False, True])
def test_memory_in_use_is_not_freed(late: SoftwareDevice, is_pinned: bool) -> None:
    """Freeing what pending work names loses the device, or waits for that work where allowed."""
    stream = cuda.stream()
    address, pinned = int(driver.cuMemAlloc(512)), driver.cuMemHostAlloc(512, 0)
    for is_let in (False, True):
        late.let_frees_wait(is_let)
        before = late.counts().waits_in_frees
        driver.cuMemcpyHtoDAsync(binding.CUdeviceptr(address), pinned, 512, int(stream.handle))
        free, what = (driver.cuMemFreeHost, pinned) if is_pinned else (driver.cuMemFree, address)
        if is_let:
            free(what)
            assert late.counts().waits_in_frees == before + 1
        else:
            assert "not waited for" in refused(ILLEGAL, free, what)
            late.recover()


@pytest.mark.usefixtures("device")
def test_a_thread_needs_a_context() -> None:
    """A thread that did not ask for the device's context is refused, as by a driver."""
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(driver.cuMemAlloc, 64)
        with pytest.raises(CudaAPIError) as error:
            call.result()
        assert int(error.value.code) == binding.CUresult.CUDA_ERROR_INVALID_CONTEXT
        threads.submit(cuda.current_context).result()
        driver.cuMemFree(threads.submit(driver.cuMemAlloc, 64).result())


def test_memory_ends(device: SoftwareDevice) -> None:
    """More than the device has is refused, and the next request is not."""
    free, total = driver.cuMemGetInfo()
    assert total - free == device.counts().device_bytes
    refused(NO_MEMORY, driver.cuMemAlloc, free + 1)
    driver.cuMemFree(driver.cuMemAlloc(4096))


def test_calls_fail_when_asked_to(late: SoftwareDevice) -> None:
    """The chosen call of a kind fails, and only it; a kernel that fails takes the device along."""
    stream = cuda.stream()
    array = zeros(stream)
    late.fail("launch", after=1, code=719)
    add_one[4, 256, stream](array)
    refused(LAUNCH_FAILED, add_one[4, 256, stream], array)
    add_one[4, 256, stream](array)
    assert array.copy_to_host(stream=stream).tolist() == [2] * COUNT
    late.fail("run", after=0, code=719)
    add_one[4, 256, stream](array)
    assert "made to fail" in refused(LAUNCH_FAILED, stream.synchronize)
    refused(LAUNCH_FAILED, add_one[4, 256, stream], array)


def test_counts(late: SoftwareDevice) -> None:
    """Launches, copies with their bytes, and waits are counted."""
    stream = cuda.stream()
    array = zeros(stream)
    before = late.counts()
    for _ in range(3):
        add_one[4, 256, stream](array)
    array.copy_to_device(np.zeros(COUNT, np.uint32), stream=stream)
    array.copy_to_host(stream=stream)
    stream.synchronize()
    after = late.counts()
    assert after.launches - before.launches == 3
    assert after.bytes_in - before.bytes_in == after.bytes_out - before.bytes_out == 4 * COUNT
    assert after.bytes_staged - before.bytes_staged == 4 * COUNT
    assert after.waits - before.waits == 2
