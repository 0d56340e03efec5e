"""Tokens, secrets, and where a socket may stand."""

import base64
import json
import os
import socket
from pathlib import Path

import jwt
import pytest

from engine_api import auth, transport
from engine_api.types import EngineApiError, ErrorCode, SetupError

SECRET = bytes(range(32))
NOW_S = 1_700_000_000


def refusal(value: str | None, now_s: int = NOW_S) -> str:
    """Return why a token is refused."""
    with pytest.raises(EngineApiError) as caught:
        auth.check_token(value, SECRET, now_s)
    assert caught.value.code is ErrorCode.UNAUTHENTICATED
    return caught.value.sentence


def setup_code(call: object, *arguments: object) -> str:
    """Return the code of the SetupError that a call raises."""
    assert callable(call)
    with pytest.raises(SetupError) as caught:
        call(*arguments)
    for word in ("\n  where: ", "\n  why: ", "\n  what to do: ", caught.value.code):
        assert word in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("skew_s", [-60, -1, 0, 1, 60])
def test_clocks_may_differ_by_a_minute(skew_s: int) -> None:
    """A token is good for 60 s, to either side."""
    auth.check_token(auth.make_token(SECRET, NOW_S + skew_s), SECRET, NOW_S)


@pytest.mark.parametrize(("skew_s", "side"), [(61, "ahead of"), (-61, "behind"), (-9999, "behind")])
def test_a_skew_is_explained(skew_s: int, side: str) -> None:
    """The error names both clocks, the difference, and who is ahead."""
    sentence = refusal(auth.make_token(SECRET, NOW_S + skew_s))
    for part in (str(NOW_S), str(NOW_S + skew_s), f"{abs(skew_s)} s {side}", "60 s"):
        assert part in sentence


def bearer(claims: dict[str, object], secret: bytes = SECRET, algorithm: str = "HS256") -> str:
    """Return a header with any claims."""
    return auth.SCHEME + jwt.encode(claims, secret, algorithm=algorithm)


def unsigned(claims: dict[str, object]) -> str:
    """Return a header whose token says that it needs no signature."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none", "typ": "JWT"}, claims)
    ]
    return f"{auth.SCHEME}{parts[0]}.{parts[1]}."


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "no authorization header"),
        ("", "not `Bearer`"),
        ("Basic abc", "not `Bearer`"),
        ("Bearer " + "x" * 5_000, "not `Bearer`"),
        ("Bearer abc", "cannot be read"),
        (bearer({"iat": NOW_S}, bytes(32)), "another secret"),
        (bearer({"iat": NOW_S}, bytes(64), "HS512"), "cannot be read"),
        (bearer({}), "iat"),
        (bearer({"iat": True}), "whole number"),
        (bearer({"iat": str(NOW_S)}), "whole number"),
        (bearer({"iat": NOW_S + 0.5}), "whole number"),
        (unsigned({"iat": NOW_S}), "cannot be read"),
    ],
)
def test_other_tokens_are_refused(value: str | None, word: str) -> None:
    """Missing, of another kind, with another secret or algorithm, without a time."""
    assert word in refusal(value)


def test_other_claims_do_not_count() -> None:
    """Only iat is looked at."""
    claims = {"iat": NOW_S, "exp": 1, "nbf": 2**40, "aud": "x", "iss": "x", "sub": "y", "jti": "z"}
    auth.check_token(bearer(claims), SECRET, NOW_S)


def test_a_secret_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    """Mode 0600, 64 hex digits, never replaced."""
    path = tmp_path / "jwt.hex"
    secret = auth.create_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert auth.read_secret(path) == secret
    assert len(secret) == auth.SECRET_BYTES
    assert setup_code(auth.create_secret, path) == "engine_api.secret_exists"
    assert auth.read_secret(path) == secret
    path.write_text(f"  0x{SECRET.hex().upper()}\n")
    assert auth.read_secret(path) == SECRET


def test_a_secret_that_others_can_read_is_none(tmp_path: Path) -> None:
    """Mode, kind and content of the file are checked."""
    path = tmp_path / "jwt.hex"
    assert setup_code(auth.read_secret, path) == "engine_api.secret_unreadable"
    auth.create_secret(path)
    path.chmod(0o640)
    assert setup_code(auth.read_secret, path) == "engine_api.secret_mode"
    path.chmod(0o600)
    for text in ("", "00" * 31, "00" * 33, "zz" * 32, "00" * 500):
        path.write_text(text)
        assert setup_code(auth.read_secret, path) == "engine_api.secret_text"
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert setup_code(auth.read_secret, tmp_path / "pipe") == "engine_api.secret_mode"
    assert setup_code(auth.read_secret, tmp_path) == "engine_api.secret_mode"


@pytest.mark.parametrize("address", ["unix:/a/b.sock", "127.0.0.1:0", "127.9.9.9:1", "[::1]:65535"])
def test_addresses_on_this_machine(address: str) -> None:
    """A path, or a loopback host with a port."""
    transport.check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        *("", "unix:a.sock", "unix:/" + "x" * 200, "0.0.0.0:1", "[::]:1", "localhost:1"),
        *("127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1"),
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    """Names, other hosts, no port, a path that no socket takes."""
    assert setup_code(transport.check_address, address).startswith("engine_api.address_")


def test_the_folder_of_a_socket_is_private(tmp_path: Path) -> None:
    """It is made with mode 0700; one that others can enter is refused, as is a link to one."""
    path = tmp_path / "api" / "engine.sock"
    transport.prepare_folder(path)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    transport.prepare_folder(path)
    path.parent.chmod(0o750)
    assert setup_code(transport.prepare_folder, path) == "engine_api.socket_folder"
    path.parent.chmod(0o700)
    (tmp_path / "link").symlink_to(path.parent)
    other = tmp_path / "link" / "engine.sock"
    assert setup_code(transport.prepare_folder, other) == "engine_api.socket_folder"
    path.write_text("no socket")
    assert setup_code(transport.prepare_folder, path) == "engine_api.socket_file"


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    """Two executors never share one; what a dead process left is taken over."""
    path = tmp_path / "api" / "engine.sock"
    transport.prepare_folder(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert setup_code(transport.prepare_folder, path) == "engine_api.socket_in_use"
    assert path.exists()
    transport.prepare_folder(path)


def test_every_error_has_its_status() -> None:
    """A client that reads only the status still knows the code."""
    assert {transport.CODES[status] for status in transport.STATUSES.values()} == set(ErrorCode)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:65535", ("::1", 65_535)), ("a:1", ("a", 1)),
        ("127.0.0.1", None), (":1", None), ("a:", None), ("a:-1", None), ("a:65536", None),
        ("a:0x1", None), (f"a:{'1' * 5_000}", None), ("a:\u0663", None),
    ],
)  # fmt: skip
def test_host_and_port_are_read_in_one_way(text: str, place: tuple[str, int] | None) -> None:
    """A port is digits up to 65,535, also where there are thousands of them."""
    assert transport.split_host_port(text) == place
