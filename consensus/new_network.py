"""`network new`: the homes of all validators of a network on one machine, complete, to be run.

Keys are made here and have no password unless one is given; genesis is written by the executor's
command. A validator that the schedule names only for a later epoch gets its home, too. Validator i
has the ten ports from base_port + 10 i on; every node knows every other one.
"""

import json
import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from consensus.config import LAYERS
from consensus.core.types import VALIDATOR_COUNT_MAX
from consensus.home import (
    GENESIS_NAME,
    VALIDATOR_NAME,
    Home,
    HomeError,
    NewHome,
    ask_executor,
    create_home,
    genesis_hash_there,
)
from runtime.decoding import decodable
from runtime.keypair import SEED_BYTES, KeyPair
from runtime.settings import FILE_NAME, set_keys, toml_table

NETWORK_NAME = "network.json"
KEYS_NAME = "keys"
"""Folder of the keys of the first accounts, for a wallet."""
HOST = "127.0.0.1"
PORTS_EACH = 10
PORT_MAX = 65_535
HOMES_AT_ONCE = 4
GOSSIP_PEERS_MAX = 32
"""of an executor, which lists them in its settings"""
SCHEDULE_BYTES_MAX = 2**20


class Port(IntEnum):
    """What a validator's ports are for: the distance from its first one."""

    VOTES = 0
    SYNC = 1
    PAYLOADS = 2
    GOSSIP = 3
    PAGES = 4
    EXECUTOR_PAGES = 5
    EXECUTOR_QUERIES = 6


class ScheduledMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A validator of a scheduled set with its power."""

    validator: str
    power: Annotated[int, Meta(ge=1)]


@decodable
class ScheduledSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The validators from an epoch on: names (`validator2`) or keys, their power 1 unless given."""

    epoch: int
    validators: list[str | ScheduledMember]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """What a network is made of."""

    out: Path
    validators: int
    """of epoch 0: validator0 to validator{n - 1}"""
    base_port: int
    schedule: Sequence[ScheduledSet]
    genesis_arguments: Sequence[str]
    """for the executor's command `genesis new`: parameters, accounts"""
    password: str | None
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A validator that gets a home."""

    index: int
    pair: KeyPair
    plan: NetworkPlan

    @property
    def name(self) -> str:
        """Its name, and that of its folder."""
        return f"validator{self.index}"

    @property
    def home(self) -> Home:
        """Where it lives."""
        return Home(folder=self.plan.out.joinpath(self.name))

    def host_port(self, port: Port) -> str:
        """Return HOST:PORT of one of its services."""
        return f"{HOST}:{self.plan.base_port + PORTS_EACH * self.index + port}"

    def described(self) -> dict[str, Any]:
        """Return it for people and programs."""
        return {
            "name": self.name,
            "key": self.pair.public_key.hex(),
            "home": str(self.home.folder.absolute()),
            "votes": f"tcp://{self.host_port(Port.VOTES)}",
            "sync": f"tcp://{self.host_port(Port.SYNC)}",
            "payloads": f"tcp://{self.host_port(Port.PAYLOADS)}",
            "status_url": f"http://{self.host_port(Port.PAGES)}",
            "executor_pages_url": f"http://{self.host_port(Port.EXECUTOR_PAGES)}",
            "executor_url": f"http://{self.host_port(Port.EXECUTOR_QUERIES)}",
        }


def new_network(plan: NetworkPlan) -> dict[str, Any]:
    """Write genesis and all homes below `plan.out`, and return what was made.

    Raises ExplainedError for what cannot be: a folder in use, a schedule that names nobody.
    """
    plan.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_is_free(plan.out)
    genesis = plan.out.joinpath(GENESIS_NAME)
    members = [
        Member(index=index, pair=KeyPair.of(secrets.token_bytes(SEED_BYTES)), plan=plan)
        for index in range(_count(plan))
    ]
    chain = _write_genesis(plan, members, genesis)
    with ThreadPoolExecutor(HOMES_AT_ONCE) as workers:
        list(workers.map(lambda member: _write_home(member, members, genesis, chain), members))
        gossip_keys = list(workers.map(_gossip_key, members))
    for member in members:
        _connect_executor(member, members, gossip_keys)
    network = {
        "chain_id": json.loads(chain)["chain_id"],
        "genesis_hash": json.loads(chain)["genesis_hash"],
        "genesis": str(genesis.absolute()),
        "keys": str(plan.out.joinpath(KEYS_NAME).absolute()),
        "validators": [member.described() for member in members],
    }
    plan.out.joinpath(NETWORK_NAME).write_text(json.dumps(network, indent=2) + "\n")
    return network


def _check_is_free(out: Path) -> None:
    """Raise HomeError where anything of a network stands, whole or in part: keys may be in it."""
    names = (GENESIS_NAME, NETWORK_NAME, KEYS_NAME)
    found = [path for path in map(out.joinpath, names) if path.exists()]
    homes = [path for path in sorted(out.glob(f"{VALIDATOR_NAME}*")) if path.is_dir()]
    if not (found or homes):
        return
    hashes = {genesis_hash_there(Home(folder=home)) for home in homes} - {None}
    count = f"{len(homes)} homes" if len(homes) != 1 else "one home"
    of = f" of the genesis {', '.join(sorted(map(str, hashes)))}" if hashes else ""
    raise HomeError(
        "home.network_exists",
        what="there is a network already; nothing was changed",
        where=str(out),
        why=f"the folder holds {count}{of}, with keys and journals that a new network, which has "
        "a genesis of its own, would take the place of",
        what_to_do="start its nodes, choose another --out, or move this folder away",
    )


def read_schedule(path: Path) -> list[ScheduledSet]:
    """Return a schedule from JSON: [{epoch, validators: [names or keys]}]; raises HomeError."""
    with path.open("rb") as file:
        data = file.read(SCHEDULE_BYTES_MAX + 1)
    try:
        if len(data) > SCHEDULE_BYTES_MAX:
            raise msgspec.ValidationError(f"more than {SCHEDULE_BYTES_MAX} bytes")
        return msgspec.json.decode(data, type=list[ScheduledSet], strict=True)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _bad_schedule(str(path), str(error)) from error


def _count(plan: NetworkPlan) -> int:
    """Return how many homes are made: all validators that are named anywhere."""
    count = plan.validators
    for item in plan.schedule:
        for member in item.validators:
            index = _index(member if isinstance(member, str) else member.validator)
            count = max(count, 0 if index is None else index + 1)
    if not 1 <= count <= VALIDATOR_COUNT_MAX:
        raise _bad_schedule("--schedule", f"it names validator{count - 1}")
    last_port = plan.base_port + PORTS_EACH * count - 1
    if last_port > PORT_MAX:
        raise HomeError(
            "home.ports",
            what=f"{count} validators do not have ports enough",
            where="--base-port",
            why=f"the last port would be {last_port}; there are {PORT_MAX}",
            what_to_do="choose a lower --base-port",
        )
    return count


def _index(name: str) -> int | None:
    """Return the number in a validator's name; None for what is no such name."""
    digits = name.removeprefix(VALIDATOR_NAME)
    is_name = digits != name and digits.isascii() and digits.isdecimal() and len(digits) <= 6
    return int(digits) if is_name else None


def _write_genesis(plan: NetworkPlan, members: Sequence[Member], genesis: Path) -> bytes:
    """Write genesis and return chain.json."""
    first = [_genesis_member(member.name, 1, members) for member in members[: plan.validators]]
    schedule = [
        {
            "epoch": item.epoch,
            "validators": [
                _genesis_member(named, 1, members)
                if isinstance(named, str)
                else _genesis_member(named.validator, named.power, members)
                for named in item.validators
            ],
        }
        for item in plan.schedule
    ]
    with tempfile.TemporaryDirectory(prefix="tos-network-") as name:
        folder = Path(name)
        folder.joinpath("validators.json").write_text(json.dumps(first))
        folder.joinpath("schedule.json").write_text(json.dumps(schedule))
        return ask_executor(
            "genesis", "new", "--out", str(genesis), "--json",
            "--validators", str(folder.joinpath("validators.json")),
            "--schedule", str(folder.joinpath("schedule.json")),
            "--keys", str(plan.out.joinpath(KEYS_NAME)),
            *plan.genesis_arguments,
        )  # fmt: skip


