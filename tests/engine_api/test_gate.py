"""Deadlines by a clock of the test, and the queue before NewPayload."""

import threading
from functools import partial

import pytest

from engine_api.gate import Gate
from engine_api.protocol import NEVER, NS_PER_MS, Deadline
from engine_api.types import EngineApiError, ErrorCode
from tests.engine_api.driver import refused
from tests.engine_api.sockets import PATIENCE_S, wait_until


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        """Start somewhere."""
        self.now_ns = 5

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ns


def test_a_deadline_passes_by_its_clock() -> None:
    """Until then nothing is refused, from then on every stage is, by its name."""
    clock = Clock()
    deadline = Deadline.after_ms(10, clock_ns=clock)
    assert deadline.remaining_ms() == 10
    deadline.check("hashing")
    clock.now_ns += 10 * NS_PER_MS - 1
    assert not deadline.cancelled()
    assert deadline.remaining_ms() == 0
    clock.now_ns += 1
    assert deadline.cancelled()
    error = refused(lambda: deadline.check("hashing"))
    assert error.code is ErrorCode.DEADLINE_EXCEEDED
    assert "before hashing" in error.sentence


def test_a_caller_can_give_up() -> None:
    """Cancelling counts as a deadline that passed."""
    gone = threading.Event()
    deadline = Deadline(is_cancelled=gone.is_set)
    assert deadline.remaining_ms() is None
    deadline.check("anything")
    gone.set()
    assert "gave up" in refused(lambda: deadline.check("anything")).sentence


def test_never_is_never() -> None:
    """The default deadline refuses nothing."""
    assert not NEVER.cancelled()
    NEVER.check("anything")


def test_places_and_bytes_are_given_back() -> None:
    """Also when the call inside fails."""
    gate = Gate(10, waiting_max=1)
    for _ in range(3):
        with pytest.raises(RuntimeError), gate.place(10), gate.turn(NEVER):
            raise RuntimeError("inside")
    with gate.place(4), gate.place(6):
        assert refused(lambda: gate.place(0).__enter__()).code is ErrorCode.RESOURCE_EXHAUSTED
    with gate.place(4):
        assert refused(lambda: gate.place(7).__enter__()).code is ErrorCode.RESOURCE_EXHAUSTED
        with gate.place(6):
            assert gate._bytes == 10
    assert (gate._bytes, gate._places) == (0, 0)


def has_length(gate: Gate, length: int) -> bool:
    """Say whether so many calls hold or await the turn."""
    return len(gate._queue) == length


def test_a_turn_that_nobody_waits_for_is_passed_on() -> None:
    """One in the middle of the queue gives up; those around it keep their order."""
    gate, order = Gate(0), []
    gone = [threading.Event() for _ in range(3)]

    def call(number: int) -> None:
        try:
            with gate.turn(Deadline(is_cancelled=gone[number].is_set)):
                order.append(number)
        except EngineApiError:
            order.append(-number)

    threads = []
    with gate.turn(NEVER):
        for number in range(3):
            threads.append(threading.Thread(target=call, args=(number,)))
            threads[-1].start()
            wait_until(partial(has_length, gate, number + 2))
        gone[1].set()
        threads[1].join(PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order == [-1, 0, 2]
    assert len(gate._queue) == 0
