"""The writer: one after the other, in order; late calls dropped; bounded; closed cleanly."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.writer import Writer
from engine_api.protocol import NEVER, Deadline
from engine_api.types import EngineApiError, ErrorCode

WAIT_S = 30


@pytest.fixture
def writer() -> Iterator[Writer]:
    """Return a writer that lets three calls wait."""
    made = Writer(waiting_max=3)
    yield made
    made.close()


class Blocker:
    """Occupies a writer until it is released."""

    def __init__(self, writer: Writer, threads: ThreadPoolExecutor) -> None:
        """Return when the writer is busy."""
        self.go = threading.Event()
        busy = threading.Event()

        def work() -> str:
            busy.set()
            assert self.go.wait(WAIT_S)
            return "done"

        self.call = threads.submit(writer.call, "blocking", work, NEVER)
        assert busy.wait(WAIT_S)


def queued(writer: Writer) -> int:
    """Count what waits."""
    return len(writer._queue)


def wait_for_queue(writer: Writer, count: int) -> None:
    """Return when so many calls wait."""
    pause = threading.Event()
    while queued(writer) < count:
        pause.wait(0.001)


def test_results_and_errors_come_back(writer: Writer) -> None:
    """What the work returns or raises is the caller's."""
    assert writer.call("adding", lambda: 1 + 1, NEVER) == 2
    with pytest.raises(KeyError):
        writer.call("failing", lambda: dict[str, int]()["nothing"], NEVER)
    assert writer.call("asking", threading.current_thread, NEVER).name == "writer"


def test_nobody_waits_for_a_call_whose_turn_comes_too_late(writer: Writer) -> None:
    """It is not begun, though it has not been taken out of the queue yet."""
    done: list[int] = []
    with pytest.raises(EngineApiError) as caught:
        writer.call("adding", lambda: done.append(1), Deadline.after_ms(0))
    assert caught.value.code is ErrorCode.DEADLINE_EXCEEDED
    assert done == []


def test_calls_run_in_order_and_the_queue_is_bounded(writer: Writer) -> None:
    """What waits runs in the order of arrival; one more than may wait is refused at once."""
    order: list[int] = []
    with ThreadPoolExecutor(8) as threads:
        blocker = Blocker(writer, threads)
        calls = []
        for number in range(3):
            calls.append(
                threads.submit(writer.call, "noting", lambda n=number: order.append(n), NEVER)
            )
            wait_for_queue(writer, number + 1)
        with pytest.raises(EngineApiError) as caught:
            writer.call("too many", lambda: None, NEVER)
        assert caught.value.code is ErrorCode.RESOURCE_EXHAUSTED
        blocker.go.set()
        for call in calls:
            call.result(WAIT_S)
        assert blocker.call.result(WAIT_S) == "done"
    assert order == [0, 1, 2]


def test_a_late_call_is_dropped_while_it_waits(writer: Writer) -> None:
    """A deadline that passes in the queue: the caller is told at once, the work never runs."""
    ran: list[str] = []
    is_cancelled = threading.Event()
    deadline = Deadline(is_cancelled=is_cancelled.is_set)
    with ThreadPoolExecutor(8) as threads:
        blocker = Blocker(writer, threads)
        call = threads.submit(writer.call, "late", lambda: ran.append("late"), deadline)
        wait_for_queue(writer, 1)
        is_cancelled.set()
        with pytest.raises(EngineApiError) as caught:
            call.result(WAIT_S)
        assert caught.value.code is ErrorCode.DEADLINE_EXCEEDED
        assert queued(writer) == 0
        blocker.go.set()
        blocker.call.result(WAIT_S)
    assert ran == []


def test_closing_finishes_what_runs_and_refuses_what_waits() -> None:
    """The running call ends well, the waiting one and any later one are UNAVAILABLE."""
    writer = Writer()
    with ThreadPoolExecutor(8) as threads:
        blocker = Blocker(writer, threads)
        waiting = threads.submit(writer.call, "waiting", lambda: None, NEVER)
        wait_for_queue(writer, 1)
        closing = threads.submit(writer.close)
        with pytest.raises(EngineApiError) as caught:
            waiting.result(WAIT_S)
        assert caught.value.code is ErrorCode.UNAVAILABLE
        blocker.go.set()
        closing.result(WAIT_S)
        assert blocker.call.result(WAIT_S) == "done"
    with pytest.raises(EngineApiError) as caught:
        writer.call("later", lambda: None, NEVER)
    assert caught.value.code is ErrorCode.UNAVAILABLE


def test_work_that_does_not_move_is_told() -> None:
    """A thread is locked up after the limit, not before, not while work goes on, not when idle."""
    now_ns = 0
    writer = Writer(step_ms_max=100, clock_ns=lambda: now_ns)
    with ThreadPoolExecutor(1) as threads:
        blocker = Blocker(writer, threads)
        now_ns = 100_999_999
        assert writer.locked_up() == ""
        writer.check_moving()
        now_ns = 101_000_000
        assert "101 ms" in writer.locked_up()
        with pytest.raises(EngineApiError) as caught:
            writer.check_moving()
        assert caught.value.code is ErrorCode.UNAVAILABLE
        writer.go_on()
        assert writer.locked_up() == ""
        now_ns = 300_000_000
        assert writer.locked_up()
        blocker.go.set()
        assert blocker.call.result() == "done"
    writer.call("waiting for the end of that", lambda: None, NEVER)
    writer.close()
    now_ns = 10**18
    assert writer.locked_up() == ""
