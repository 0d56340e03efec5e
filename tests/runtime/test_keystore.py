"""Keys on disk: sealed, for their owner alone, never overwritten, and refused when damaged."""

import json
import stat
from pathlib import Path

import pytest

from runtime.keypair import KeyPair
from runtime.keystore import Keystore, KeystoreError

SEED = bytes(range(32))


def code_of(error: pytest.ExceptionInfo[KeystoreError]) -> str:
    """Return the code of an error."""
    return error.value.code


def test_a_key_opens_with_its_password_alone(tmp_path: Path) -> None:
    """The right password gives the seed, another one an explained error; the seed is not in it."""
    store = Keystore(tmp_path / "keys")
    entry = store.add("alice", SEED, "right")
    assert entry.has_password
    assert entry.public_key == KeyPair.of(SEED).public_key
    assert store.open("alice", "right").seed == SEED
    with pytest.raises(KeystoreError) as refused:
        store.open("alice", "wrong")
    assert code_of(refused) == "key.password"
    assert SEED.hex() not in entry.path.read_text()
    assert SEED.hex() not in repr(store.open("alice", "right"))


def test_files_are_for_their_owner(tmp_path: Path) -> None:
    """The folder is 0700 and each file 0600; nothing else is left behind."""
    store = Keystore(tmp_path / "keys")
    entry = store.add("dev0", SEED, None)
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert [path.name for path in store.folder.iterdir()] == ["dev0.json"]
    assert store.open("dev0", "whatever is typed").seed == SEED


def test_names_are_never_taken_twice(tmp_path: Path) -> None:
    """Another key under the same name is refused; the same key again changes nothing."""
    store = Keystore(tmp_path)
    first = store.add("a", SEED, None).path.read_bytes()
    store.add("a", SEED, None)
    with pytest.raises(KeystoreError) as taken:
        store.add("a", bytes(32), None)
    assert code_of(taken) == "key.name_taken"
    assert store.get("a").path.read_bytes() == first
    assert store.names() == ["a"]


@pytest.mark.parametrize("name", ["", "A", "../a", "a/b", "a.b", "-a", "a" * 65])
def test_names_are_file_names(tmp_path: Path, name: str) -> None:
    """What could lead out of the folder, or is hard to type, is no name."""
    with pytest.raises(KeystoreError) as refused:
        Keystore(tmp_path).add(name, SEED, None)
    assert code_of(refused) == "key.name"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("kdf", "scrypt"),
        ("memory_bytes", 2**40),
        ("operations", 10**6),
        ("box", "00" * 72),
        ("public_key", "00" * 32),
        ("more", 1),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, field: str, value: object) -> None:
    """No field can be changed unnoticed, and none makes the process take all memory."""
    store = Keystore(tmp_path)
    path = store.add("a", SEED, None).path
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(KeystoreError) as refused:
        store.open("a", "")
    assert code_of(refused) in ("key.damaged", "key.password")
    with pytest.raises(KeystoreError) as unknown:
        store.open("b", "")
    assert code_of(unknown) == "key.unknown"


def test_what_is_damaged_hides_no_other(tmp_path: Path) -> None:
    """All keys that are whole are returned, and an error that names the file for each other one."""
    store = Keystore(tmp_path)
    assert store.entries() == ([], [])
    whole = [store.add(name, SEED, None) for name in ("a", "c")]
    paths = [tmp_path / "b.json", tmp_path / "d.json"]
    paths[0].write_text("{}")
    paths[1].mkdir()
    found, damaged = store.entries()
    assert found == whole
    assert [error.where for error in damaged] == [str(path) for path in paths]
    assert [error.code for error in damaged] == ["key.damaged", "key.unreadable"]
