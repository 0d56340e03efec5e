"""A follower's home is made of what a node tells, and of nothing that it tells wrongly."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consensus.cli.options import read_config
from consensus.client import ClientError
from consensus.core.types import VALIDATOR_COUNT_MAX
from consensus.following import GENESIS_PREFIX, genesis_page, make_follower
from consensus.home import Home, HomeError
from consensus.new_network import NetworkPlan, new_network
from runtime.keypair import MIXED_KEY, KeyPair
from runtime.pages import PageServer

Serve = Callable[..., str]


def key_of(number: int) -> str:
    """Return the key of a peer."""
    return KeyPair.of(number.to_bytes(32, "big")).public_key.hex()


PEER = key_of(2**32)


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a validator of a network of one whose accounts stand in a file of their own."""
    plan = NetworkPlan(
        out=tmp_path_factory.mktemp("network"),
        validators=1,
        base_port=20_000,
        schedule=(),
        genesis_arguments=("--accounts", "10001"),
        password=None,
        device="cpu",
    )
    found: dict[str, Any] = new_network(plan)["validators"][0]
    return found


@pytest.fixture
def serve(member: dict[str, Any]) -> Iterator[Serve]:
    """Return a way to serve the pages that a follower reads, some of them changed."""
    servers = []

    def one(changes: dict[str, Any], of: Home | None = None) -> str:
        home = of or Home(folder=Path(member["home"]))
        peer = {"key": PEER, "votes": "tcp://127.0.0.1:1", "sync": "tcp://127.0.0.1:2"}
        own = {"key": member["key"], "votes": "tcp://0.0.0.0:3", "sync": "tcp://0.0.0.0:4"}
        values: dict[str, Any] = {
            "/chain": json.loads(home.folder.joinpath("chain.json").read_text()),
            "/peers": [own, peer],
            "/genesis": home.genesis_names(),
        } | changes
        pages = {path: page_of(value) for path, value in values.items()}
        prefixes = {GENESIS_PREFIX: lambda name: genesis_page(home, name)}
        server = PageServer("127.0.0.1:0", pages, prefixes)
        servers.append(server)
        return f"http://{server.start()}"

    def page_of(value: Any) -> Callable[[], Any]:
        from consensus.pages import json_page

        return lambda: json_page(value)

    yield one
    for server in servers:
        server.stop()


def test_a_follower_is_made_of_what_a_node_tells(
    tmp_path: Path, member: dict[str, Any], serve: Serve
) -> None:
    """It has the chain, a key for transport alone, and peers that it asks for blocks."""
    home = Home(folder=tmp_path)
    url = serve({})
    genesis_hash = make_follower(home, url, None)
    theirs = Home(folder=Path(member["home"])).chain()
    assert (home.chain(), home.chain().genesis_hash) == (theirs, genesis_hash)
    assert home.is_follower()
    assert home.is_made()
    settings = read_config(tmp_path, None, {}).settings
    assert [(peer.key, peer.votes, peer.sync) for peer in settings.peers] == [
        (member["key"], "", "tcp://127.0.0.1:4"),
        (PEER, "", "tcp://127.0.0.1:2"),
    ]
    assert home.genesis_names() == ["genesis.json", "genesis-accounts.arrow"]


def test_a_follower_can_be_followed_whatever_the_genesis_is_called(
    tmp_path: Path, member: dict[str, Any], serve: Serve
) -> None:
    """The accounts file keeps the name that the genesis has for it, from home to home."""
    own = Home(folder=Path(member["home"]))
    document = json.loads(own.genesis.read_text()) | {"accounts_file": "mine-accounts.arrow"}
    genesis = tmp_path / "mine.json"
    genesis.write_text(json.dumps(document))
    accounts = own.folder.joinpath("genesis-accounts.arrow").read_bytes()
    genesis.with_name("mine-accounts.arrow").write_bytes(accounts)
    homes = [Home(folder=tmp_path / name) for name in ("first", "second")]
    make_follower(homes[0], serve({}), genesis)
    prefix = {"/genesis": homes[0].genesis_names()}
    make_follower(homes[1], serve(prefix, homes[0]), None)
    for home in homes:
        assert home.genesis_names() == ["genesis.json", "mine-accounts.arrow"]
        assert home.folder.joinpath("mine-accounts.arrow").read_bytes() == accounts


