"""`network new` and `init`: what has to exist before a node can run."""

import secrets
from pathlib import Path

import click

from consensus.chain_file import parse_chain
from consensus.cli.options import (
    home_option,
    parameter_arguments,
    parameter_options,
)
from consensus.config import LAYERS
from consensus.home import (
    VALIDATOR_NAME,
    Home,
    NewHome,
    check_place,
    create_home,
    describe_genesis,
)
from consensus.new_network import NetworkPlan, new_network, read_schedule
from consensus.waiting import SystemClock
from runtime.command_line import FILE, FOLDER, json_option, print_json
from runtime.keypair import SEED_BYTES
from runtime.secrets import new_password, read_seed

BASE_PORT = 9_000


@click.group()
def network() -> None:
    """Make a network of validators on this machine."""


@network.command("new")
@click.option("--validators", type=click.IntRange(1, 100), default=4, show_default=True)
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="folder of all homes")
@click.option(
    "--accounts", type=click.IntRange(1, 10**7), default=1_000, show_default=True,
    help="of development, whose keys everybody knows",
)  # fmt: skip
@click.option(
    "--base-port", type=click.IntRange(1_024, 65_535), default=BASE_PORT, show_default=True,
    help="validator i has the ten from here + 10 i on",
)  # fmt: skip
@click.option(
    "--schedule", type=FILE, metavar="FILE",
    help="JSON: [{epoch, validators: [names or keys]}]; who joins later gets a home, too",
)  # fmt: skip
@click.option("--chain-id", type=click.IntRange(1, 2**32 - 1))
@click.option(
    "--device", type=click.Choice(LAYERS.choices("device")), default="auto", show_default=True
)
@click.option("--password", "has_password", is_flag=True, help="seal the keys; TOS_PASSWORD or ask")
@parameter_options
@json_option
def new(
    validators: int,
    out: Path,
    accounts: int,
    base_port: int,
    schedule: Path | None,
    chain_id: int | None,
    device: str,
    has_password: bool,
    is_json: bool,
    **parameters: int | None,
) -> None:
    """Make genesis, keys and a complete home per validator below DIR, to be run on this machine."""
    more = parameter_arguments({**parameters, "accounts": accounts, "chain_id": chain_id})
    made = new_network(
        NetworkPlan(
            out=out,
            validators=validators,
            base_port=base_port,
            schedule=[] if schedule is None else read_schedule(schedule),
            genesis_arguments=more,
            password=new_password() if has_password else None,
            device=device,
        )
    )
    if is_json:
        print_json(made)
        return
    click.echo(f"chain {made['chain_id']}, genesis hash {made['genesis_hash']}")
    for member in made["validators"]:
        click.echo(f"  {member['name']:12} {member['key']}  {member['status_url']}")
    click.echo("start each in a terminal of its own:")
    for member in made["validators"]:
        click.echo(f"  python -m consensus run --home {out}/{member['name']}")
    first = made["validators"][0]
    click.echo(f"look at it: python -m consensus status --home {out}/{first['name']}")
    click.echo(f"wallets:    export TOS_URL={first['executor_url']} TOS_KEYS={made['keys']}")


@click.command()
@click.option(
    "--genesis", "file", type=FILE, required=True, metavar="FILE", help="JSON of the chain"
)
@home_option
@click.option(
    "--import-key", "seed_file", type=FILE, metavar="FILE",
    help="64 hex digits: a key that exists; the node begins as an observer",
)  # fmt: skip
@click.option("--no-password", is_flag=True, help="whoever reads the key's file can use it")
@json_option
def init(file: Path, home: Path, seed_file: Path | None, no_password: bool, is_json: bool) -> None:
    """Make the home of a validator: a new key and its journal in one step, and an executor's home.

    An imported key may have signed elsewhere. So the node only watches until two epochs have ended
    after now, and never run it in two places.
    """
    place = Home(folder=home)
    chain = describe_genesis(file)
    check_place(place, parse_chain(chain, str(file)), file)  # before a password is asked for
    if seed_file is None:
        seed = secrets.token_bytes(SEED_BYTES)
    else:
        seed = read_seed(seed_file, "--import-key")
    entry = create_home(
        place,
        NewHome(
            genesis=file,
            chain=chain,
            key_name=VALIDATOR_NAME,
            seed=seed,
            password=None if no_password else new_password(),
            observer_since_ms=None if seed_file is None else SystemClock().wall_ms(),
            settings=LAYERS.template(),
            executor_settings={},
        ),
    )
    role = "validator" if seed_file is None else "observer"
    if is_json:
        print_json(
            {"home": str(home.absolute()), "public_key": entry.public_key.hex(), "role": role}
        )
        return
    click.echo(f"made {home} for a key that is new" if seed_file is None else f"made {home}")
    click.echo(f"public key {entry.public_key.hex()}, in {entry.path}")
    if seed_file is not None:
        click.echo("it observes until two epochs have ended from now on, then it votes")
    click.echo(f"name peers in {home}/node.toml, then: python -m consensus run --home {home}")
