"""The host's C++ compiler: texts become shared objects, equal ones once."""

import hashlib
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

FLAGS: Final = ("-std=c++17", "-shared", "-fPIC")


def find_compiler() -> str | None:
    """Return the path of g++, or None."""
    return shutil.which("g++")


@cache
def _version(compiler: str) -> str:
    return subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout


def build_shared(text: str, flags: tuple[str, ...], folder: Path, name: str) -> Path:
    """Return the shared object of a text, which is kept in a folder that exists under `name`.

    Several processes may build at once. There has to be a compiler.
    """
    compiler = find_compiler()
    assert compiler is not None, "whoever builds has seen that there is a compiler"
    given = [*FLAGS, *flags]
    parts = "\0".join([_version(compiler), *given, text])
    digest = hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
    target = folder / f"{name}_{digest}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "built.so"
            done = subprocess.run(
                [compiler, "-x", "c++", *given, "-o", str(built), "-"],
                input=text, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[:4000]
            built.replace(target)
    return target
