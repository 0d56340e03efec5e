"""The supervisor: a child is kept alive, its words are kept, and it ends when it shall."""

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import structlog

from consensus.supervisor import BoundedLog, Supervisor

WAIT_S = 30
DESCRIPTORS = 1_024
"""that `select` can name"""
Make = Callable[..., Supervisor]


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for another thread or process; raises after a while that no machine needs."""
    pause = threading.Event()
    for _ in range(WAIT_S * 100):
        if is_so():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come to that")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a way to make supervisors of Python code; all are stopped with the test."""
    made: list[Supervisor] = []

    def one(code: str, arguments: Sequence[str] = (), stop_max_ms: int = 5_000) -> Supervisor:
        supervisor = Supervisor(
            (sys.executable, "-u", "-c", code, *arguments),
            environment=os.environ,
            log_path=tmp_path / "child.log",
            log=structlog.wrap_logger(structlog.testing.CapturingLogger()),
            stop_max_ms=stop_max_ms,
        )
        made.append(supervisor)
        return supervisor

    yield one
    for supervisor in made:
        supervisor.stop()


def is_alive(pid: int) -> bool:
    """Say whether a process exists."""
    return Path(f"/proc/{pid}").exists()


def said(supervisor: Supervisor) -> str:
    """Return all that its lives have written."""
    path = supervisor.output.path
    return path.read_text() if path.exists() else ""


def has_said(supervisor: Supervisor, lives: int) -> bool:
    """Say whether so many lives have begun."""
    return said(supervisor).count("up") == lives


def is_another(supervisor: Supervisor, pid: int) -> bool:
    """Say whether another process runs."""
    return supervisor.pid not in (None, pid)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process have more open files than `select` can name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * DESCRIPTORS:
        pytest.skip(f"{hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * DESCRIPTORS), hard))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    while opened[-1] < DESCRIPTORS:
        opened.append(os.dup(opened[0]))
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_a_node_with_many_connections_keeps_its_executor(make: Make) -> None:
    """Whatever number the pipe from a child has, it is read, and the child starts again."""
    supervisor = make("print('up')")
    supervisor.start()
    wait_until(lambda: said(supervisor).count("up") >= 2)
    assert supervisor.restarts >= 1


def test_a_killed_child_is_started_again(make: Make) -> None:
    """Every end is followed by a new life, and counted."""
    supervisor = make("import time; print('up'); time.sleep(60)")
    supervisor.start()
    for life in range(1, 3):
        wait_until(partial(has_said, supervisor, life))
        pid = supervisor.pid
        assert pid is not None
        assert supervisor.starts == life
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(is_another, supervisor, pid))
        assert supervisor.last_code == -signal.SIGKILL
    assert supervisor.restarts == 2
    pid = supervisor.pid
    supervisor.stop()
    assert pid is not None
    assert not is_alive(pid)


@pytest.fixture
def no_descriptors() -> Iterator[Callable[[], None]]:
    """Let this process open nothing more; yield how it may again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def give_back() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    yield give_back
    give_back()


def test_a_child_that_cannot_be_started_is_tried_again(
    make: Make, no_descriptors: Callable[[], None]
) -> None:
    """A system without descriptors or memory for one more process is no end of the node."""
    supervisor = make("import time; print('up'); time.sleep(60)")
    supervisor.start()
    try:
        wait_until(lambda: bool(supervisor.last_words))
    finally:
        no_descriptors()
    wait_until(lambda: has_said(supervisor, 1))
    assert supervisor.restarts >= 1
    assert "Too many open files" in supervisor.last_words
    assert supervisor.last_code is None


def test_a_child_that_ends_is_waited_for_ever_longer(make: Make) -> None:
    """Its exit code and last words are kept."""
    supervisor = make("import sys; print('last words', file=sys.stderr); sys.exit(2)")
    supervisor.start()
    wait_until(lambda: supervisor.starts >= 2)
    assert supervisor.last_code == 2
    assert supervisor.last_words == "last words\n"


def test_stopping_asks_first(make: Make) -> None:
    """A child that ends in order at SIGTERM may say so, and is not started again."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0)))\n"
        "print('up'); time.sleep(60)\n"
    )
    supervisor = make(code)
    supervisor.start()
    wait_until(lambda: "up" in said(supervisor))
    supervisor.stop()
    assert said(supervisor) == "up\nbye\n"
    assert supervisor.starts == 1
    assert supervisor.pid is None


def test_stopping_ends_also_a_child_that_does_not_listen(make: Make) -> None:
    """Who ignores SIGTERM is killed when the time is over, even with a grandchild at the pipe."""
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print('up'); time.sleep(60)\n"
    )
    supervisor = make(code, stop_max_ms=300)
    supervisor.start()
    wait_until(lambda: "up" in said(supervisor))
    pid = supervisor.pid
    supervisor.stop()
    assert pid is not None
    assert not is_alive(pid)


def test_a_supervisor_that_never_began_stops(make: Make) -> None:
    """Nothing is started, nothing is waited for."""
    supervisor = make("")
    supervisor.stop()
    assert (supervisor.starts, supervisor.pid) == (0, None)


def test_the_log_is_bounded(tmp_path: Path) -> None:
    """At its size the file becomes the old one; nothing between the two is lost."""
    path = tmp_path / "log"
    log = BoundedLog(path, bytes_max=100)
    lines = [f"{number:09}\n".encode() for number in range(25)]
    for line in lines:
        log.write(line)
    old = path.with_name("log.old").read_bytes()
    assert len(path.read_bytes()) <= 100
    assert old + path.read_bytes() == b"".join(lines)[-150:]
    assert log.lost_bytes == 0


def test_what_the_disk_refuses_is_counted(tmp_path: Path) -> None:
    """A log that cannot be written does not stop anybody."""
    log = BoundedLog(tmp_path / "none" / "log")
    log.write(b"12345")
    assert log.lost_bytes == 5
