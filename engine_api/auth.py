"""Who may speak over TCP: a shared secret, and a token that proves it is known now.

A token is a JWT signed by HS256 whose `iat` (issued at, whole seconds) lies at most 60 s from the
clock of the executor, either way; no other claim counts. A Unix socket needs none: the mode of its
folder decides. Both functions take the clock as an argument. Spec: spec/engine_api.md#transport.
"""

import os
import re
import secrets
import stat
from pathlib import Path

import jwt

from engine_api.types import EngineApiError, ErrorCode, SetupError

ALGORITHM = "HS256"
SECRET_BYTES = 32
SECRET_FILE_BYTES_MAX = 256
SKEW_S_MAX = 60
SCHEME = "Bearer "
HEADER = "authorization"
TOKEN_CHARACTERS_MAX = 4_096

# Only iat counts, and it is compared here, so that the error can name both clocks.
_OPTIONS: jwt.types.Options = {
    "verify_signature": True,
    "require": ["iat"],
    "verify_iat": False,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def make_token(secret: bytes, now_s: int) -> str:
    """Return the value of the authorization header at this time."""
    token = jwt.encode({"iat": now_s}, secret, algorithm=ALGORITHM)
    return f"{SCHEME}{token}"


def check_token(value: str | None, secret: bytes, now_s: int) -> None:
    """Raise UNAUTHENTICATED unless the authorization header was made with the secret, just now."""
    if value is None:
        raise _refused("the call has no authorization header; over TCP it has a token")
    if not value.startswith(SCHEME) or len(value) > TOKEN_CHARACTERS_MAX:
        raise _refused("the authorization header is not `Bearer` and a token")
    try:
        claims = jwt.decode(value[len(SCHEME) :], secret, algorithms=[ALGORITHM], options=_OPTIONS)
    except jwt.InvalidSignatureError as error:
        raise _refused("the token was made with another secret: compare both files") from error
    except jwt.PyJWTError as error:
        raise _refused(f"the token cannot be read: {error}") from error
    issued_s = claims["iat"]
    if isinstance(issued_s, bool) or not isinstance(issued_s, int):
        raise _refused("iat of the token is not a whole number of seconds")
    skew_s = issued_s - now_s
    if abs(skew_s) > SKEW_S_MAX:
        side = "ahead of" if skew_s > 0 else "behind"
        raise _refused(
            f"the clocks differ: the caller's says {issued_s}, the executor's {now_s} (seconds "
            f"since 1970, UTC); the caller is {abs(skew_s)} s {side} the executor, at most "
            f"{SKEW_S_MAX} s are allowed: set the clocks"
        )


def _refused(sentence: str) -> EngineApiError:
    return EngineApiError(ErrorCode.UNAUTHENTICATED, sentence)


def create_secret(path: Path) -> bytes:
    """Make a secret of 32 random bytes in a new file of mode 0600, as 64 hex digits.

    Raises SetupError where the file exists: another process may use it already.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise SetupError(
            "engine_api.secret_exists",
            what="there is a secret already",
            where=str(path),
            why="a secret is never replaced: somebody may use it",
            what_to_do="delete the file to make a new one",
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(secret.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret


def read_secret(path: Path) -> bytes:
    """Return the 32 bytes of a secret file; raises SetupError where it is none, or not private.

    An `0x` before the digits and white space around them are accepted.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise SetupError(
            "engine_api.secret_unreadable",
            what="the secret cannot be read",
            where=str(path),
            why=error.strerror or str(error),
            what_to_do="name the file that the executor has, and let this user read it",
        ) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise SetupError(
                "engine_api.secret_mode",
                what="this is no file",
                where=str(path),
                why="a secret stands in a file that only its owner can read",
                what_to_do="name the file of a secret",
            )
        if mode & 0o077:
            raise SetupError(
                "engine_api.secret_mode",
                what="others can read this secret",
                where=str(path),
                why=f"its mode is {stat.S_IMODE(mode):04o}, and that of a secret is 0600",
                what_to_do=f"chmod 600 {path}, and make a new secret if somebody may have read it",
            )
        text = os.read(descriptor, SECRET_FILE_BYTES_MAX).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    if re.fullmatch(r"(?:0x)?[0-9a-fA-F]{64}", text) is None:
        raise SetupError(
            "engine_api.secret_text",
            what="this file holds no secret",
            where=str(path),
            why="a secret is 64 hex digits and nothing else",
            what_to_do="copy the file again from the executor",
        )
    return bytes.fromhex(text[-64:])
