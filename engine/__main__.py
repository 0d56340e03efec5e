"""The executor as a process: `python -m engine --help`."""

import sys

if not __debug__:
    sys.stderr.write(
        "python -m engine does not run under -O or PYTHONOPTIMIZE\n"
        "  why: its assertions stop the process before a bug costs money\n"
        "  what to do: start it without -O, and unset PYTHONOPTIMIZE\n"
        "  code: process.optimized\n"
    )
    sys.exit(2)

from engine.cli.main import main  # after the check: nothing is imported without assertions

if __name__ == "__main__":
    sys.exit(main())
