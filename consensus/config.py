"""What one consensus node may choose for itself: `node.toml`, the environment, and flags.

How the layers lie over each other stands in `runtime/settings.py`. What a network agrees on is not
here but in genesis, hence in `chain.json` (`chain_file.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runtime import settings
from runtime.decoding import decodable
from runtime.keypair import is_public_key
from runtime.logs import LogFormat, LogLevel
from runtime.settings import ConfigError, Text

VARIABLE_PREFIX = "TOS_CONSENSUS_"
PROGRAM = "python -m consensus"
PEERS_MAX = 1_024
OFFSET_MS_MAX = 3_600_000

Device = Literal["auto", "cpu", "gpu"]
Key = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
OptionalKey = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
Offset = Annotated[int, Meta(ge=-OFFSET_MS_MAX, le=OFFSET_MS_MAX)]
_ADDRESS = re.compile(r"tcp://([0-9A-Za-z.-]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})")


@decodable
class Peer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[peers]]` table: whom this node dials, and where."""

    key: Key
    """Ed25519, 64 hex digits: a validator's key, or that of a node that only serves blocks"""
    votes: Text = ""
    """tcp:// address; empty: not dialled for votes"""
    sync: Text = ""
    payloads: Text = ""
    name: Text = ""
    """for people"""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of node.toml with their defaults; what each means stands in `MEANINGS`."""

    listen_votes: Text = "tcp://127.0.0.1:9000"
    listen_sync: Text = "tcp://127.0.0.1:9001"
    listen_payloads: Text = "tcp://127.0.0.1:9002"
    http_address: Text = "127.0.0.1:8550"
    executor_address: Text = ""
    executor_secret_file: Text = ""
    device: Device = "auto"
    fee_recipient: OptionalKey = ""
    clock_offset_ms: Offset = 0
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    peers: tuple[Peer, ...] = ()


MEANINGS: Mapping[str, str] = {
    "listen_votes": "where validators connect for votes: tcp:// and a numeric host and a port; "
    "port 0 takes a free one",
    "listen_sync": "where validators, followers and laggards connect for headers",
    "listen_payloads": "where they connect for payloads",
    "http_address": "loopback host and port of /status, /metrics and the other pages; port 0 takes "
    "a free one",
    "executor_address": "Engine API of an executor that somebody else runs: unix: and a path, or a "
    "loopback host and a port; empty starts and watches the one in the folder executor of the home",
    "executor_secret_file": "64 hex digits that the executor wants to see; needed at a TCP address",
    "device": "of the executor that this node starts: auto takes a GPU if there is one, else the "
    "CPU",
    "fee_recipient": "account that the fees of own blocks go to, 64 hex digits; empty is the "
    "validator's key",
    "clock_offset_ms": "added to the clock of this machine, for tests",
    "log_level": "the least urgent lines that are written: debug, info, warning or error",
    "log_format": "of the log on stderr: text for people, json for programs; auto is text on a "
    "terminal",
    "peers": "one table per peer: key (64 hex digits), votes, sync and payloads (tcp:// "
    "addresses), name",
}
LAYERS = settings.Layers(Settings, MEANINGS, prefix=VARIABLE_PREFIX, program=PROGRAM)
Config = settings.Config[Settings]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpAddress:
    """Host and port of a `tcp://` address; the host is numeric or a name."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> "TcpAddress | None":
        """Return what a text says; None if it is no such address."""
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match[2]) > 65_535:
            return None
        return cls(host=match[1], port=int(match[2]))


def load_config(
    home: Path,
    *,
    file: Path | None = None,
    environment: Mapping[str, str],
    flags: Mapping[str, str | int | None],
) -> Config:
    """Return the settings of a node; raises ConfigError, also for addresses that are none."""
    config = LAYERS.load(home, file=file, environment=environment, flags=flags)
    found = config.settings
    for key in ("listen_votes", "listen_sync", "listen_payloads"):
        _check_address(getattr(found, key), key, config.origins[key])
    if len(found.peers) > PEERS_MAX:
        raise _bad_value("peers", config.origins["peers"], f"there are more than {PEERS_MAX}")
    keys = set()
    for index, peer in enumerate(found.peers):
        for name in ("votes", "sync", "payloads"):
            if getattr(peer, name):
                place = f"peers[{index}].{name}"
                _check_address(getattr(peer, name), place, config.origins["peers"])
        if not is_public_key(bytes.fromhex(peer.key)):
            why = f"{peer.key} is no Ed25519 key: it encodes no point of the prime-order subgroup"
            raise _bad_value(f"peers[{index}].key", config.origins["peers"], why)
        if peer.key in keys:
            why = f"the key {peer.key} stands there twice"
            raise _bad_value(f"peers[{index}].key", config.origins["peers"], why)
        keys.add(peer.key)
    return config


def _check_address(text: str, key: str, origin: str) -> None:
    if TcpAddress.of(text) is None:
        raise _bad_value(key, origin, f"{text!r} is not tcp://, a host, a colon and a port")


def _bad_value(key: str, origin: str, why: str) -> ConfigError:
    return ConfigError(
        "config.value",
        what=f"{key} cannot be used",
        where=f"{key} from {origin}",
        why=why,
        what_to_do="write for example tcp://127.0.0.1:9000; a peer's key stands in one table, as "
        "its node prints it",
    )
