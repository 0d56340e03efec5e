"""The commands of `python -m consensus`; without one, `run` is meant."""

from collections.abc import Sequence
from typing import Any

import click

from consensus.cli.network import init, network
from consensus.cli.node import config, evidence, follow, run, status, validators
from consensus.config import PROGRAM
from runtime.command_line import run_command_line


class _Commands(click.Group):
    """A group whose options, given without a command, are those of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` before arguments that name no command."""
        is_command = bool(args) and (args[0] in self.commands or not args[0].startswith("-"))
        is_help = bool(args) and args[0] in ("-h", "--help")
        return super().parse_args(ctx, args if is_command or is_help else ["run", *args])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def commands() -> None:
    """Run a validator: it orders blocks with others, and its executor executes them.

    A home is a folder with one node in it. `network new` makes those of a whole network, `init` one
    of an existing chain; `run`, which is meant where no command is given, starts it.
    """


_ALL: tuple[Any, ...] = (run, network, init, follow, status, validators, evidence, config)
for _command in _ALL:
    commands.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code; what went wrong is written to stderr."""
    return run_command_line(commands, arguments, program=PROGRAM)
