"""Read rows once before they are trusted: `python -m engine.store.rows_check FOLDER COMMIT COUNT`.

LMDB trusts its pages, so a damaged one may end the process that reads it: hence one of its own.
Exit status 0 means that every row that was looked at has its checksum; anything else, a signal
included, that the rows must be made again.

Every row is read after an end that was not clean: 4.8 s per million blocks. After a clean end with
COMMIT as its last commit only those of the newest COUNT heights are, 0.6 s, so that a start does
not take longer with every block. Damage in an older one is then found by whoever reads the row, and
mended by the next start, since what ends after that is not clean.
"""

import os
import subprocess
import sys
from pathlib import Path

from engine.store.errors import StoreDamaged
from engine.store.rows import MARK_NAME, Rows, RowsDamaged

EXIT_DAMAGED = 1
NEWEST = 2**14
"""Heights whose rows are read after a clean end."""
DIGITS_MAX = 20
CHECK_SECONDS_MAX = 600
"""and a second more per MiB of rows, which is some 200 times what they take"""


def child_environment() -> dict[str, str]:
    """Return this process's environment with the place where it found this package."""
    place = str(Path(__file__).resolve().parents[2])
    paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def check_rows(folder: Path) -> str | None:
    """Return None if the rows are good, else what was found, in a few words.

    The mark of a clean end is taken away, for what is opened now has not ended yet.
    """
    mark = folder / MARK_NAME
    commit = mark.read_bytes() if mark.exists() else b""
    mark.unlink(missing_ok=True)
    number = commit.decode() if commit.isdigit() and len(commit) <= DIGITS_MAX else "0"
    command = [sys.executable, "-m", "engine.store.rows_check", str(folder), number, str(NEWEST)]
    done = subprocess.run(
        command,
        env=child_environment(),
        capture_output=True,
        timeout=CHECK_SECONDS_MAX + (folder / "data.mdb").stat().st_size // 2**20,
        check=False,
    )
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"reading the rows ends a process with signal {-done.returncode}"
    return done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"


def main(folder: str, commit: int, count: int) -> int:
    """Check the rows in a folder: the newest if this is the last commit, else all."""
    try:
        rows = Rows(Path(folder), is_writer=False)
        with rows.read() as reader:
            if rows.last_commit == commit:
                reader.check_newest(count)
            else:
                reader.check_all()
    except (RowsDamaged, StoreDamaged) as error:
        sys.stderr.write(f"{error.__cause__ or error}\n")
        return EXIT_DAMAGED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
