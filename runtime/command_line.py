"""What the command lines of both processes share: exit codes, common options, JSON, last words."""

import json
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine_api.types import SetupError
from runtime.errors import ExplainedError
from runtime.settings import Config, Layers, flag

F = TypeVar("F", bound=Callable[..., Any])
Command = Callable[..., Any]
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, exists=True, path_type=Path)


class ExitCode(IntEnum):
    """How a command ended; stable, for scripts and supervisors."""

    OK = 0
    FAILED = 1
    """it began, and something broke: the store or the device failed, or a check found damage"""
    REFUSED = 2
    """it did not begin: the command line, a setting or the home is not usable; stderr says why"""
    NO_DEVICE = 3
    """a GPU was asked for, and there is none that can be used"""


def json_option(command: F) -> F:
    """Add --json."""
    decorate = click.option("--json", "is_json", is_flag=True, help="print JSON, for programs")
    return decorate(command)


def settings_options(layers: Layers[Any]) -> Callable[[F], F]:
    """Add --config and a flag for every key of a node.toml that is no table."""

    def add(command: F) -> F:
        for key in reversed(layers.plain_keys):
            words = layers.choices(key)
            kind = int if layers.is_number(key) else str
            command = click.option(
                flag(key), key, type=click.Choice(words) if words else kind,
                help=layers.meanings[key],
            )(command)  # fmt: skip
        decorate = click.option(
            "--config", "file", type=FILE, metavar="FILE",
            help="settings instead of node.toml in DIR",
        )  # fmt: skip
        return decorate(command)

    return add


def config_group(
    layers: Layers[Any],
    home_option: Callable[[Command], Command],
    read: Callable[[Path, Path | None, dict[str, str | int | None]], Config[Any]],
) -> click.Group:
    """Return the group `config` of a program; `read`: from home, file and flags."""

    @click.group()
    def config() -> None:
        """Look at the settings of a node."""

    @config.command("show")
    @home_option
    @settings_options(layers)
    @json_option
    def show(home: Path, file: Path | None, is_json: bool, **flags: str | int | None) -> None:
        """Print every setting, its value, and where it came from.

        A flag goes before the environment, that before node.toml, that before the default.
        """
        _print_settings(layers, read(home, file, flags), is_json=is_json)

    return config


def _print_settings(layers: Layers[Any], found: Config[Any], *, is_json: bool) -> None:
    """Write every setting, its value, and where it came from."""
    values = msgspec.to_builtins(found.settings)
    if is_json:
        print_json({k: {"value": values[k], "origin": found.origins[k]} for k in layers.keys})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("setting", "value", "from"):
        table.add_column(title, overflow="fold")
    for key in layers.keys:
        value = values[key]
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        if layers.is_table(key):
            shown = f"{len(value)} tables"
        table.add_row(Text(key), Text(shown), Text(found.origins[key]))
    Console().print(table)


def print_json(value: Any) -> None:
    """Write a value as indented JSON."""
    click.echo(json.dumps(value, indent=2))


def run_command_line(
    commands: click.Command, arguments: Sequence[str] | None, *, program: str
) -> int:
    """Run a command line and return the exit code; what went wrong is written to stderr."""
    try:
        code = commands.main(arguments, prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        sys.stderr.write("stopped by the user\n")
        return ExitCode.FAILED
    except (ExplainedError, SetupError) as error:
        sys.stderr.write(f"{error}\n")
        return ExitCode.REFUSED
    except OSError as error:
        where = f"\n  where: {error.filename}" if error.filename else ""
        sys.stderr.write(
            f"the system refused a file or a socket{where}\n  why: {error.strerror or error}\n"
            "  what to do: give this user access to it, or free disk space; then try again\n"
            "  code: process.system\n"
        )
        return ExitCode.FAILED
    return code if isinstance(code, int) else ExitCode.OK
