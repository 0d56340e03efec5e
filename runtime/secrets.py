"""How a person hands a secret over: a password at a terminal, a seed in a file.

A password comes from the variable TOS_PASSWORD or is typed; where there is no terminal nobody
waits for one. Where the secrets are kept is `keystore.py`.
"""

import getpass
import os
import sys
from pathlib import Path

from runtime.keypair import SEED_BYTES
from runtime.keystore import KeyEntry, KeystoreError

PASSWORD_VARIABLE = "TOS_PASSWORD"  # the name, not a password
SEED_FILE_BYTES_MAX = 256


def new_password() -> str:
    """Ask for a new password twice, or take that of the environment; raises KeystoreError."""
    given = os.environ.get(PASSWORD_VARIABLE)
    if given == "":
        # The file would say that it is sealed, and open for everybody who reads it.
        raise _no_password(f"{PASSWORD_VARIABLE} is empty")
    if given is not None:
        return given
    first = _typed("password for the new key: ")
    if not first or _typed("once more: ") != first:
        raise _no_password("both times the same one has to be typed, and not none")
    return first


def password_of(entry: KeyEntry) -> str:
    """Ask for the password of a key that has one; raises KeystoreError."""
    if not entry.has_password:
        return ""
    given = os.environ.get(PASSWORD_VARIABLE)
    return given if given is not None else _typed(f"password of {entry.path}: ")


def read_seed(path: Path, option: str) -> bytes:
    """Return the seed in a file of 64 hex digits, which `option` named; raises KeystoreError.

    An `0x` before the digits and white space around them are accepted.
    """
    with path.open("rb") as file:
        text = file.read(SEED_FILE_BYTES_MAX + 1).decode("ascii", "replace")
    digits = text.strip().removeprefix("0x")
    is_short = len(text) <= SEED_FILE_BYTES_MAX
    if not is_short or len(digits) != 2 * SEED_BYTES or set(digits.lower()) - set(_HEX):
        raise KeystoreError(
            "key.seed",
            what="this file holds no seed",
            where=str(path),
            why="a seed is 64 hex digits and nothing else",
            what_to_do=f"name another file with {option}",
        )
    return bytes.fromhex(digits)


_HEX = "0123456789abcdef"


def _typed(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise _no_password(f"nobody can type it here, and {PASSWORD_VARIABLE} is not set")
    return getpass.getpass(prompt)


def _no_password(why: str) -> KeystoreError:
    return KeystoreError(
        "key.password",
        what="there is no password",
        where="the terminal",
        why=why,
        what_to_do=f"type it at a terminal, or set {PASSWORD_VARIABLE}; a key that is made with "
        "--no-password can be used by whoever reads its file",
    )
