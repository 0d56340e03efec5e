"""Options that several commands share: the home, the settings, JSON."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from engine.client import URL_DEFAULT
from engine.config import KEYS, MEANINGS, Config, choices, flag, is_number, load_config

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, exists=True, path_type=Path)


def home_option(command: F) -> F:
    """Add --home."""
    decorate = click.option(
        "--home", type=FOLDER, required=True, metavar="DIR", help="folder of the chain"
    )
    return decorate(command)


def json_option(command: F) -> F:
    """Add --json."""
    decorate = click.option("--json", "is_json", is_flag=True, help="print JSON, for programs")
    return decorate(command)


def keys_option(command: F) -> F:
    """Add --keys."""
    decorate = click.option(
        "--keys",
        type=FOLDER,
        envvar="TOS_KEYS",
        default=lambda: Path.home().joinpath(".tos", "keys"),
        show_default="~/.tos/keys",
        metavar="DIR",
        help="folder of your keys (also TOS_KEYS)",
    )
    return decorate(command)


def url_option(command: F) -> F:
    """Add --url."""
    decorate = click.option(
        "--url",
        envvar="TOS_URL",
        default=URL_DEFAULT,
        show_default=True,
        help="of the node (also TOS_URL)",
    )
    return decorate(command)


def settings_options(command: F) -> F:
    """Add --config and a flag for every key of node.toml."""
    for key in reversed(KEYS):
        words = choices(key)
        kind = int if is_number(key) else str
        command = click.option(
            flag(key), key, type=click.Choice(words) if words else kind, help=MEANINGS[key]
        )(command)
    decorate = click.option(
        "--config", "file", type=FILE, metavar="FILE", help="settings instead of node.toml in DIR"
    )
    return decorate(command)


def read_config(home: Path, file: Path | None, flags: dict[str, str | int | None]) -> Config:
    """Return the settings from flags, environment and file; raises ConfigError."""
    return load_config(home, file=file, environment=os.environ, flags=flags)


def print_json(value: Any) -> None:
    """Write a value as indented JSON."""
    click.echo(json.dumps(value, indent=2))
