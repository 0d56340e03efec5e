"""Consensus as a process: `python -m consensus --help`."""

import sys

if not __debug__:
    sys.stderr.write(
        "python -m consensus does not run under -O or PYTHONOPTIMIZE\n"
        "  why: its assertions stop the process before a bug signs something\n"
        "  what to do: start it without -O, and unset PYTHONOPTIMIZE\n"
        "  code: process.optimized\n"
    )
    sys.exit(2)

from consensus.cli.main import main  # after the check: nothing is imported without assertions

if __name__ == "__main__":
    sys.exit(main())
