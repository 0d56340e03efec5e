"""A process ends by the first signal or the first thread that dies, and not later than it says."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import structlog

from runtime.lifetime import CUT_OFF, Lifetime
from tests.campaign.process import REPOSITORY, surroundings

LOG: Any = structlog.wrap_logger(structlog.testing.CapturingLogger())
HANGS = """
import os, signal, sys, time, structlog
from runtime.lifetime import Lifetime
log = structlog.wrap_logger(structlog.WriteLogger(sys.stderr))
nothing = lambda: None
with Lifetime(log, stop_max_s=1, on_signal=nothing, on_failure=nothing).watched():
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        time.sleep(60)
"""


def test_the_first_signal_counts_and_everything_is_given_back() -> None:
    """A second signal is not told; handlers and the hook of threads are as before afterwards."""
    told: list[str] = []
    lifetime = Lifetime(
        LOG, stop_max_s=60, on_signal=lambda: told.append("signal"), on_failure=lambda: None
    )
    before = signal.getsignal(signal.SIGTERM), threading.excepthook
    assert not lifetime.is_ending
    with lifetime.watched():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert lifetime.is_ending
    assert (told, lifetime.signal, lifetime.failure) == (["signal"], "SIGTERM", "")
    assert (signal.getsignal(signal.SIGTERM), threading.excepthook) == before


def test_a_thread_that_dies_is_a_reason_to_end() -> None:
    """It is named with its error, and a signal after it is still heard."""
    told: list[str] = []
    lifetime = Lifetime(
        LOG,
        stop_max_s=60,
        on_signal=lambda: told.append("signal"),
        on_failure=lambda: told.append("failure"),
    )

    def die() -> None:
        raise ZeroDivisionError

    with lifetime.watched():
        thread = threading.Thread(target=die, name="worker")
        thread.start()
        thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
    assert told == ["failure", "signal"]
    assert lifetime.failure == "the thread worker ended by ZeroDivisionError"
    assert lifetime.signal == "SIGTERM"


def test_what_does_not_end_is_cut_off() -> None:
    """A process that goes on after its signal ends by itself, and says so."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS],
        cwd=REPOSITORY, env=surroundings(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == CUT_OFF
    assert "not stopped 1 s after it should: cut off" in done.stderr
