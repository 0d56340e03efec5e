"""What a program does before it imports the rest of itself; standard library only.

Imports take the better part of a second. Nothing has begun until they are done, so Ctrl-C ends the
process there as the system would, and without assertions nothing begins at all. What one command
alone needs is imported when it is given, in the same way.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_REFUSED = 2


def require_assertions(program: str, why: str) -> None:
    """Leave with exit code 2 under `python -O`, which removes assertions; `why` they matter."""
    if __debug__:
        return
    sys.stderr.write(
        f"{program} does not run under -O or PYTHONOPTIMIZE\n"
        f"  why: {why}\n"
        "  what to do: start it without -O, and unset PYTHONOPTIMIZE\n"
        "  code: process.optimized\n"
    )
    sys.exit(EXIT_REFUSED)


@contextmanager
def loading() -> Iterator[None]:
    """Import inside this block: Ctrl-C ends the process at once, without a traceback.

    Whoever started the process with Ctrl-C ignored keeps it so.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
