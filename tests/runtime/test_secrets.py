"""Passwords and seeds as a person hands them over: what is none is refused, nobody waits."""

import io
import os
from pathlib import Path

import pytest

from runtime import secrets
from runtime.keystore import Keystore, KeystoreError


@pytest.fixture(autouse=True)
def nobody_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run without a terminal and without the variable."""
    monkeypatch.delenv(secrets.PASSWORD_VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("password\npassword\n"))


def test_a_password_comes_from_the_environment_or_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is neither, the error says so; standard input is not read for one."""
    entry = Keystore(tmp_path).add("a", bytes(32), "password")
    for ask in (secrets.new_password, lambda: secrets.password_of(entry)):
        with pytest.raises(KeystoreError, match="nobody can type it here") as caught:
            ask()
        assert caught.value.code == "key.password"
    monkeypatch.setenv(secrets.PASSWORD_VARIABLE, "password")
    assert secrets.new_password() == secrets.password_of(entry) == "password"
    assert secrets.password_of(Keystore(tmp_path).add("b", bytes(32), None)) == ""


def test_an_empty_password_of_the_environment_seals_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key gets none; one that was sealed so before still opens."""
    entry = Keystore(tmp_path).add("a", bytes(32), "")
    monkeypatch.setenv(secrets.PASSWORD_VARIABLE, "")
    with pytest.raises(KeystoreError, match="TOS_PASSWORD is empty"):
        secrets.new_password()
    assert Keystore(tmp_path).open("a", secrets.password_of(entry)).seed == bytes(32)


def test_a_password_may_be_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an environment has that is no UTF-8 opens what it sealed."""
    monkeypatch.setenv(secrets.PASSWORD_VARIABLE, os.fsdecode(b"p\xffw"))
    entry = Keystore(tmp_path).add("a", bytes(32), secrets.new_password())
    assert Keystore(tmp_path).open("a", secrets.password_of(entry)).seed == bytes(32)


def test_a_new_password_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal both have to be the same, and not empty."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for typed, is_good in ((["a", "a"], True), (["a", "b"], False), ([""], False)):
        words = iter(typed)
        monkeypatch.setattr("getpass.getpass", lambda _, words=words: next(words))
        if is_good:
            assert secrets.new_password() == "a"
        else:
            with pytest.raises(KeystoreError, match="both times the same one"):
                secrets.new_password()


@pytest.mark.parametrize(
    "data", [b"", b"07" * 31, b"07" * 33, b"zz" * 32, b"\xff" * 64, b"0" * 999]
)
def test_what_is_no_seed_is_refused(tmp_path: Path, data: bytes) -> None:
    """Any bytes, and a file without an end, are answered with what a seed is."""
    path = tmp_path / "seed"
    path.write_bytes(data)
    for place in (path, Path("/dev/zero")):
        with pytest.raises(KeystoreError) as caught:
            secrets.read_seed(place, "--seed-file")
        assert (caught.value.code, "--seed-file" in caught.value.what_to_do) == ("key.seed", True)


def test_a_seed_is_64_hex_digits(tmp_path: Path) -> None:
    """With 0x before them or not, and white space around."""
    path = tmp_path / "seed"
    for text in ("07" * 32, f" 0x{'07' * 32}\n"):
        path.write_text(text)
        assert secrets.read_seed(path, "--seed-file") == bytes([7]) * 32
