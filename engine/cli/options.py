"""Options that several commands share: the home, the settings, JSON."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from engine.client import URL_DEFAULT
from engine.config import LAYERS, Config, load_config
from runtime import command_line as shared

F = TypeVar("F", bound=Callable[..., Any])
settings_options = shared.settings_options(LAYERS)


def home_option(command: F) -> F:
    """Add --home."""
    decorate = click.option(
        "--home", type=shared.FOLDER, required=True, metavar="DIR", help="folder of the chain"
    )
    return decorate(command)


def keys_option(command: F) -> F:
    """Add --keys."""
    decorate = click.option(
        "--keys",
        type=shared.FOLDER,
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


def read_config(home: Path, file: Path | None, flags: dict[str, str | int | None]) -> Config:
    """Return the settings from flags, environment and file; raises ConfigError.

    The folder around a home has a node.toml of another program: it raises StoreError.
    """
    from engine.store.home import check_not_around  # a wallet does not wait for the store

    check_not_around(home)
    return load_config(home, file=file, environment=os.environ, flags=flags)
