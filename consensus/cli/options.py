"""Options that several commands share: the home, the settings, parameters of a chain."""

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from consensus.client import ClientError, read_page, url_of
from consensus.config import LAYERS, Config, load_config
from consensus.core.types import Parameters
from consensus.home import HomeError
from engine_api.parameters import BOUNDS
from runtime import command_line as shared
from runtime.command_line import FOLDER
from runtime.lock import holder_of

F = TypeVar("F", bound=Callable[..., Any])
settings_options = shared.settings_options(LAYERS)


def default_home() -> Path:
    """Return the home of whoever names none."""
    return Path.home().joinpath(".tos")


def home_option(command: F) -> F:
    """Add --home."""
    decorate = click.option(
        "--home",
        type=FOLDER,
        default=default_home,
        show_default="~/.tos",
        metavar="DIR",
        help="folder of the node",
    )
    return decorate(command)


def node_options(command: F) -> F:
    """Add --home and --url: which running node is asked."""
    decorate = click.option(
        "--url", metavar="URL", help="of the node's pages, instead of the one of --home"
    )
    return home_option(decorate(command))


def ask_node(home: Path, url: str | None, path: str) -> Any:
    """Return the JSON at a path of a running node; raises ClientError."""
    return read_page(url if url is not None else running_url(home), path)


def running_url(home: Path) -> str:
    """Return the URL of the node of a home.

    Raises ClientError: `client.not_running`, or `client.not_ready` where a process has the home
    open that serves nothing yet, as while its executor compiles kernels.
    """
    try:
        return url_of(home)
    except ClientError as error:
        try:
            holder = holder_of(home)
        except OSError:  # no lock, so nobody holds it
            holder = ""
        if not holder:
            raise
        raise ClientError(
            "client.not_ready",
            what="the node of this home is starting, or ending",
            where=str(home),
            why=f"the process {holder} has the home open, and answers nobody now",
            what_to_do="ask again in a moment; the first start of a version takes up to a minute; "
            "what it waits for is on its stderr",
        ) from error


def parameter_options(command: F) -> F:
    """Add a flag for every parameter of a new chain; the executor's command knows the defaults."""
    for field in reversed(fields(Parameters)):
        names = [f"--{field.name.replace('_', '-')}"]
        if field.name == "heights_per_epoch":
            names.insert(0, "--epoch-heights")
        kind = click.IntRange(*BOUNDS[field.name][:2])
        command = click.option(*names, field.name, type=kind, help="of the chain")(command)
    return command


def parameter_arguments(parameters: dict[str, int | None]) -> list[str]:
    """Return the given parameters as arguments of the executor's command."""
    return [
        text
        for name, value in parameters.items()
        if value is not None
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]


def read_config(home: Path, file: Path | None, flags: dict[str, str | int | None]) -> Config:
    """Return the settings from flags, environment and file; raises ConfigError."""
    return load_config(home, file=file, environment=os.environ, flags=flags)


def no_home(folder: Path) -> HomeError:
    """Return the error of a folder that is no home: it names the two commands to type."""
    return HomeError(
        "home.missing",
        what="there is no node here",
        where=str(folder),
        why="the home has no key",
        what_to_do="type one of these two:\n"
        "    python -m consensus network new --validators 4 --out network\n"
        "      makes a network of your own; then run --home network/validator0 and the others\n"
        f"    python -m consensus init --genesis FILE --home {folder}\n"
        "      makes a validator of the chain of that genesis",
    )