def _genesis_member(named: str, power: int, members: Sequence[Member]) -> dict[str, Any]:
    index = _index(named)
    if index is None:
        return {"public_key": named, "power": power}
    return {"public_key": f"0x{members[index].pair.public_key.hex()}", "power": power}


def _write_home(member: Member, members: Sequence[Member], genesis: Path, chain: bytes) -> None:
    plan = member.plan
    settings = LAYERS.template(
        listen_votes=f"tcp://{member.host_port(Port.VOTES)}",
        listen_sync=f"tcp://{member.host_port(Port.SYNC)}",
        listen_payloads=f"tcp://{member.host_port(Port.PAYLOADS)}",
        http_address=member.host_port(Port.PAGES),
        device=plan.device,
    )
    peers = "".join(f"\n{_peer_table(peer)}" for peer in members if peer is not member)
    new = NewHome(
        genesis=genesis,
        chain=chain,
        key_name=VALIDATOR_NAME,
        seed=member.pair.seed,
        password=plan.password,
        observer_since_ms=None,
        settings=settings + peers,
        executor_settings=executor_settings(member, members),
    )
    create_home(member.home, new)


def executor_settings(member: Member, members: Sequence[Member]) -> Mapping[str, str | int]:
    """Return what a member's executor has in its node.toml."""
    cores = len(os.sched_getaffinity(0))
    return {
        "http_address": member.host_port(Port.EXECUTOR_PAGES),
        "query_address": member.host_port(Port.EXECUTOR_QUERIES),
        # All executors of the network share this machine, and execute at the same time.
        "threads": max(1, cores // len(members)),
    }


def _gossip_key(member: Member) -> str:
    """Return the key by which other executors know that of a member."""
    home = str(member.home.executor)
    found: str = json.loads(ask_executor("gossip", "key", "--home", home, "--json"))["public_key"]
    return found


def _connect_executor(member: Member, members: Sequence[Member], keys: Sequence[str]) -> None:
    """Let a member's executor know all others, or its neighbours in a ring of very many."""
    others = [other for other in members if other is not member]
    if len(members) > GOSSIP_PEERS_MAX + 1:
        # Peers list each other, so the neighbours are as many on both sides.
        others = [
            members[(member.index + step) % len(members)]
            for half in range(1, GOSSIP_PEERS_MAX // 2 + 1)
            for step in (half, -half)
        ]
    path = member.home.executor.joinpath(FILE_NAME)
    settings = {
        "gossip_listen": f"tcp://{member.host_port(Port.GOSSIP)}",
        "gossip_peers": " ".join(
            f"{keys[other.index]}@tcp://{other.host_port(Port.GOSSIP)}" for other in others
        ),
    }
    path.write_text(set_keys(path.read_text(), settings))


def _peer_table(peer: Member) -> str:
    return toml_table(
        "peers",
        {
            "key": peer.pair.public_key.hex(),
            "votes": f"tcp://{peer.host_port(Port.VOTES)}",
            "sync": f"tcp://{peer.host_port(Port.SYNC)}",
            "payloads": f"tcp://{peer.host_port(Port.PAYLOADS)}",
            "name": peer.name,
        },
    )


def _bad_schedule(where: str, why: str) -> HomeError:
    return HomeError(
        "home.schedule",
        what="this is no schedule of validators",
        where=where,
        why=why,
        what_to_do='write [{"epoch": 2, "validators": ["validator0", "validator4"]}]; a validator '
        'with another power is {"validator": "validator0", "power": 2}',
    )
