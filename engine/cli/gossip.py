"""`gossip`: what peers of a node have to know of it."""

from pathlib import Path

import click

from engine.cli.options import home_option
from engine.gossip.addresses import open_key
from engine.store.home import read_format
from runtime.command_line import json_option, print_json


@click.group()
def gossip() -> None:
    """Passing transactions on between executors."""


@gossip.command("key")
@home_option
@json_option
def show_key(home: Path, is_json: bool) -> None:
    """Print the key by which peers know this home; the first call makes it."""
    read_format(home)
    public_key = open_key(home).public_key.hex()
    if is_json:
        print_json({"public_key": public_key})
        return
    click.echo(public_key)
