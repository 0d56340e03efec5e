"""The command line: `python -m tests.sim [SEED] [--seeds A:B] [--mutant NAME] ...`.

Exits with 0 when every check held, 1 at the first violation (with its seed and a shrunk trace), 2
for any other error.
"""

import json
import sys
import time
import traceback
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bench import machine
from tests.sim import campaign, exhaustive, mutants, scenarios
from tests.sim.scenario import draw
from tests.sim.shrink import shrink
from tests.sim.violation import Violation
from tests.sim.world import World

TRACE_LINES = 60
"""of a shrunk trace: the last ones before the violation"""
LINE_CHARACTERS = 4000
TELL_EVERY = 100
EXIT_VIOLATION = 1
EXIT_ERROR = 2
ALL = "all"
MUTANT_SEEDS = (0, 500)


def read_seeds(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read A:B."""
    if value is None:
        return None
    first, colon, end = value.partition(":")
    if not (colon and first.isdigit() and end.isdigit() and int(first) < int(end)):
        raise click.BadParameter(f"{value!r} is no range such as 0:500")
    return int(first), int(end)


def read_mutant(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse a mutant that does not exist."""
    if value is not None and value not in (*mutants.names(), ALL):
        raise click.BadParameter(f"{value!r} is none of {', '.join(mutants.names())}, {ALL}")
    return value


@click.command(context_settings={"max_content_width": 100})
@click.argument("seed", type=click.IntRange(0), required=False)
@click.option("--seeds", callback=read_seeds, metavar="A:B", help="Run A <= seed < B.")
@click.option("--mutant", callback=read_mutant, metavar="NAME", help="Plant a bug; all: try each.")
@click.option("--list-mutants", is_flag=True, help="Print the planted bugs, one per line.")
@click.option("--trace", is_flag=True, help="Print every event of the one seed.")
@click.option("--minutes", type=click.FloatRange(0), help="Stop after so long.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option(
    "--scenario", type=click.Choice(list(scenarios.NAMED)), help="Run a world written by hand."
)
@click.option(
    "--exhaustive", "is_exhaustive", is_flag=True, help="Every schedule of a small scope."
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write commit, seeds, events, duration.",
)  # fmt: skip
def main(
    seed: int | None,
    seeds: tuple[int, int] | None,
    mutant: str | None,
    list_mutants: bool,
    trace: bool,
    minutes: float | None,
    jobs: int,
    scenario: str | None,
    is_exhaustive: bool,
    json_file: Path | None,
) -> None:
    """Run the whole network of a seed, or of many, with every check on."""
    if list_mutants:
        click.echo("\n".join(mutants.names()))
        return
    if scenario is not None:
        _named(scenario, mutant, json_file)
        return
    if mutant == ALL:
        _every_mutant(seeds or MUTANT_SEEDS, jobs, json_file)
        return
    if is_exhaustive:
        _exhaustive(minutes or 1, mutant, json_file)
        return
    if seeds is None and minutes is None:
        _single(seed or 0, mutant, trace, json_file)
        return
    first, end = seeds or (seed or 0, campaign.SEEDS_MAX)
    commit = machine.commit()

    def tell(done: campaign.Campaign) -> None:
        if done.seeds % TELL_EVERY == 0:
            seconds = done.duration_s
            click.echo(f"seeds {done.seeds} events {done.events} {seconds:.0f} s", err=True)
            _write(json_file, {"commit": commit, "jobs": jobs, **done.rows()})

    done = campaign.run(first, end, mutant=mutant, minutes=minutes, jobs=jobs, tell=tell)
    rows = {"commit": commit, "jobs": jobs, **done.rows()}
    _write(json_file, rows)
    click.echo(
        f"seeds {done.seeds} events {done.events} duration {done.duration_s:.1f} s "
        f"events/s/core {rows['events_per_s_per_core']}"
    )
    if done.violation is not None:
        found = done.violation
        text, at_ms = found["text"], found["at_ms"]
        _report(Violation(found["invariant"], found["seed"], at_ms, text), mutant)


def _every_mutant(seeds: tuple[int, int], jobs: int, json_file: Path | None) -> None:
    """Say for each planted bug which promise it broke, and how many seeds that took."""
    rows = []
    for name in mutants.names():
        done = campaign.run(*seeds, mutant=name, jobs=jobs)
        rows.append({"commit": machine.commit(), **done.rows(), "is_caught": bool(done.violation)})
        found = done.violation or {"invariant": "none", "text": "survived"}
        click.echo(f"{name:30s} {found['invariant']:4s} seeds {done.seeds:3d}  {found['text']}")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")
    if not all(row["is_caught"] for row in rows):
        raise SystemExit(EXIT_VIOLATION)


def _single(seed: int, mutant: str | None, trace: bool, json_file: Path | None) -> None:
    try:
        outcome = World(draw(seed), mutant, log=_print_line if trace else None).run()
    except Violation as found:
        _report(found, mutant)
        return
    click.echo(f"trace {outcome.trace} events {outcome.events}")
    row = {"seed": seed, "mutant": mutant, "trace": outcome.trace, "events": outcome.events}
    _write(json_file, {"commit": machine.commit(), **row})


def _named(name: str, mutant: str | None, json_file: Path | None) -> None:
    """Run one world by hand and print what it cost."""
    begun_s = time.process_time()
    try:
        outcome = World(scenarios.NAMED[name](), mutant).run()
    except Violation as found:
        click.echo(f"{found}: {found.text}")
        raise SystemExit(EXIT_VIOLATION) from found
    processor_s = time.process_time() - begun_s
    row = {
        "commit": machine.commit(),
        "scenario": name,
        **asdict(outcome),
        "messages_per_view": round(outcome.messages / max(1, outcome.views), 1),
        "bytes_per_view": outcome.message_bytes // max(1, outcome.views),
        "processor_s": round(processor_s, 1),
        "events_per_s_per_core": int(outcome.events / processor_s),
    }
    for key, value in row.items():
        click.echo(f"{key} {value}")
    _write(json_file, row)


def _exhaustive(minutes: float, mutant: str | None, json_file: Path | None) -> None:
    try:
        done = exhaustive.run(minutes, mutant=mutant, tell=click.echo)
    except Violation as found:
        click.echo(f"{found}: {found.text}")
        raise SystemExit(EXIT_VIOLATION) from found
    _write(json_file, {"commit": machine.commit(), **done})


def _print_line(line: str) -> None:
    click.echo(line[:LINE_CHARACTERS])


def _report(found: Violation, mutant: str | None) -> None:
    """Say what broke, make the world smaller, print its last events, leave with 1."""
    click.echo(str(found))
    click.echo(f"{found.invariant} at {found.at_ms} ms: {found.text}")
    scenario, found = shrink(draw(found.seed), mutant, found)
    lines: deque[str] = deque(maxlen=TRACE_LINES)
    try:
        World(scenario, mutant, log=lines.append).run()
    except Violation:
        click.echo(f"shrunk: {scenario}")
        for line in lines:
            _print_line(line)
        click.echo(f"{found.invariant} at {found.at_ms} ms: {found.text}")
    raise SystemExit(EXIT_VIOLATION)


def _write(path: Path | None, rows: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n")


def command() -> None:
    """Run the command line; an error that is no violation exits with 2, not with Python's 1."""
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    command()
