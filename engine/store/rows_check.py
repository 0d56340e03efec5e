"""Read every row once, in a process of its own: `python -m engine.store.rows_check FOLDER`.

LMDB trusts its pages, so a damaged one may end the process that reads it. Exit status 0 means that
every row has its checksum; anything else, a signal included, that the rows must be made again.
"""

import os
import subprocess
import sys
from pathlib import Path

from engine.store.errors import StoreDamaged
from engine.store.rows import Rows, RowsDamaged

EXIT_DAMAGED = 1
CHECK_SECONDS_MAX = 600


def child_environment() -> dict[str, str]:
    """Return this process's environment with the place where it found this package."""
    place = str(Path(__file__).resolve().parents[2])
    paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def check_rows(folder: Path) -> str | None:
    """Return None if all rows are good, else what was found, in a few words."""
    command = [sys.executable, "-m", "engine.store.rows_check", str(folder)]
    done = subprocess.run(
        command,
        env=child_environment(),
        capture_output=True,
        timeout=CHECK_SECONDS_MAX,
        check=False,
    )
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"reading the rows ends a process with signal {-done.returncode}"
    return done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"


def main(folder: str) -> int:
    """Check the rows in a folder."""
    try:
        rows = Rows(Path(folder), is_writer=False)
        with rows.read() as reader:
            reader.check_all()
    except (RowsDamaged, StoreDamaged) as error:
        sys.stderr.write(f"{error.__cause__ or error}\n")
        return EXIT_DAMAGED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
