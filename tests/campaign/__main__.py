"""`python -m tests.campaign kills|fuzz`: exit code 1 if anything did not hold."""

import json
import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bench.machine import describe
from tests.campaign import fuzz, fuzz_links, fuzz_open, fuzz_socket
from tests.campaign import network as kills_network
from tests.campaign.kills import Campaign, Tally

JSON = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
KILLS_SETTINGS = ("--snapshot-every", "25", "--keep-blocks", "200")


@click.group()
def commands() -> None:
    """Long tries against a real executor, or a network of validators."""


@commands.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), required=True)
@click.option(
    "--seed", type=int, default=None, help="of what is done; the instants are the clock's"
)
@click.option("--json", "json_path", type=JSON, default=None)
@click.option("--folder", type=FOLDER, default=None, help="on the disk to be tried; temporary")
@click.option("--network", "is_network", is_flag=True, help="of four validators, not one executor")
@click.option("--base-port", type=click.IntRange(1_024, 60_000), default=21_000, show_default=True)
def kills(
    minutes: float,
    seed: int | None,
    json_path: Path | None,
    folder: Path | None,
    is_network: bool,
    base_port: int,
) -> None:
    """Kill processes under load at random instants, and check what they kept after each."""
    drawn = random.SystemRandom().getrandbits(32) if seed is None else seed
    base = Path(tempfile.mkdtemp(prefix="kills-", dir=folder))
    described = describe(base)
    start_s = time.monotonic()
    tally: kills_network.Tally | Tally
    if is_network:
        place = base / "network"
        campaign = kills_network.NetworkCampaign(place, drawn, base_port=base_port, minutes=minutes)
        tally = campaign.run()
    else:
        tally = Campaign(base, drawn, KILLS_SETTINGS).run(minutes=minutes)
    result = asdict(tally) | {
        "seed": drawn,
        "minutes": round((time.monotonic() - start_s) / 60, 1),
        "machine": described,
    }
    report(result, json_path)
    finish(tally.violations, base)


@commands.command("fuzz")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), required=True)
@click.option("--seed", type=int, default=None)
@click.option("--messages", type=click.IntRange(0), default=100_000, help="through the socket")
@click.option("--requests", type=click.IntRange(0), default=10_000, help="over HTTP")
@click.option("--processes", type=click.IntRange(1, 64), default=2, help="that decode")
@click.option("--json", "json_path", type=JSON, default=None)
def fuzz_command(
    minutes: float,
    seed: int | None,
    messages: int,
    requests: int,
    processes: int,
    json_path: Path | None,
) -> None:
    """Feed foreign bytes to every decoder, to all sockets of a real executor, and to a mesh."""
    drawn = random.SystemRandom().getrandbits(32) if seed is None else seed
    base = Path(tempfile.mkdtemp(prefix="fuzz-"))
    described = describe(base)
    start_s = time.monotonic()
    sockets = fuzz_socket.run(_folder(base, "socket"), drawn, messages)
    opened = fuzz_open.run(_folder(base, "open"), drawn, requests)
    left_s = max(2.0, 60 * minutes - (time.monotonic() - start_s))
    links = fuzz_links.run(drawn, seconds=left_s / 2)
    decoders = fuzz.run_processes(drawn, seconds=left_s / 2, processes=processes)
    violations = [
        *sockets.violations,
        *opened.violations,
        *links.violations,
        *decoders.violations,
    ]
    result = {
        "decoders": asdict(decoders),
        "socket": asdict(sockets),
        "open": asdict(opened),
        "links": asdict(links),
        "seed": drawn,
        "minutes": round((time.monotonic() - start_s) / 60, 1),
        "machine": described,
    }
    report(result, json_path)
    finish(violations, base)


def _folder(base: Path, name: str) -> Path:
    path = base / name
    path.mkdir()
    return path


def report(result: dict[str, Any], path: Path | None) -> None:
    """Print the result, and keep it where a path was given."""
    text = json.dumps(result, indent=2)
    click.echo(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def finish(violations: list[str], base: Path) -> None:
    """End with 1 and keep everything where something did not hold."""
    if violations:
        click.echo(f"{len(violations)} violations; homes and logs are in {base}", err=True)
        sys.exit(1)
    click.echo(f"nothing was violated; homes and logs are in {base}", err=True)


if __name__ == "__main__":
    commands(prog_name="python -m tests.campaign")
