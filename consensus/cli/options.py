"""Options that several commands share: the home, the settings, parameters of a chain, passwords."""

import getpass
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from consensus.client import read_page, url_of
from consensus.config import LAYERS, Config, load_config
from consensus.core.types import Parameters
from consensus.home import HomeError
from runtime import command_line as shared
from runtime.command_line import FOLDER
from runtime.keystore import KeyEntry, KeystoreError

F = TypeVar("F", bound=Callable[..., Any])
PASSWORD_VARIABLE = "TOS_PASSWORD"  # the name, not a password
PARAMETER_MAX = 2**32 - 1
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
    return read_page(url if url is not None else url_of(home), path)


def parameter_options(command: F) -> F:
    """Add a flag for every parameter of a new chain; the executor's command knows the defaults."""
    for field in reversed(fields(Parameters)):
        names = [f"--{field.name.replace('_', '-')}"]
        if field.name == "heights_per_epoch":
            names.insert(0, "--epoch-heights")
        command = click.option(
            *names, field.name, type=click.IntRange(1, PARAMETER_MAX), help="of the chain"
        )(command)
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


def new_password() -> str:
    """Ask for a new password twice, or take that of the environment."""
    given = os.environ.get(PASSWORD_VARIABLE)
    if given is not None:
        return given
    first = _typed("password for the validator's key: ")
    if not first or _typed("once more: ") != first:
        raise _no_password("both times the same one has to be typed, and not none")
    return first


def password_of(entry: KeyEntry) -> str:
    """Ask for the password of a key that has one."""
    if not entry.has_password:
        return ""
    given = os.environ.get(PASSWORD_VARIABLE)
    return given if given is not None else _typed(f"password of {entry.path}: ")


def _typed(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise _no_password(f"nobody can type it here, and {PASSWORD_VARIABLE} is not set")
    return getpass.getpass(prompt)


def _no_password(why: str) -> KeystoreError:
    return KeystoreError(
        "key.password",
        what="there is no password",
        where="the terminal",
        why=why,
        what_to_do=f"type it at a terminal, or set {PASSWORD_VARIABLE}; `init --no-password` makes "
        "a key that whoever reads it can use",
    )


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
