"""The commands of `python -m engine`, and how their failures become words and exit codes."""

import sys
from collections.abc import Sequence

import click

from engine.cli.dev import dev
from engine.cli.genesis import genesis
from engine.cli.gossip import gossip
from engine.cli.home import export, init, snapshot
from engine.cli.node import config, doctor, run
from engine.cli.wallet import account, balance, block, key, send, transaction
from kernels.backend import DeviceUnavailable
from runtime.command_line import ExitCode, run_command_line

PROGRAM = "python -m engine"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def commands() -> None:
    """Run and look after an executor: it executes blocks, keeps accounts, answers consensus.

    A home is a folder with one chain in it. Make it with `init`, start it with `run`. `dev` runs a
    chain for development. `key`, `send`, `balance` and the like are a wallet: they ask a node.
    """


WALLET = (key, send, balance, account, transaction, block)
for _command in (init, run, dev, genesis, config, doctor, snapshot, export, gossip, *WALLET):
    commands.add_command(_command)


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
