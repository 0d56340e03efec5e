"""Consensus as a process: `python -m consensus --help`."""

import sys

from runtime.starting import loading, require_assertions

require_assertions(
    "python -m consensus", "its assertions stop the process before a bug signs something"
)

with loading():  # after the check: nothing is imported without assertions
    from consensus.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
