"""Commands about a home while no node runs on it: make it, its snapshots, export its blocks."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from engine.cli.options import home_option
from engine.config import template
from engine.genesis import genesis_hash
from engine.genesis_file import load_genesis
from engine.store.store import Store
from kernels.backend import Backend, open_backend
from runtime.command_line import FILE, FOLDER, ExitCode, json_option, print_json
from runtime.settings import FILE_NAME


@contextmanager
def opened_backend() -> Iterator[Backend]:
    """Open the CPU's backend for a while."""
    backend = open_backend("cpu")
    try:
        yield backend
    finally:
        backend.close()


@click.command()
@click.option(
    "--genesis", "file", type=FILE, required=True, metavar="FILE", help="JSON of the chain"
)
@home_option
@json_option
def init(file: Path, home: Path, is_json: bool) -> None:
    """Make the home of a chain in an empty or new folder, and a node.toml in it."""
    genesis = load_genesis(file)
    Store.create(home, genesis)
    settings_path = home.joinpath(FILE_NAME)
    if not settings_path.exists():
        settings_path.write_text(template())
    made = {
        "home": str(home.absolute()),
        "genesis_hash": genesis_hash(genesis).hex(),
        "chain_id": genesis.chain_id,
        "accounts": len(genesis.account_keys),
        "supply": genesis.supply,
    }
    if is_json:
        print_json(made)
        return
    click.echo(f"made {made['home']} for chain {made['chain_id']}, {made['accounts']} accounts")
    click.echo(f"genesis hash {made['genesis_hash']}")
    click.echo(f"start it: python -m engine run --home {home}")


@click.command()
@home_option
@click.option("--from", "first", type=click.IntRange(1), required=True, metavar="H")
@click.option("--to", "last", type=click.IntRange(1), required=True, metavar="H")
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="folder for both files")
@json_option
def export(home: Path, first: int, last: int, out: Path, is_json: bool) -> None:
    """Write finalized blocks to transactions.parquet and receipts.parquet.

    Both heights are included. The node of the home is stopped first.
    """
    from engine.export import export_blocks  # pyarrow's Parquet: only here

    with Store.open(home) as store, opened_backend() as backend:
        done = export_blocks(store, backend, first, last, out)
    files = [str(path) for path in done.files]
    if is_json:
        print_json({"blocks": done.blocks, "transactions": done.transactions, "files": files})
        return
    click.echo(f"{done.blocks} blocks, {done.transactions} transactions")
    for path in files:
        click.echo(path)


@click.group()
def snapshot() -> None:
    """Make, check and bring back snapshots of the accounts, while no node runs on the home."""


@snapshot.command("create")
@home_option
@json_option
def create(home: Path, is_json: bool) -> int:
    """Make a snapshot at the finalized height, from the one before and what came after."""
    from engine.snapshots import create_snapshot

    with Store.open(home) as store:
        made = create_snapshot(store, None if is_json else _show_progress)
    if is_json:
        print_json(made.as_json())
    else:
        click.echo(made.as_text())
    return ExitCode.OK


@snapshot.command("verify")
@home_option
@json_option
def verify(home: Path, is_json: bool) -> int:
    """Read every snapshot and compute its state_hash again. Exit code 1 if one is damaged."""
    from engine.snapshots import verify_snapshots

    with opened_backend() as backend:
        found = verify_snapshots(home, backend)
    if is_json:
        print_json({"snapshots": [item.as_json() for item in found]})
    else:
        for item in found:
            click.echo(item.as_text())
        click.echo(f"{len(found)} snapshots")
    return ExitCode.OK if all(not item.damage for item in found) else ExitCode.FAILED


@snapshot.command("restore")
@home_option
@click.option("--from", "file", type=FILE, required=True, metavar="FILE", help="a snapshot")
@json_option
def restore(home: Path, file: Path, is_json: bool) -> int:
    """Bring a snapshot from elsewhere into a home of the same chain, after verifying it.

    It must be that of a finalized block of this home. A start begins from the newest that is good.
    """
    from engine.snapshots import restore_snapshot

    with Store.open(home) as store, opened_backend() as backend:
        made = restore_snapshot(store, file, backend)
    if is_json:
        print_json(made.as_json())
    else:
        click.echo(made.as_text())
    return ExitCode.OK


def _show_progress(stage: str, done: int, total: int) -> None:
    """Write a line of progress to stderr."""
    sys.stderr.write(f"snapshot: {stage} {done} of {total}\n")
    sys.stderr.flush()
