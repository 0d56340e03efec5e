"""The executor as a process: `python -m engine --help`."""

import sys

from runtime.starting import loading, require_assertions

require_assertions("python -m engine", "its assertions stop the process before a bug costs money")

with loading():  # after the check: nothing is imported without assertions
    from engine.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
