"""What every script of this folder does first; standard library only, so that it always runs.

A script is started by people, often with a Python that has none of the dependencies. Then a
sentence that says what to type helps more than the traceback of a failed import.
"""

import importlib.util
import sys
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent

NEEDED = ("numpy", "numba", "pyarrow", "nacl", "blake3", "msgspec", "click", "rich")
"""Top-level modules of the dependencies in pyproject.toml."""


def require_environment() -> None:
    """Leave with what to type unless this Python has the dependencies.

    Exits with status 2, also under `python -O`, which removes the assertions that this project
    relies on. Python puts the folder of a script on its path, not the repository, so one begins:

        if __name__ == "__main__":
            sys.path[0] = str(Path(__file__).resolve().parent.parent)
            from bench._start import require_environment

            require_environment()

    and only then imports what is not in the standard library.
    """
    script = Path(sys.argv[0]).name
    if not __debug__:
        _refuse(f"{script}: python -O removes checks that must run; start it without -O")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        _refuse(
            f"{script}: {sys.executable} is a Python without {', '.join(missing)}.\n"
            f"In {REPOSITORY} type\n    make venv\nand then\n    .venv/bin/python bench/{script}"
        )


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(message + "\n")
    sys.exit(2)