def test_a_node_that_lists_itself_is_one_peer(
    tmp_path: Path, member: dict[str, Any], serve: Serve
) -> None:
    """All nodes of a network may have the same list; of equal keys the first is taken."""
    own = {"key": member["key"], "sync": "tcp://0.0.0.0:4"}
    again = own | {"sync": "tcp://127.0.0.9:5"}
    make_follower(Home(folder=tmp_path), serve({"/peers": [own, again]}), None)
    settings = read_config(tmp_path, None, {}).settings
    assert [peer.sync for peer in settings.peers] == ["tcp://127.0.0.1:4"]


def test_as_many_peers_as_a_set_has_members(tmp_path: Path, serve: Serve) -> None:
    """The settings of a home that knows a thousand validators can be read again."""
    peers = [
        {
            "key": key_of(number),
            "votes": f"tcp://validator-{number}.example.org:9000",
            "sync": f"tcp://validator-{number}.example.org:9001",
            "payloads": f"tcp://validator-{number}.example.org:9002",
            "name": f"validator-{number}",
        }
        for number in range(VALIDATOR_COUNT_MAX)
    ]
    make_follower(Home(folder=tmp_path), serve({"/peers": peers}), None)
    settings = read_config(tmp_path, None, {}).settings
    assert len(settings.peers) == VALIDATOR_COUNT_MAX


def test_only_files_of_the_genesis_are_shown(member: dict[str, Any]) -> None:
    """Neither a key nor a journal leaves by these pages."""
    home = Home(folder=Path(member["home"]))
    assert genesis_page(home, "genesis.json").body == home.genesis.read_bytes()
    for name in ("journal", "node.toml", "", "..", "keys", "validator.json"):
        assert genesis_page(home, name).status == 404


def test_a_node_of_another_chain_is_refused(
    tmp_path: Path, member: dict[str, Any], serve: Serve
) -> None:
    """What it says of its chain and what its genesis says must agree."""
    chain = json.loads(Path(member["home"], "chain.json").read_text())
    url = serve({"/chain": chain | {"genesis_hash": "00" * 32}})
    home = Home(folder=tmp_path)
    for genesis in (None, Path(member["home"], "genesis.json")):
        with pytest.raises(HomeError) as caught:
            make_follower(home, url, genesis)
        assert caught.value.code == "home.other_chain"
    assert not home.is_made()


@pytest.mark.parametrize(
    "changes",
    [
        {"/peers": []},
        {"/peers": [{"key": "x"}]},
        {"/peers": {"a": 1}},
        {"/genesis": "genesis.json"},
        {"/genesis": ["../journal", "journal"]},
        {"/genesis": ["genesis.json", "\u00e9-accounts.arrow"]},
        {"/genesis": ["genesis.json", "a\r\nb-accounts.arrow"]},
        {"/genesis": ["genesis.json", "a\0-accounts.arrow"]},
        {"/genesis": ["genesis.json", "a" * 300 + "-accounts.arrow"]},
        {"/peers": [{"key": MIXED_KEY.hex(), "sync": "tcp://127.0.0.1:1"}]},
        {"/peers": [{"key": PEER, "sync": "ipc:///tmp/socket"}]},
        {"/peers": [{"key": key_of(n), "name": "x" * 4_096} for n in range(1_024)]},
    ],
)
def test_answers_that_are_none_make_no_home(
    tmp_path: Path, serve: Serve, changes: dict[str, Any]
) -> None:
    """A node that answers something else is named; nothing is written outside."""
    home = Home(folder=tmp_path / "h")
    with pytest.raises((ClientError, HomeError)):
        make_follower(home, serve(changes), None)
    assert not home.is_made()
