"""Settings of a consensus node: addresses and peers that are refused, and what a file gives."""

from pathlib import Path

import pytest

from consensus.config import LAYERS, Config, Settings, TcpAddress, load_config
from runtime.keypair import MIXED_KEY, KeyPair
from runtime.settings import ConfigError, toml_table

KEY = KeyPair.of(b"k" * 32).public_key.hex()


def load(home: Path, text: str, environment: dict[str, str] | None = None) -> Config:
    """Load a file."""
    (home / "node.toml").write_text(text)
    return load_config(home, environment=environment or {}, flags={})


def test_peers_are_read_with_their_names(tmp_path: Path) -> None:
    """A table is a peer; what it leaves out is not dialled."""
    text = toml_table("peers", {"key": KEY, "sync": "tcp://[::1]:5", "name": "b"})
    (peer,) = load(tmp_path, text).settings.peers
    assert (peer.key, peer.votes, peer.sync, peer.name) == (KEY, "", "tcp://[::1]:5", "b")


def test_the_written_file_has_the_defaults(tmp_path: Path) -> None:
    """A template sets nothing, and a variable of this program goes before it."""
    assert load(tmp_path, LAYERS.template()).settings == Settings()
    environment = {"TOS_CONSENSUS_CLOCK_OFFSET_MS": "-2000", "TOS_HTTP_ADDRESS": "the executor's"}
    found = load(tmp_path, "clock_offset_ms = 5", environment).settings
    assert (found.clock_offset_ms, found.http_address) == (-2000, Settings().http_address)
    assert load(tmp_path, "clock_offset_ms = -2000").settings.clock_offset_ms == -2000


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("listen_votes = 'udp://127.0.0.1:1'", "config.value", ["listen_votes", "tcp://"]),
        ("listen_sync = 'tcp://127.0.0.1'", "config.value", ["listen_sync"]),
        ("listen_payloads = 'tcp://127.0.0.1:65536'", "config.value", ["listen_payloads"]),
        ("fee_recipient = 'ab'", "config.value", ["fee_recipient"]),
        (toml_table("peers", {"key": "AB" * 32}), "config.value", ["peers[0].key"]),
        (toml_table("peers", {"key": KEY, "votes": "x"}), "config.value", ["peers[0].votes"]),
        (toml_table("peers", {"key": KEY}) * 2, "config.value", ["peers[1].key", "twice"]),
        (toml_table("peers", {"key": MIXED_KEY.hex()}), "config.value", ["peers[0].key", "order"]),
        (toml_table("peers", {"key": KEY, "vote": ""}), "config.unknown_key", ["'votes'"]),
    ],
)
def test_what_cannot_be_used_is_explained(
    tmp_path: Path, text: str, code: str, words: list[str]
) -> None:
    """The key, the file and the reason are named."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.code == code
    for word in [*words, str(tmp_path)]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tcp://127.0.0.1:0", TcpAddress(host="127.0.0.1", port=0)),
        ("tcp://[fe80::1]:9000", TcpAddress(host="[fe80::1]", port=9000)),
        ("tcp://node-1.example:65535", TcpAddress(host="node-1.example", port=65535)),
        ("tcp://*:9000", None),
        ("tcp://127.0.0.1:65536", None),
        ("tcp://127.0.0.1:", None),
        ("ipc://x", None),
        ("", None),
    ],
)
def test_addresses(text: str, found: TcpAddress | None) -> None:
    """An address is a host and a port; nothing stands for all hosts but their numbers."""
    assert TcpAddress.of(text) == found
