"""Keys of a person on disk: a file per key, sealed by a password, readable by its owner alone.

The seed lies in a SecretBox (XSalsa20-Poly1305) whose key is made from the password by Argon2id
with the limits that stand in the file. A key without a password is sealed under the empty one, and
its file says so: for chains that are worth nothing. Names are file names; nothing else is read.
"""

import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import nacl.exceptions
import nacl.pwhash.argon2id as argon2id
from msgspec import Meta
from nacl.secret import SecretBox

from runtime.decoding import decodable
from runtime.durable import create_file
from runtime.errors import ExplainedError
from runtime.keypair import SEED_BYTES, KeyPair

VERSION = 1
FILE_BYTES_MAX = 4_096
KEYS_MAX = 10_000
"""Files that are listed."""
SUFFIX = ".json"
MEMORY_BYTES_MAX = 2**30
OPERATIONS_MAX = 16
"""Limits of a file that is read: another one could ask for all memory."""
_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")


class KeystoreError(ExplainedError):
    """A key that cannot be had. Codes begin with `key.`"""


@decodable
class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    public_key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    has_password: bool
    kdf: str
    salt: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    operations: Annotated[int, Meta(ge=1, le=OPERATIONS_MAX)]
    memory_bytes: Annotated[int, Meta(ge=8_192, le=MEMORY_BYTES_MAX)]
    box: Annotated[str, Meta(pattern="^[0-9a-f]{144}$")]
    """nonce 24, tag 16, seed 32"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """A key that is stored; its seed is not opened."""

    name: str
    public_key: bytes
    has_password: bool
    path: Path


class Keystore:
    """The keys in one folder."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made when the first key is stored."""
        self.folder = folder

    def names(self) -> list[str]:
        """Return the names of all keys, sorted."""
        if not self.folder.is_dir():
            return []
        found = sorted(path.stem for path in self.folder.glob(f"*{SUFFIX}"))
        return [name for name in found if _NAME.fullmatch(name)][:KEYS_MAX]

    def add(self, name: str, seed: bytes, password: str | None) -> KeyEntry:
        """Store a key under a new name; password None: sealed under the empty one.

        Raises KeystoreError if the name is taken by another key; the same key again is no error.
        """
        assert len(seed) == SEED_BYTES, len(seed)
        path = self._path(name)
        public_key = KeyPair.of(seed).public_key
        if path.exists():
            known = self.get(name)
            if known.public_key == public_key:
                return known
            raise KeystoreError(
                "key.name_taken",
                what=f"there is another key named {name!r}",
                where=str(path),
                why="keys are never overwritten",
                what_to_do="choose another --name, or move the file away",
            )
        has_password = password is not None
        operations = argon2id.OPSLIMIT_MODERATE if has_password else argon2id.OPSLIMIT_MIN
        memory_bytes = argon2id.MEMLIMIT_MODERATE if has_password else argon2id.MEMLIMIT_MIN
        salt = secrets.token_bytes(argon2id.SALTBYTES)
        key = _stretch(password or "", salt, operations, memory_bytes)
        file = _File(
            version=VERSION,
            public_key=public_key.hex(),
            has_password=has_password,
            kdf="argon2id",
            salt=salt.hex(),
            operations=operations,
            memory_bytes=memory_bytes,
            box=bytes(SecretBox(key).encrypt(seed)).hex(),
        )
        self._write(path, msgspec.json.format(msgspec.json.encode(file)) + b"\n")
        return KeyEntry(name=name, public_key=public_key, has_password=has_password, path=path)

    def get(self, name: str) -> KeyEntry:
        """Return a key without opening it. Raises KeystoreError."""
        path = self._path(name)
        file = self._read(path)
        return KeyEntry(
            name=name,
            public_key=bytes.fromhex(file.public_key),
            has_password=file.has_password,
            path=path,
        )

    def entries(self) -> tuple[list[KeyEntry], list[KeystoreError]]:
        """Return all keys by name, and what is wrong with each file that holds none."""
        found: list[KeyEntry] = []
        damaged: list[KeystoreError] = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except KeystoreError as error:
                damaged.append(error)
        return found, damaged

    def open(self, name: str, password: str) -> KeyPair:
        """Return a key with its secret. Raises KeystoreError, also for a wrong password."""
        path = self._path(name)
        file = self._read(path)
        key = _stretch(
            password if file.has_password else "",
            bytes.fromhex(file.salt),
            file.operations,
            file.memory_bytes,
        )
        try:
            seed = SecretBox(key).decrypt(bytes.fromhex(file.box))
        except nacl.exceptions.CryptoError as error:
            raise KeystoreError(
                "key.password",
                what=f"the key {name!r} does not open",
                where=str(path),
                why="the password is not that of this key, or the file was changed",
                what_to_do="type the password again",
            ) from error
        pair = KeyPair.of(seed)
        if pair.public_key.hex() != file.public_key:
            raise _damaged(path, "its public key is not that of its seed")
        return pair

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise KeystoreError(
                "key.name",
                what=f"{name[:80]!r} is no name of a key",
                where="the name",
                why="names are small letters, digits, - and _, at most 64, and begin with one of "
                "the first two",
                what_to_do="choose another name",
            )
        return self.folder / f"{name}{SUFFIX}"

    def _read(self, path: Path) -> _File:
        try:
            with path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError as error:
            raise KeystoreError(
                "key.unknown",
                what=f"there is no key named {path.stem!r}",
                where=str(self.folder),
                why="no file has this name there",
                what_to_do="see `python -m engine key list`, or name the folder with --keys",
            ) from error
        except OSError as error:
            raise KeystoreError(
                "key.unreadable",
                what=f"the key {path.stem!r} cannot be read",
                where=str(path),
                why=error.strerror or str(error),
                what_to_do="give this user access to the file, or bring it back from a copy",
            ) from error
        try:
            found = msgspec.json.decode(data, type=_File, strict=True)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _damaged(path, str(error)) from error
        if found.kdf != "argon2id":
            raise _damaged(path, f"{found.kdf!r} is no way that keys are sealed here")
        return found

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file that others cannot read, and that a crash leaves whole or not at all."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            create_file(path, data)
        except FileExistsError as error:
            raise KeystoreError(
                "key.name_taken",
                what=f"there is another key named {path.stem!r}",
                where=str(path),
                why="it was stored at the same moment",
                what_to_do="choose another --name",
            ) from error


def _stretch(password: str, salt: bytes, operations: int, memory_bytes: int) -> bytes:
    """Return the key that a password opens a box with."""
    key: bytes = argon2id.kdf(
        SecretBox.KEY_SIZE,
        # The environment may have bytes that are no UTF-8: they are taken as they are.
        password.encode("utf-8", "surrogateescape"),
        salt,
        opslimit=operations,
        memlimit=memory_bytes,
    )
    return key


def _damaged(path: Path, why: str) -> KeystoreError:
    return KeystoreError(
        "key.damaged",
        what="this file holds no key",
        where=str(path),
        why=why,
        what_to_do="bring it back from a copy",
    )
