"""The one compiler setting that all kernels share, and the place of their compiled code.

Kernels are compiled once per machine and kept. Numba notices that the file of a kernel changed, but
not that a module changed from which the kernel takes functions or constants, and would go on
running the old code. So compiled code lies in a folder named by a hash of all kernel sources, of
the compiler, of the processor and of the lanes that signatures are computed in: whatever could
change the machine code changes the folder, and nothing else does (`cache_locator`). Read
`processor` for what kernels may use, `backend` next for what they are for, `warm` for compiling
them ahead.
"""

import atexit
import hashlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, overload

import llvmlite
import numba

from kernels.cache_locator import LOCATORS
from kernels.processor import LANES, cpu_features, cpu_name

CONFIG: Any = numba.config

CACHE_FOLDERS_MAX = 8
"""Folders of compiled code that are kept; the one that was used longest ago goes first."""

OPTIONS = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
"""Never `fastmath`: integers leave nothing to relax, and `products_fma` needs every rounding."""


def cache_key(sources: Path) -> str:
    """Return 32 hex digits that name the code which the sources compile to on this machine."""
    digest = hashlib.blake2b(digest_size=16)
    parts = [numba.__version__, llvmlite.__version__, platform.python_version(), cpu_name()]
    parts += [",".join(sorted(cpu_features())), LANES or "no lanes", device_packages()]
    for part in parts:
        digest.update(part.encode() + b"\0")
    for path in sorted(sources.rglob("*.py")):
        text = path.read_bytes()
        name = path.relative_to(sources).as_posix()
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def device_packages() -> str:
    """Return the version of what compiles for a device, or nothing: most nodes have no device."""
    try:
        return importlib.metadata.version("numba-cuda")
    except importlib.metadata.PackageNotFoundError:
        return ""


def compiled_mark() -> Path:
    """Return the file whose presence says that a folder has the code of all kernels.

    What compiles for a device keeps its code under the path of the source, so with its packages
    each checkout compiles for itself.
    """
    name = "compiled"
    if device_packages():
        checkout = bytes(Path(__file__).parent)
        name += "-" + hashlib.blake2b(checkout, digest_size=8).hexdigest()
    return Path(CONFIG.CACHE_DIR, name)


def is_kept() -> bool:
    """Say whether compiled code stays for the next process."""
    return Path(CONFIG.CACHE_DIR).parent == cache_root()


def cache_root() -> Path:
    """Return the folder of all compiled code: `$TOS_CACHE_DIR`/numba, or ~/.cache/tos/numba."""
    named = os.environ.get("TOS_CACHE_DIR")
    base = Path(named) if named else Path("~/.cache/tos").expanduser()
    return base.absolute() / "numba"


def prepare_cache(root: Path, key: str) -> Path:
    """Return a folder that can be written, `root`/`key` if possible, and drop the oldest others."""
    folder = root / key
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        os.utime(folder)
    except OSError as error:
        folder = Path(tempfile.mkdtemp(prefix="tos-numba-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        warnings.warn(
            f"kernel cache: cannot write to {root} ({error.strerror or error}), so kernels are"
            " compiled again in every process, for this one in a temporary folder;"
            " set TOS_CACHE_DIR to a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        return folder
    prune(root, keep=CACHE_FOLDERS_MAX)
    return folder


def prune(root: Path, *, keep: int) -> None:
    """Remove all but the `keep` most recently used folders; others may be doing the same."""
    used: list[tuple[int, Path]] = []
    for folder in root.iterdir():
        try:
            used.append((folder.stat().st_mtime_ns, folder))
        except FileNotFoundError:
            continue
    for _, folder in sorted(used, reverse=True)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


@overload
def njit(function: Callable[..., Any], /) -> Callable[..., Any]: ...
@overload
def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def njit(function: Any = None, /, **options: Any) -> Any:
    """Compile a kernel: `@njit`, or `@njit(...)` with further options of `numba.njit`."""
    assert "fastmath" not in options, "kernels compute with integers only"
    compiled = numba.njit(**{**OPTIONS, **options})
    return compiled if function is None else compiled(function)


CONFIG.CACHE_DIR = str(prepare_cache(cache_root(), cache_key(Path(__file__).parent)))
CONFIG.CACHE_LOCATOR_CLASSES = LOCATORS
