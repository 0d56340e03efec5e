"""The folders of a network: made by its own commands, then changed where faults ask for it.

`python -m consensus network new` makes genesis, keys and homes. Validators dial relays instead of
each other once their node.toml says so; a clock that is wrong stands there, too.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.network.faults import LinkState
from bench.network.processes import REPOSITORY, surroundings
from runtime.errors import ExplainedError

BASE_PORT = 9_000
MARK = "devnet.json"
"""A file that says that a folder was made here and may be made again."""
PORTS_PER_VALIDATOR = 10
PORTS = ("votes", "sync", "payloads", "gossip", "pages", "executor_pages", "queries")
"""What listens at base + 10 i, + 1, and so on."""
LINKS = ("votes", "sync", "payloads")
"""Keys of a peer in a consensus node.toml that hold addresses."""
RELAY_PORTS_FROM = 1_000
"""above the base port"""
NEW_TIMEOUT_S = 120
_SCHEME = "tcp://"


class NetworkError(ExplainedError):
    """A network that cannot be made or started. Codes begin with `network.`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one validator lives."""

    number: int
    home: Path
    base_port: int

    def port(self, name: str) -> int:
        """Return the port of one of PORTS."""
        return self.base_port + PORTS_PER_VALIDATOR * self.number + PORTS.index(name)

    @property
    def pages(self) -> str:
        """Address of the consensus pages."""
        return f"127.0.0.1:{self.port('pages')}"

    @property
    def query_url(self) -> str:
        """Address of the executor's interface for users."""
        return f"http://127.0.0.1:{self.port('queries')}"

    @property
    def executor_home(self) -> Path:
        """Home of the executor."""
        return self.home / "executor"

    @property
    def engine_address(self) -> str:
        """Address of the Engine API."""
        return f"unix:{self.executor_home / 'run' / 'engine.sock'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network on disk."""

    folder: Path
    places: tuple[Place, ...]
    genesis: Path
    chain: Mapping[str, Any]
    """chain.json of the first home"""


def clear(folder: Path) -> None:
    """Make room for a network: a new or empty folder, or one that was made here before.

    Raises NetworkError for a folder with anything else in it.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if not folder.joinpath(MARK).is_file():
            raise NetworkError(
                "network.folder",
                what="a network needs a folder of its own",
                where=str(folder),
                why=f"there are files in it, and no {MARK} that says they are of an earlier run",
                what_to_do="name another folder with --home, or empty this one",
            )
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NetworkError(
            "network.unwritable",
            what="no network can be made in this folder",
            where=str(folder),
            why=error.strerror or str(error),
            what_to_do="name another folder with --home",
        ) from error
    folder.joinpath(MARK).write_text("{}\n")


def make_network(
    folder: Path, validators: int, *, accounts: int, base_port: int, flags: Sequence[str] = ()
) -> Network:
    """Let `network new` make a network in a cleared folder; raises NetworkError."""
    command = [
        *(sys.executable, "-m", "consensus", "network", "new"),
        *("--validators", str(validators), "--out", str(folder)),
        *("--accounts", str(accounts), "--base-port", str(base_port), *flags),
    ]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=surroundings(), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=NEW_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NetworkError(
            "network.new",
            what="the network was not made",
            where=" ".join(command),
            why=done.stderr.strip()[-2_000:] or f"exit code {done.returncode}",
            what_to_do="correct the arguments",
        )
    found = sorted(
        (int(match[1]), path)
        for path in folder.iterdir()
        for match in [re.fullmatch(r"validator([0-9]+)", path.name)]
        if match is not None
    )
    places = tuple(Place(number=i, home=path, base_port=base_port) for i, path in found)
    assert [place.number for place in places] == list(range(len(places))), "homes are counted"
    chain = json.loads(places[0].home.joinpath("chain.json").read_text())
    return Network(
        folder=folder, places=places, genesis=folder / "genesis.json", chain=chain
    )  # fmt: skip


def check_ports(ports: Sequence[int]) -> None:
    """Raise NetworkError for the first port that somebody listens at already."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise NetworkError(
                    "network.port",
                    what=f"port {port} of 127.0.0.1 cannot be used",
                    where="--base-port",
                    why=error.strerror or str(error),
                    what_to_do="end who listens there, or choose another --base-port",
                ) from error


def all_ports(validators: int, base_port: int, *, with_relays: bool) -> list[int]:
    """Return every port that a network takes."""
    places = [Place(number=i, home=Path(), base_port=base_port) for i in range(validators)]
    ports = [place.port(name) for place in places for name in PORTS]
    if with_relays:
        pairs = [(i, j) for i in range(validators) for j in range(validators) if i != j]
        names = (*LINKS, "gossip")
        ports += [relay_port(base_port, validators, i, j, name) for i, j in pairs for name in names]
    return ports


def relay_port(base_port: int, validators: int, dialler: int, target: int, name: str) -> int:
    """Return where a dialler finds the relay to a target's socket."""
    kind = (*LINKS, "gossip").index(name)
    return base_port + RELAY_PORTS_FROM + 4 * (dialler * validators + target) + kind


def set_setting(path: Path, key: str, value: int | str) -> None:
    """Write one top-level setting of a TOML file, in place of its line if it has one."""
    shown = json.dumps(value)  # integers and plain text look alike in JSON and TOML
    lines = path.read_text().splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("[")), len(lines))
    mine = re.compile(rf"#?\s*{re.escape(key)}\s*=")
    places = [i for i in range(end) if mine.match(lines[i])]
    if places:
        lines[places[-1]] = f"{key} = {shown}"
    else:
        lines.insert(end, f"{key} = {shown}")
    path.write_text("\n".join(lines) + "\n")
    assert tomllib.loads(path.read_text())[key] == value, key


def insert_relays(network: Network, links: LinkState, seed: int) -> Path:
    """Let every validator dial a relay in place of each other; return the relay's file."""
    routes = []
    count = len(network.places)
    base = network.places[0].base_port
    for place in network.places:
        files = [
            place.home.joinpath("node.toml"),
            place.executor_home.joinpath("node.toml"),
        ]
        for path in files:
            text = path.read_text()
            for target, name, address in _dialled(network, place, text):
                port = relay_port(base, count, place.number, target.number, name)
                text = text.replace(address, f"127.0.0.1:{port}")
                routes.append(
                    {
                        "dialler": place.number,
                        "target": target.number,
                        "name": name,
                        "listen": f"127.0.0.1:{port}",
                        "forward": address,
                    }
                )
            path.write_text(text)
    wanted = {
        (i, j, name) for i in range(count) for j in range(count) for name in LINKS if i != j
    }  # fmt: skip
    found = {(route["dialler"], route["target"], route["name"]) for route in routes}
    assert wanted <= found, f"not dialled by a node.toml: {sorted(wanted - found)[:4]}"
    path = network.folder / "relay.json"
    path.write_text(json.dumps({"seed": seed, "links": links.as_json(), "routes": routes}))
    return path


def _dialled(network: Network, place: Place, text: str) -> Iterator[tuple[Place, str, str]]:
    """Yield (target, kind of socket, host:port) of what a node.toml dials."""
    for target in network.places:
        if target is not place:
            for name in (*LINKS, "gossip"):
                address = f"127.0.0.1:{target.port(name)}"
                if f"{_SCHEME}{address}" in text or f'"{address}"' in text:
                    yield target, name, address
