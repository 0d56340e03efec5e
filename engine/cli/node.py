"""Commands about a running node: run it, show its settings, look at its machine."""

import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from engine.cli.options import home_option, read_config, settings_options
from engine.config import LAYERS
from runtime.command_line import ExitCode, config_group, json_option, print_json
from runtime.logs import LogStream, open_log

config = config_group(LAYERS, home_option, read_config)
_COLOURS = {"ok": "green", "note": "yellow", "fail": "bold red"}


@click.command()
@home_option
@settings_options
def run(home: Path, file: Path | None, **flags: str | int | None) -> int:
    """Run the executor of a home until SIGTERM or SIGINT.

    One line per block is written to stderr. Exit codes: 0 stopped by a signal, 1 the store or the
    device failed, 2 it cannot start, 3 there is no such device.
    """
    # Imported here: the other commands do not wait for kernels.
    from engine.node import Node

    config = read_config(home, file, flags)
    stream = LogStream(sys.stderr)
    log = open_log(config.settings.log_level, config.settings.log_format, stream)
    return ExitCode.OK if Node(home, config, log, stream).run() else ExitCode.FAILED


@click.command()
@home_option
@settings_options
@json_option
def doctor(home: Path, file: Path | None, is_json: bool, **flags: str | int | None) -> int:
    """Check the machine: versions, processor, signatures, device, clock, disk, sockets.

    DIR need not exist yet. Exit code 1 if a check fails.
    """
    from engine.doctor import Level, examine  # kernels: only here

    settings = read_config(home, file, flags).settings
    checks = []
    console = Console()
    for check in examine(home, settings):
        checks.append(check)
        if not is_json:
            print_check(console, check.level, check.name, check.value, check.what_to_do)
    if is_json:
        print_json({"checks": [asdict(check) for check in checks]})
    is_well = all(check.level != Level.FAIL for check in checks)
    return ExitCode.OK if is_well else ExitCode.FAILED


def print_check(console: Console, level: str, name: str, value: str, what_to_do: str) -> None:
    """Write one check, and under it what to do."""
    line = Text(f"{level:5}", style=_COLOURS[level])
    console.print(line.append(f"{name:12}{value}", style="default"), soft_wrap=True)
    if what_to_do:
        console.print(Text(f"{'':17}{what_to_do}"), soft_wrap=True)
