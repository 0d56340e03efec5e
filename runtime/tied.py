"""`python -m runtime.tied PARENT COMMAND...`: a command that ends when its parent ends.

The system is asked to kill this process, in the way a power cut would, when the process with the id
PARENT that started it is gone, however that went; then it becomes the command. It does this itself,
after it was started, because nothing may be run between fork and exec of a process with threads.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied_command(command: Sequence[str]) -> list[str]:
    """Return how to start a command tied to this process.

    The thread that starts it must live as long as the command shall: to the system it is the
    parent.
    """
    return [sys.executable, "-m", "runtime.tied", str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    """Tie this process to its parent and become the command; returns only where that is gone."""
    parent, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the system does not tie processes")
    # Whoever was orphaned before it asked has another parent already.
    if os.getppid() == int(parent):
        os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
