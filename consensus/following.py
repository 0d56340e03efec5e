"""`follow`: a full node without a validator's key, made of what a running node tells.

It verifies every certificate and drives its own executor, and trusts the other node for one thing
alone: which chain this is. Whoever knows the genesis hash compares it, or gives the genesis file.
Its peers are the other node and that one's peers, for blocks and payloads; it has no votes.
"""

import re
import secrets
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from consensus.chain_file import parse_chain
from consensus.client import ANSWER_BYTES_MAX, ClientError, read_bytes, read_page
from consensus.config import LAYERS, PEERS_MAX, Peer, load_config
from consensus.home import (
    ACCOUNTS_SUFFIX,
    GENESIS_NAME,
    TRANSPORT_NAME,
    Home,
    HomeError,
    NewHome,
    create_home,
    describe_genesis,
)
from runtime.keypair import SEED_BYTES
from runtime.pages import Page, text_page
from runtime.settings import FILE_NAME, ConfigError, toml_table
from runtime.urls import NodeUrl

FREE_PORT = "tcp://127.0.0.1:0"
FREE_HTTP = "127.0.0.1:0"
GENESIS_PREFIX = "/genesis/"
GENESIS_FILES_MAX = 2
BYTES_TYPE = "application/octet-stream"
_FILE_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._-]{0,127}")
"""of another node's files, as they are written here"""


def genesis_page(home: Home, name: str) -> Page:
    """Return a file of the genesis, for those who want to follow; other files are not shown."""
    if name not in home.genesis_names():
        return text_page(HTTPStatus.NOT_FOUND, f"its files are {', '.join(home.genesis_names())}")
    path = home.folder.joinpath(name)
    if path.stat().st_size > ANSWER_BYTES_MAX:
        return text_page(HTTPStatus.INSUFFICIENT_STORAGE, f"{name} is too large to be sent here")
    return Page(status=HTTPStatus.OK, content_type=BYTES_TYPE, body=path.read_bytes())


def make_follower(home: Home, url: str, genesis: Path | None) -> str:
    """Make a follower's home of the chain that a node at `url` has; return the genesis hash.

    genesis: its file, if it is at hand, else the node is asked for it. Raises ExplainedError.
    """
    theirs = parse_chain(msgspec.json.encode(read_page(url, "/chain")), f"{url}/chain")
    settings = _settings(_peers(url))
    with tempfile.TemporaryDirectory(prefix="tos-follow-") as folder:
        _check_settings(url, settings, Path(folder))
        file = _download(url, Path(folder)) if genesis is None else genesis
        chain = describe_genesis(file)
        if parse_chain(chain, str(file)).genesis_hash != theirs.genesis_hash:
            raise HomeError(
                "home.other_chain",
                what="the node is one of another chain",
                where=url,
                why=f"its genesis hash is {theirs.genesis_hash}, and that of the file is another",
                what_to_do="give the genesis file of that chain, or the URL of a node of this one",
            )
        create_home(
            home,
            NewHome(
                genesis=file,
                chain=chain,
                key_name=TRANSPORT_NAME,
                seed=secrets.token_bytes(SEED_BYTES),
                password=None,
                observer_since_ms=None,
                settings=settings,
                executor_settings={"http_address": FREE_HTTP, "query_address": FREE_HTTP},
            ),
        )
    return theirs.genesis_hash


def _settings(peers: list[Peer]) -> str:
    template = LAYERS.template(
        listen_votes=FREE_PORT,
        listen_sync=FREE_PORT,
        listen_payloads=FREE_PORT,
        http_address=FREE_HTTP,
    )
    tables = (
        toml_table(
            "peers",
            {"key": peer.key, "sync": peer.sync, "payloads": peer.payloads, "name": peer.name},
        )
        for peer in peers
    )
    return template + "".join(f"\n{table}" for table in tables)


def _check_settings(url: str, settings: str, folder: Path) -> None:
    """Raise ClientError unless a node could start with these: else its home is made in vain."""
    file = folder.joinpath(FILE_NAME)
    file.write_text(settings)
    try:
        load_config(folder, environment={}, flags={})
    except ConfigError as error:
        raise _bad_answer(url, f"with its peers, {error.what}: {error.why}") from error
    file.unlink()


def _peers(url: str) -> list[Peer]:
    """Return the node itself and its peers, each key once; raises ClientError for no such list."""
    found: Any = read_page(url, "/peers")
    try:
        peers = msgspec.convert(found, list[Peer], strict=True)
    except msgspec.ValidationError as error:
        raise _bad_answer(url, str(error)) from error
    if not 1 <= len(peers) <= PEERS_MAX:
        raise _bad_answer(url, f"{len(peers)} peers are not 1 to {PEERS_MAX}")
    host = NodeUrl.of(url).host
    # The node comes first and may list itself among its peers once more.
    first = {peer.key: peer for peer in reversed(peers)}
    peers = [first[key] for key in dict.fromkeys(peer.key for peer in peers)]
    return [_reachable(peer, f"[{host}]" if ":" in host else host) for peer in peers]


def _reachable(peer: Peer, host: str) -> Peer:
    """Return a peer whose address of all hosts stands for the one that was asked."""
    sync, payloads = (
        text.replace("//0.0.0.0:", f"//{host}:").replace("//[::]:", f"//{host}:")
        for text in (peer.sync, peer.payloads)
    )
    return msgspec.structs.replace(peer, sync=sync, payloads=payloads)


def _download(url: str, folder: Path) -> Path:
    """Fetch the genesis and its accounts file, if it has one, to a folder; return the first."""
    names: Any = read_page(url, "/genesis")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise _bad_answer(url, "the names of its genesis files are no list of texts")
    for name in names[:GENESIS_FILES_MAX]:
        if _FILE_NAME.fullmatch(name) and (name == GENESIS_NAME or name.endswith(ACCOUNTS_SUFFIX)):
            folder.joinpath(name).write_bytes(read_bytes(url, f"{GENESIS_PREFIX}{name}"))
    return folder.joinpath(GENESIS_NAME)


def _bad_answer(url: str, why: str) -> ClientError:
    return ClientError(
        "client.answer",
        what="the node answers something else than was asked for",
        where=url,
        why=why,
        what_to_do="see that --from is the URL of the pages of a consensus node of this version",
    )
