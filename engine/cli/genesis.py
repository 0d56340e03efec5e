"""Commands about a genesis: make one for a new network, and show what one says."""

import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from engine.dev import store_dev_keys
from engine.genesis import Genesis, Parameters, genesis_hash, params_hash
from engine.genesis_file import load_genesis
from engine.genesis_new import ACCOUNTS_MAX, CHAIN_ID, NETWORK, read_list, write_new_genesis
from engine_api.parameters import BOUNDS
from runtime.command_line import FILE, FOLDER, json_option, print_json
from runtime.keystore import Keystore

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def genesis() -> None:
    """Block 0 of a chain: make one for a new network, show what one says."""


def parameter_options(command: F) -> F:
    """Add a flag for every parameter of a chain."""
    for field in reversed(fields(Parameters)):
        decorate = click.option(
            f"--{field.name.replace('_', '-')}",
            field.name,
            type=click.IntRange(*BOUNDS[field.name][:2]),
            default=getattr(NETWORK, field.name),
            show_default=True,
        )
        command = decorate(command)
    return command


@genesis.command("new")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--validators", "members", type=FILE, required=True, metavar="FILE",
    help="JSON: [{public_key, power}] of epoch 0",
)  # fmt: skip
@click.option("--schedule", type=FILE, metavar="FILE", help="JSON: [{epoch, validators}]")
@click.option(
    "--accounts", type=click.IntRange(1, ACCOUNTS_MAX), default=100, show_default=True,
    help="of development, whose keys everybody knows",
)  # fmt: skip
@click.option("--chain-id", type=click.IntRange(1, 2**32 - 1), default=CHAIN_ID, show_default=True)
@click.option("--timestamp-ms", type=click.IntRange(0), help="now by default")
@click.option(
    "--keys", type=FOLDER, metavar="DIR", help="store the keys of the first accounts there"
)
@parameter_options
@json_option
def new(
    out: Path,
    members: Path,
    schedule: Path | None,
    accounts: int,
    chain_id: int,
    timestamp_ms: int | None,
    keys: Path | None,
    is_json: bool,
    **parameters: int,
) -> None:
    """Write the genesis of a network for development: its accounts are worth nothing."""
    made = write_new_genesis(
        out,
        chain_id=chain_id,
        timestamp_ms=time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms,
        parameters=Parameters(**parameters),
        validators=read_list(members),
        schedule=[] if schedule is None else read_list(schedule),
        accounts=accounts,
    )
    if keys is not None:
        store_dev_keys(Keystore(keys), accounts)
    _show(made, is_json)


@genesis.command("show")
@click.option("--genesis", "file", type=FILE, required=True, metavar="FILE", help="JSON of a chain")
@json_option
def show(file: Path, is_json: bool) -> None:
    """Print the hashes, parameters and first validator sets of a genesis.

    The JSON is the chain.json that a consensus node keeps.
    """
    _show(load_genesis(file), is_json)


def summary(found: Genesis) -> dict[str, Any]:
    """Return what consensus needs to know of a genesis; hashes and keys are hex digits."""
    return {
        "chain_id": found.chain_id,
        "genesis_hash": genesis_hash(found).hex(),
        "params_hash": params_hash(found.parameters).hex(),
        "timestamp_ms": found.timestamp_ms,
        "address_prefix": found.address_prefix,
        "symbol": found.symbol,
        "accounts": len(found.account_keys),
        "parameters": asdict(found.parameters),
        "validator_sets": [
            [
                {"public_key": member.public_key.hex(), "power": member.power}
                for member in found.validators_of(epoch)
            ]
            for epoch in (0, 1)
        ],
    }


def _show(found: Genesis, is_json: bool) -> None:
    values = summary(found)
    if is_json:
        print_json(values)
        return
    for name in ("chain_id", "genesis_hash", "params_hash", "timestamp_ms", "accounts"):
        click.echo(f"{name:24} {values[name]}")
    for name, value in values["parameters"].items():
        click.echo(f"{name:24} {value}")
    for epoch, members in enumerate(values["validator_sets"]):
        for member in members:
            key = member["public_key"]
            click.echo(f"{f'validator of epoch {epoch}':24} {key} power {member['power']}")
