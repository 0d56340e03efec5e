"""Commands about a running node: run it, ask it, show its settings."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consensus.cli.options import (
    ask_node,
    home_option,
    no_home,
    node_options,
    read_config,
    settings_options,
)
from consensus.config import LAYERS, Config
from consensus.home import Home, lock_home
from runtime.command_line import FILE, config_group, json_option, print_json
from runtime.logs import LogStream, open_log
from runtime.secrets import password_of
from runtime.starting import loading

config = config_group(LAYERS, home_option, read_config)
_COLOURS = {True: "green", False: "red"}
PIPED_COLUMNS = 240
"""of a table that no terminal shows: no key is broken in two"""


@click.command()
@home_option
@settings_options
def run(home: Path, file: Path | None, **flags: str | int | None) -> int:
    """Run a node and its executor until SIGTERM or SIGINT.

    One line per final block is written to stderr; the executor's go to run/executor.log in DIR.
    Exit codes: 0 stopped by a signal, 1 something broke, 2 it cannot start, 3 no such device.
    """
    place = Home(folder=home)
    if not place.is_made():
        raise no_home(home)  # before its settings: a folder of another program has others
    return run_home(place, read_config(home, file, flags))


@click.command()
@click.option("--from", "url", metavar="URL", help="pages of a node of the chain")
@click.option(
    "--genesis", type=FILE, metavar="FILE", help="JSON of the chain, instead of asking that node"
)
@home_option
def follow(url: str | None, genesis: Path | None, home: Path) -> int:
    """Run a full node without a validator's key: it verifies and executes every block.

    The first time it makes the home, of what the node at URL tells: the chain and its peers. That
    this is the right chain is for you to see: compare the genesis hash.
    """
    place = Home(folder=home)
    if not place.is_made():
        if url is None:
            raise click.UsageError(f"{home} is no home yet: give --from URL")
        from consensus.following import make_follower

        genesis_hash = make_follower(place, url, genesis)
        click.echo(f"made {home}; genesis hash {genesis_hash}", err=True)
    return run_home(place, read_config(home, None, {}))


def run_home(home: Home, config: Config) -> int:
    """Run the node of a home until a signal; raises ExplainedError where it cannot start."""
    entry = home.entry()
    assert entry is not None, "a home has a key"
    # Imported here: the other commands wait neither for sockets nor for gRPC.
    with loading():
        from consensus.process import NodeProcess

    stream = LogStream(sys.stderr)
    log = open_log(config.settings.log_level, config.settings.log_format, stream)
    with lock_home(home):
        pair = home.keys.open(entry.name, password_of(entry))
        return NodeProcess(home, config, pair, log, stream).run()


@click.command()
@node_options
@json_option
def status(home: Path, url: str | None, is_json: bool) -> None:
    """Print where a running node stands: role, epoch, final height, executor, peers."""
    found = ask_node(home, url, "/status")
    if is_json:
        print_json(found)
        return
    table = _table("", "")
    for name, value in found.items():
        if name != "peers":
            table.add_row(Text(name), Text(_flat(value)))
    console = _console()
    console.print(table)
    peers = _table("peer", "votes", "sync", "payloads", "key")
    for peer in found.get("peers", ()):
        links = [_yes(bool(peer.get(link))) for link in ("votes", "sync", "payloads")]
        peers.add_row(Text(str(peer.get("name", ""))), *links, Text(str(peer.get("key", ""))))
    console.print(peers)


@click.command()
@node_options
@json_option
def validators(home: Path, url: str | None, is_json: bool) -> None:
    """Print the validators of this epoch and of the next one, with their power."""
    found = ask_node(home, url, "/validators")
    if is_json:
        print_json(found)
        return
    table = _table("set", "key", "power")
    for title, name in (("now", "validators"), ("next epoch", "next_validators")):
        for member in found[name]:
            table.add_row(Text(title), Text(member["key"]), Text(str(member["power"])))
    console = _console()
    console.print(Text(f"epoch {found['epoch']}"))
    console.print(table)


@click.command()
@node_options
@json_option
def evidence(home: Path, url: str | None, is_json: bool) -> None:
    """Print what is proven against validators: two votes that no honest one makes both."""
    found = ask_node(home, url, "/evidence")
    if is_json:
        print_json(found)
        return
    if not found["evidence"]:
        click.echo("nothing is proven against anybody")
        return
    table = _table("epoch", "view", "offence", "key")
    for item in found["evidence"]:
        cells = (str(item.get(name, "")) for name in ("epoch", "view", "offence", "key"))
        table.add_row(*(Text(cell) for cell in cells))
    _console().print(table)


def _console() -> Console:
    """Return where tables go: as wide as the terminal, or wide enough for whoever reads lines."""
    return Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(titles))
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _yes(is_so: bool) -> Text:
    return Text("yes" if is_so else "no", style=_COLOURS[is_so])


def _flat(value: Any) -> str:
    """Return a value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
    return str(value)
