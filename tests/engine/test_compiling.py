"""An executor is not ready before its kernels are compiled."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

from bench.machine import REPOSITORY
from engine import compiling
from kernels import warm

COMMAND = [sys.executable, "-m", "kernels.warm"]
SECONDS_MAX = 300


class Lines:
    """Keeps what is logged."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.events: list[str] = []

    def __call__(self, logger: Any, level: str, fields: Any) -> Any:
        """Take one line."""
        self.events.append(f"{level}: {fields['event']}")
        raise structlog.DropEvent


def compile_and_log() -> list[str]:
    """Return what an executor logs about its kernels."""
    lines = Lines()
    compiling.compile_kernels(structlog.wrap_logger(None, processors=[lines]))
    return lines.events


def warm_in(cache: Path) -> subprocess.Popen[str]:
    """Start the compiler on a cache folder."""
    environment = dict(os.environ, TOS_CACHE_DIR=str(cache))
    return subprocess.Popen(
        COMMAND, cwd=REPOSITORY, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_what_is_compiled_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started where all is there; where it is not, one is, and it ends well."""
    assert subprocess.run(COMMAND, cwd=REPOSITORY, check=False).returncode == 0
    monkeypatch.setattr(warm, "is_warm", lambda: True)
    assert compile_and_log() == []
    monkeypatch.setattr(warm, "is_warm", lambda: False)
    assert compile_and_log() == ["info: compiling kernels", "info: kernels are compiled"]


def test_kernels_are_loaded_before_they_are_needed() -> None:
    """A process that has loaded them loads none for its first block and its first batch."""
    code = (
        "from engine import compiling; from kernels import pending, settle;"
        "from kernels.backend import open_backend; backend = open_backend('cpu', 1);"
        "compiling.load_kernels(backend); backend.close();"
        "print(len(pending.admit.overloads), len(settle.apply_part.overloads))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "1"]


def test_a_compiler_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor goes on: what is missing is compiled when it is called."""
    monkeypatch.setattr(warm, "is_warm", lambda: False)
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert compile_and_log() == [
        "info: compiling kernels", "warning: kernels were not compiled ahead",
    ]  # fmt: skip


def test_a_signal_ends_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What interrupts the wait does not leave a process behind."""
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if not started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(warm, "is_warm", lambda: False)
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_and_log()
    assert started[0].returncode == -9


def test_a_compiler_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """What compiles beside another process does not go on when that is gone, however it went."""
    environment = dict(os.environ, TOS_CACHE_DIR=str(tmp_path))
    command = [*COMMAND, warm.THE_REST]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE
    ) as beside:
        assert beside.stdin is not None
        beside.stdin.close()
        assert beside.wait(SECONDS_MAX) == 1


def test_nothing_is_compiled_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """A folder that cannot be written is told, and costs no minute."""
    file = tmp_path / "file"
    file.touch()
    with warm_in(file) as process:
        out, error = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0, error
    assert "cannot write" in error
    assert "nothing is compiled ahead" in error
    assert not out


@pytest.mark.slow
def test_of_several_one_compiles(tmp_path: Path) -> None:
    """Two that begin together take turns: the second finds everything, under its own name."""
    processes = [warm_in(tmp_path) for _ in range(2)]
    errors = [process.communicate(timeout=SECONDS_MAX)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert sum("Ed25519 is compiled" in error for error in errors) == 1
    assert len(list(tmp_path.glob("numba/*/compiled"))) == 1
