"""A tied command ends when the process that started it is gone, and not before."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from runtime.tied import tied_command

WAIT_S = 30
PARENT = """
import subprocess, sys
from runtime.tied import tied_command
child = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
process = subprocess.Popen(tied_command(child), stdin=subprocess.PIPE)
print(process.pid, flush=True)
sys.stdin.read()
"""


def test_a_tied_command_dies_with_its_parent() -> None:
    """The child of a process that is killed is gone: its end of the pipe closes."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as parent:
        assert parent.stdout is not None
        lines = sorted([parent.stdout.readline(), parent.stdout.readline()])
        assert lines[1] == b"up\n"
        assert Path(f"/proc/{int(lines[0])}").exists()
        parent.send_signal(signal.SIGKILL)
        # Both wrote to this pipe; it ends when nobody is left who could.
        assert select.select([parent.stdout], [], [], WAIT_S)[0]
        assert parent.stdout.read() == b""


def test_a_tied_command_is_the_command() -> None:
    """Arguments, output and exit code are those of the command, in the same process."""
    code = "import os, sys; print(os.getpid(), *sys.argv[1:]); sys.exit(7)"
    with subprocess.Popen(
        tied_command([sys.executable, "-c", code, "a b", "c"]), stdout=subprocess.PIPE
    ) as process:
        output, _ = process.communicate(timeout=WAIT_S)
        assert output.decode() == f"{process.pid} a b c\n"
        assert process.returncode == 7


def test_an_orphan_begins_nothing() -> None:
    """Where the parent is gone already the command is not begun."""
    code = f"from runtime.tied import main; main(['{os.getpid() + 10**7}', '/bin/false'])"
    done = subprocess.run([sys.executable, "-c", code], timeout=WAIT_S, check=False)
    assert done.returncode == 0
