"""A home: whose it is, which chain's, which version wrote it, and that one process has it.

`create_home` makes one, `Home.open` takes it. What stands in it is for `store.py`.
Spec: spec/storage.md#home.
"""

import struct
from pathlib import Path

from blake3 import blake3

from engine.constants import context_key
from engine.genesis import Genesis, genesis_hash
from engine.store.errors import FULL_ERRNOS, StoreError, damaged, full, unwritable
from engine.store.genesis_copy import write_genesis
from engine.store.segment import CHECK_BYTES
from runtime.durable import write_file
from runtime.lock import LOCK_NAME, FolderInUse, FolderLock

STORE_VERSION = 1
"""of everything in a home; greater ones are refused"""
FORMAT_MAGIC = b"TOSHOME\0"
FORMAT_NAME = "FORMAT"
FOLDERS = (
    "genesis", "rows", "blocks", "history", "snapshots", "transactions", "accounts", "bad_blocks",
)  # fmt: skip
OTHERS = frozenset({LOCK_NAME, f"{FORMAT_NAME}.tmp", "node.toml"})
"""What may stand in a folder that becomes a home."""
_FORMAT = struct.Struct("<8sII32s")
_KEY = context_key("tos store home v1")


def create_home(folder: Path, genesis: Genesis) -> None:
    """Make a home for a chain in a folder that is empty or does not exist.

    A creation that was cut off can be repeated: FORMAT is written last. Raises StoreError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
        if FORMAT_NAME in names:
            raise _refused(
                "home_exists", folder, "a chain lives here already", "a home is made once",
                "start with `run`, or choose another folder",
            )  # fmt: skip
        if strange := sorted(names - OTHERS.union(FOLDERS)):
            raise _refused(
                "home_not_empty", folder, f"the folder holds {strange[0]!r}",
                "a home is made in an empty folder", "choose an empty or a new folder",
            )  # fmt: skip
        with lock_home(folder):
            for name in FOLDERS:
                (folder / name).mkdir(mode=0o700, exist_ok=True)
            write_genesis(folder / "genesis", genesis)
            head = _FORMAT.pack(FORMAT_MAGIC, STORE_VERSION, 0, genesis_hash(genesis))
            check = blake3(head, key=_KEY).digest(CHECK_BYTES)
            write_file(folder / FORMAT_NAME, [head + check])
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise full(folder, error.strerror or str(error)) from error
        raise unwritable(folder, error) from error


def read_format(folder: Path) -> bytes:
    """Return the genesis hash of a home; raises StoreError for anything but a home of ours."""
    path = folder / FORMAT_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise _no_home(folder) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    to_do = "restore this file from a copy; it has 64 bytes and never changes"
    if len(data) != _FORMAT.size + CHECK_BYTES or data[:8] != FORMAT_MAGIC:
        raise damaged(path, 0, "it is not the mark of a home", to_do)
    _, version, zero, chain = _FORMAT.unpack_from(data)
    is_whole = blake3(data[:-CHECK_BYTES], key=_KEY).digest(CHECK_BYTES) == data[-CHECK_BYTES:]
    if version > STORE_VERSION:
        raise _refused(
            "newer_version", path,
            f"the home says that store version {version} wrote it, and this program knows "
            f"{STORE_VERSION}",
            "an older program would misread it" if is_whole else "or its checksum is damaged",
            "start the newer program, or restore a copy of the home from before the change",
        )  # fmt: skip
    if not is_whole or version < 1 or zero:
        raise damaged(path, 0, "its checksum differs", to_do)
    return bytes(chain)


def check_not_around(folder: Path) -> None:
    """Raise StoreError for the folder around a home: a node of consensus, which has its own."""
    if not folder.joinpath(FORMAT_NAME).exists() and _inner(folder):
        raise _no_home(folder)


def check_chain(folder: Path, found: bytes, wanted: bytes) -> None:
    """Raise StoreError if a home belongs to another chain than the wanted one."""
    if found != wanted:
        raise _refused(
            "other_chain", folder, f"this is the home of the chain {found.hex()}",
            f"the chain that was asked for is {wanted.hex()}",
            "name the home of that chain, or make one with `init`",
        )  # fmt: skip


def lock_home(folder: Path) -> FolderLock:
    """Keep every other process out of a home; raises StoreError (`store.locked`) naming who is."""
    try:
        return FolderLock(folder)
    except FolderInUse as error:
        raise _refused(
            "locked", error.path, f"the process {error.holder} has this home open",
            "two processes would write over each other",
            "stop that process, or name another home",
        ) from error  # fmt: skip
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise full(folder, error.strerror or str(error)) from error
        raise unwritable(folder, error) from error


def _inner(folder: Path) -> Path | None:
    """Return the home one folder below, if there is one."""
    return next((path.parent for path in folder.glob(f"*/{FORMAT_NAME}")), None)


def _no_home(folder: Path) -> StoreError:
    inner = _inner(folder)
    to_do = "make one with `init`, or name the right folder"
    if inner is not None:
        to_do = f"name {inner}, which is one; what is around it belongs to `python -m consensus`"
    return _refused("no_home", folder, "there is no home here", "the file FORMAT is missing", to_do)


def _refused(code: str, where: Path, what: str, why: str, what_to_do: str) -> StoreError:
    return StoreError(f"store.{code}", what=what, where=str(where), why=why, what_to_do=what_to_do)
