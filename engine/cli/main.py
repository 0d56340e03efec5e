"""The commands of `python -m engine`, and how their failures become words and exit codes."""

import importlib
import sys
from collections.abc import Sequence

import click

from kernels.backend import DeviceUnavailable
from runtime.command_line import ExitCode, run_command_line

PROGRAM = "python -m engine"

MODULES = {
    "dev": ("dev",),
    "genesis": ("genesis",),
    "gossip": ("gossip",),
    "home": ("init", "snapshot", "export"),
    "node": ("run", "config", "doctor"),
    "wallet": ("key", "send", "balance", "account", "transaction", "block"),
}
"""Commands by the module of this package that has them."""


class _Commands(click.Group):
    """Imports a command when it is named: a wallet does not wait for kernels."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted(name for names in MODULES.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None where none has the name."""
        for module, names in MODULES.items():
            if cmd_name in names:
                found = getattr(importlib.import_module(f"engine.cli.{module}"), cmd_name)
                assert isinstance(found, click.Command), cmd_name
                return found
        return None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def commands() -> None:
    """Run and look after an executor: it executes blocks, keeps accounts, answers consensus.

    A home is a folder with one chain in it. Make it with `init`, start it with `run`. `dev` runs a
    chain for development. `key`, `send`, `balance` and the like are a wallet: they ask a node.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code; what went wrong is written to stderr."""
    try:
        return run_command_line(commands, arguments, program=PROGRAM)
    except DeviceUnavailable as error:
        sys.stderr.write(
            f"the device cannot be used\n  why: {error}\n"
            "  what to do: start with --device cpu or --device auto; `python -m engine doctor` "
            "shows what this machine has\n  code: process.device\n"
        )
        return ExitCode.NO_DEVICE
