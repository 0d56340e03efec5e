"""The transport key of a home, and the list of peers."""

import stat
from pathlib import Path

import pytest

from engine.gossip.addresses import (
    KEY_PATH,
    GossipError,
    check_listen,
    check_peers_are_used,
    open_key,
    parse_peers,
)
from runtime.keypair import MIXED_KEY, KeyPair

KEY, OTHER, *MORE = [KeyPair.of(bytes([n]) * 32).public_key.hex() for n in range(33)]


def test_a_home_keeps_its_key(tmp_path: Path) -> None:
    """The key is made once, is for this user alone, and no half of it is left behind."""
    made = open_key(tmp_path)
    assert open_key(tmp_path) == made
    path = tmp_path / KEY_PATH
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert open_key(tmp_path / "other").public_key != made.public_key


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33])
def test_a_damaged_key_is_explained(tmp_path: Path, text: str) -> None:
    """What is no key is neither used nor overwritten."""
    open_key(tmp_path)
    (tmp_path / KEY_PATH).write_text(text)
    with pytest.raises(GossipError, match=r"gossip\.key"):
        open_key(tmp_path)
    assert (tmp_path / KEY_PATH).read_text() == text


def test_peers_are_read() -> None:
    """Keys and addresses, separated by any white space; none is a list too."""
    text = f"{KEY}@tcp://127.0.0.1:9003  {OTHER}@tcp://[::1]:0\n"
    assert parse_peers(text) == {
        bytes.fromhex(KEY): "tcp://127.0.0.1:9003",
        bytes.fromhex(OTHER): "tcp://[::1]:0",
    }
    assert parse_peers("") == {}


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"{KEY}@127.0.0.1:1",
        f"{KEY}@tcp://127.0.0.1",
        f"{KEY}@tcp://:1",
        f"{KEY}@tcp://127.0.0.1:65536",
        f"{KEY[2:]}@tcp://127.0.0.1:1",
        f"{KEY}@tcp://127.0.0.1:1 {KEY}@tcp://127.0.0.1:2",
        f"{MIXED_KEY.hex()}@tcp://127.0.0.1:1",
        " ".join(f"{key}@tcp://127.0.0.1:1" for key in (KEY, OTHER, *MORE)),
    ],
)
def test_a_bad_list_of_peers_is_explained(text: str) -> None:
    """Nothing is guessed: each mistake is named, with the form that is wanted."""
    with pytest.raises(GossipError, match=r"KEY@tcp://HOST:PORT"):
        parse_peers(text)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:1", "tcp://127.0.0.1", "tcp://:1", f"{KEY}@tcp://127.0.0.1:1"]
)
def test_a_bad_address_to_listen_at_is_explained(text: str) -> None:
    """Nobody is told to write the key of a peer where none belongs."""
    with pytest.raises(GossipError, match=r"gossip\.listen") as caught:
        check_listen(text)
    assert caught.value.where == "gossip_listen"
    assert "KEY@" not in caught.value.what_to_do
    check_listen("tcp://127.0.0.1:1")


def test_peers_that_nothing_would_be_sent_to_are_refused() -> None:
    """A node that lists peers and listens nowhere would be silent; one that lists none may be."""
    with pytest.raises(GossipError, match="gossip_listen is empty"):
        check_peers_are_used("", f"{KEY}@tcp://127.0.0.1:9003")
    check_peers_are_used("tcp://127.0.0.1:0", f"{KEY}@tcp://127.0.0.1:9003")
    check_peers_are_used("", " ")
