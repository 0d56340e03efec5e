"""One process has a folder; the lock is gone with its holder, however that ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.lock import LOCK_NAME, FolderInUse, FolderLock, holder_of

HOLD = """
import sys
from pathlib import Path
from runtime.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_holder_is_told_who_is_first(tmp_path: Path) -> None:
    """Even in one process a folder is had once; afterwards it is free again."""
    with FolderLock(tmp_path) as lock:
        with pytest.raises(FolderInUse) as caught:
            FolderLock(tmp_path)
        assert caught.value.holder == str(os.getpid())
        assert caught.value.path == tmp_path / LOCK_NAME
    lock.release()
    FolderLock(tmp_path).release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """Another process keeps us out while it lives, and not a moment longer."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUse) as caught:
            FolderLock(tmp_path)
        assert caught.value.holder == str(process.pid)
        assert holder_of(tmp_path) == str(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    FolderLock(tmp_path).release()


def test_a_process_id_that_came_again_holds_nothing(tmp_path: Path) -> None:
    """The file of a lock names who had it; whether anybody has it, the lock itself says."""
    FolderLock(tmp_path).release()
    (tmp_path / LOCK_NAME).write_text(f"{os.getppid()}\n")
    assert holder_of(tmp_path) == ""
    with FolderLock(tmp_path):
        assert holder_of(tmp_path) == str(os.getpid())
        (tmp_path / LOCK_NAME).write_text("")
        assert holder_of(tmp_path) == "(unknown)"


def test_a_folder_that_is_missing_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Nothing is made for a lock."""
    with pytest.raises(FileNotFoundError):
        FolderLock(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        holder_of(tmp_path)
