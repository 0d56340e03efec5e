"""The key by which peers know a node, and who its peers are.

The key is no account and no validator: it proves a connection and signs nothing of value. It is
made when it is first asked for and stays in the home. Peers list each other on both sides.
"""

import secrets
from contextlib import suppress
from pathlib import Path

from engine.constants import KEY_BYTES
from engine_api.transport import split_host_port
from runtime.durable import create_file
from runtime.errors import ExplainedError
from runtime.keypair import SEED_BYTES, KeyPair, is_public_key

KEY_PATH = Path("keys", "gossip.key")
"""in the home: 64 hex digits of the seed and a line feed"""
TCP = "tcp://"
PEERS_MAX = 32
"""a bit for each in what is known of a transaction, see `known`"""


class GossipError(ExplainedError):
    """A key or a list of peers that cannot be used. Codes begin with `gossip.`"""


def open_key(home: Path) -> KeyPair:
    """Return the transport key of a home, made if there is none. Raises GossipError."""
    path = home.joinpath(KEY_PATH)
    try:
        if not path.exists():
            _make(path)
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise GossipError(
            "gossip.key_unreadable",
            what="the transport key cannot be read or made",
            where=str(path),
            why=error.strerror or str(error),
            what_to_do="let this user read and write the folder",
        ) from error
    digits = text.strip()
    if len(digits) != 2 * SEED_BYTES or not set(digits) <= set("0123456789abcdef"):
        raise GossipError(
            "gossip.key",
            what="this file holds no key",
            where=str(path),
            why=f"it is not {2 * SEED_BYTES} hex digits",
            what_to_do="restore it, or remove it: a new one is made, which peers have to be told",
        )
    return KeyPair.of(bytes.fromhex(digits))


def _make(path: Path) -> None:
    """Write a fresh seed that others cannot read, unless somebody did at the same moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        create_file(path, f"{secrets.token_hex(SEED_BYTES)}\n".encode())


def parse_peers(text: str) -> dict[bytes, str]:
    """Return key -> address of `KEY@tcp://HOST:PORT ...`. Raises GossipError."""
    peers: dict[bytes, str] = {}
    for entry in text.split():
        digits, _, address = entry.partition("@")
        if len(digits) != 2 * KEY_BYTES or not set(digits) <= set("0123456789abcdef"):
            raise _bad_peer(entry, f"no key of {2 * KEY_BYTES} hex digits stands before @")
        if not _is_address(address):
            raise _bad_peer(entry, "the address is not tcp://HOST:PORT")
        key = bytes.fromhex(digits)
        if not is_public_key(key):
            raise _bad_peer(entry, "the key encodes no point of Ed25519's prime-order subgroup")
        if key in peers:
            raise _bad_peer(entry, "the key stands there twice")
        peers[key] = address
    if len(peers) > PEERS_MAX:
        raise _bad_peer(f"{len(peers)} peers", f"{PEERS_MAX} are the most")
    return peers


def check_peers_are_used(listen: str, peers: str) -> None:
    """Raise GossipError where peers are named and nothing would be sent to them."""
    if peers.strip() and not listen:
        raise _bad_peer(peers, "gossip_listen is empty, so this node takes no part in gossip")


def check_listen(address: str) -> None:
    """Raise GossipError for a gossip_listen that is anything but `tcp://HOST:PORT`."""
    if not _is_address(address):
        raise GossipError(
            "gossip.listen",
            what=f"gossip cannot listen at {address[:120]!r}",
            where="gossip_listen",
            why="the address is not tcp://HOST:PORT",
            what_to_do="write tcp://HOST:PORT with an address of this machine, without a key",
        )


def _is_address(text: str) -> bool:
    return text.startswith(TCP) and split_host_port(text.removeprefix(TCP)) is not None


def _bad_peer(entry: str, why: str) -> GossipError:
    return GossipError(
        "gossip.peers",
        what=f"gossip cannot use {entry[:120]!r}",
        where="gossip_listen or gossip_peers",
        why=why,
        what_to_do="write KEY@tcp://HOST:PORT for each peer, separated by spaces; "
        "the key of a node is printed by `python -m engine gossip key --home DIR`",
    )
