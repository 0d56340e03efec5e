"""The watch of an own executor: who answers, starts or slept is left alone; who hangs is ended."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import structlog

from consensus import executor_watch
from consensus.executor_watch import GAP_MAX_MS, SILENT_MAX_MS, ExecutorWatch, Sign, Silence
from consensus.supervisor import Supervisor
from engine_api.client import EngineApiClient
from engine_api.protocol import NEVER, Deadline
from engine_api.types import EngineApiError, ErrorCode, StatusAnswer
from runtime.logs import LogStream, open_log
from tests.consensus.test_supervisor import wait_until
from tests.engine_api import toy
from tests.engine_api.fake import FakeEngine

STEP_MS = GAP_MAX_MS // 2
LOOKS = SILENT_MAX_MS // STEP_MS + 2
"""more than an executor may leave unanswered"""
SERVER = """
import sys, threading
from engine_api.server import EngineApiServer
from tests.engine_api import toy
from tests.engine_api.fake import FakeEngine
server = EngineApiServer(
    FakeEngine(), sys.argv[1], payload_bytes_max=toy.LIMITS.bytes, report=lambda *_: None
)
server.start()
print("up")
threading.Event().wait()
"""


def ends(silence: Silence, life: int, sign: Sign, first: int, looks: int) -> list[int]:
    """Return in which looks, `first` and the next ones, an executor is to be ended."""
    numbers = range(first, first + looks)
    return [n for n in numbers if silence.look(life, sign, n * STEP_MS) is not None]


def test_who_answered_and_falls_silent_is_ended_once() -> None:
    """The first look that comes SILENT_MAX_MS after the last answer says so, and no other."""
    silence = Silence()
    assert not ends(silence, 1, Sign.ANSWERED, 0, 3)
    found = ends(silence, 1, Sign.SILENT, 3, 4 * LOOKS)
    assert found == [2 + -(-SILENT_MAX_MS // STEP_MS)]


def test_an_answer_in_between_counts_from_new() -> None:
    """Slow is not silent."""
    silence = Silence()
    for turn in range(10):
        assert not ends(silence, 1, Sign.ANSWERED, turn * LOOKS, 1)
        assert not ends(silence, 1, Sign.SILENT, turn * LOOKS + 1, LOOKS - 4)


def test_who_has_not_answered_in_this_life_is_waited_for() -> None:
    """A first start compiles, a restart recovers: neither is a hang, however long."""
    silence = Silence()
    assert not ends(silence, 1, Sign.SILENT, 0, 10 * LOOKS)
    assert not ends(silence, 1, Sign.ANSWERED, 10 * LOOKS, 1)
    assert not ends(silence, 2, Sign.SILENT, 10 * LOOKS + 1, 10 * LOOKS)
    assert not ends(silence, 2, Sign.ANSWERED, 20 * LOOKS + 1, 1)
    assert ends(silence, 2, Sign.SILENT, 20 * LOOKS + 2, LOOKS)


def test_a_machine_that_slept_gives_its_executor_time() -> None:
    """After a gap between two looks silence is counted from new; before the first answer, never."""
    silence = Silence()
    silence.look(1, Sign.ANSWERED, 0)
    woke_ms = 10 * SILENT_MAX_MS
    assert silence.look(1, Sign.SILENT, woke_ms) is None
    for at_ms in range(woke_ms + STEP_MS, woke_ms + SILENT_MAX_MS, STEP_MS):
        assert silence.look(1, Sign.SILENT, at_ms) is None
    assert silence.look(1, Sign.SILENT, woke_ms + SILENT_MAX_MS) == SILENT_MAX_MS
    silence.look(2, Sign.SILENT, 20 * SILENT_MAX_MS)
    for at_ms in range(40 * SILENT_MAX_MS, 45 * SILENT_MAX_MS, STEP_MS):
        assert silence.look(2, Sign.SILENT, at_ms) is None


def test_a_gap_is_longer_than_the_longest_between_two_looks() -> None:
    """Silence goes on over looks that come GAP_MAX_MS apart, and not over a millisecond more."""
    for gap_ms, is_ended in ((GAP_MAX_MS, True), (GAP_MAX_MS + 1, False)):
        silence = Silence()
        silence.look(1, Sign.ANSWERED, 0)
        looks = range(gap_ms, SILENT_MAX_MS + 2 * gap_ms, gap_ms)
        found = [silence.look(1, Sign.SILENT, at_ms) for at_ms in looks]
        assert any(found) is is_ended


class Gone(FakeEngine):
    """An executor that nobody reaches."""

    def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
        """Fail as a connection does."""
        raise EngineApiError(ErrorCode.UNAVAILABLE, "gone")


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("is_ended", [False, True])
def test_only_what_was_ended_here_is_a_hang(is_over: bool, is_ended: bool) -> None:
    """Nor is anything ended once the watch is over: its owner is stopping the executor itself."""
    silence = Silence(silent_max_ms=1, gap_max_ms=2**63)
    silence.look(1, Sign.ANSWERED, 0)
    lives: list[int] = []

    def end_life(life: int) -> bool:
        lives.append(life)
        return is_ended

    log = structlog.wrap_logger(structlog.testing.CapturingLogger())
    watch = ExecutorWatch(Gone(), life=lambda: 1, end_life=end_life, log=log, silence=silence)
    if is_over:
        watch._is_over.set()
    watch._look()
    assert lives == ([] if is_over else [1])
    assert watch.hangs == (is_ended and not is_over)


class Refusing(FakeEngine):
    """An executor that answers with an error."""

    def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
        """Refuse."""
        raise EngineApiError(ErrorCode.INTERNAL, "the executor has stopped")


class Dies(FakeEngine):
    """An executor whose life ends while it is asked."""

    life = 1

    def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
        """Begin the next life."""
        self.life += 1
        raise EngineApiError(ErrorCode.UNAVAILABLE, "gone")


def test_an_error_is_an_answer() -> None:
    """Who says that it cannot is not silent."""
    watch = ExecutorWatch(
        Refusing(), life=lambda: 1, end_life=lambda _: True, log=structlog.get_logger()
    )
    assert watch._ask() is Sign.ANSWERED


def test_what_two_lives_share_is_held_against_neither() -> None:
    """A question that a life did not survive says nothing of the next one."""
    engine = Dies()
    silence = Silence(silent_max_ms=1, gap_max_ms=2**63)
    assert silence.look(1, Sign.ANSWERED, 0) is None, "silent from now on"
    watch = ExecutorWatch(
        engine,
        life=lambda: engine.life,
        end_life=lambda _: True,
        log=structlog.get_logger(),
        silence=silence,
    )
    watch._look()
    assert (watch.hangs, engine.life) == (0, 2)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """Return the supervisor of an executor that is a toy, as a process of its own."""
    one = Supervisor(
        (sys.executable, "-u", "-c", SERVER, f"unix:{tmp_path / 'engine.sock'}"),
        environment=os.environ,
        log_path=tmp_path / "child.log",
        log=structlog.wrap_logger(structlog.testing.CapturingLogger()),
        stop_max_ms=500,
    )
    yield one
    one.stop()


def test_a_stopped_executor_is_killed_and_comes_back(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP leaves a process alive and silent: it is told, killed, and the next one answers."""
    monkeypatch.setattr(executor_watch, "ASK_MS", 300)
    text = io.StringIO()
    address = f"unix:{tmp_path / 'engine.sock'}"
    with EngineApiClient(address, payload_bytes_max=toy.LIMITS.bytes) as client:
        watch = ExecutorWatch(
            client,
            life=lambda: supervisor.life,
            end_life=supervisor.end_life,
            log=open_log("info", "json", LogStream(text)),
            silence=Silence(silent_max_ms=1_000, gap_max_ms=60_000),
            look_ms=50,
        )
        supervisor.start()
        watch.start()
        for life in (1, 2):
            wait_until(lambda: watch._silence._heard_ms is not None)
            pid = supervisor.pid
            assert pid is not None
            assert (supervisor.life, watch.hangs) == (life, life - 1)
            os.kill(pid, signal.SIGSTOP)
            wait_until(partial(lambda n: supervisor.life == n, life + 1))
            assert supervisor.last_code == -signal.SIGKILL
            assert not Path(f"/proc/{pid}").exists()
        wait_until(lambda: watch._silence._heard_ms is not None)
        watch.stop()
    assert (watch.hangs, supervisor.restarts) == (2, 2)
    assert text.getvalue().count("the executor hangs and is ended") == 2


def test_a_life_that_is_over_is_not_ended_again(supervisor: Supervisor) -> None:
    """Only the life that hung is ended, never the one that came after it."""
    assert not supervisor.end_life(1)
    supervisor.start()
    wait_until(lambda: supervisor.life == 1)
    assert not supervisor.end_life(2)
    assert supervisor.end_life(1)
    wait_until(lambda: supervisor.life == 2)
    assert not supervisor.end_life(1)
    assert supervisor.last_code == -signal.SIGTERM
