"""Block interval and finality in network delays: `python bench/consensus_sim.py --help`.

Runs the consensus core in the simulator of tests/sim, every message taking exactly one delay, and
prints how many delays pass from block to block and from a proposal to its finality at each node.
What costs real time (signatures, execution) is in other benchmarks; here time is virtual, so the
figures are the same on every machine.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.plot import SUFFIXES, PlotUnavailable, require_matplotlib
from tests.sim.scenario import Fault, Links
from tests.sim.scenarios import equal, quiet
from tests.sim.world import World

DELAY_MS = 100
"""of every message: one network delay"""
EXECUTE_MAX_MS = 200
TRANSFER_MAX_MS = 100
BLOCK_INTERVAL_MS = 400
IDLE_INTERVAL_MS = 500
HEIGHTS = 200
WIDTH = 132


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to measure."""

    name: str
    nodes: int = 4
    changes: dict[str, Any] = field(default_factory=dict)


def _down(*nodes: int) -> tuple[Fault, ...]:
    return (Fault(at_ms=0, for_ms=0, kind="down", nodes=nodes),)


def _executors(permille: int, nodes: int = 4) -> dict[str, Any]:
    return {"load": "loaded", "execute_permille": (permille,) * nodes}


CASES = (
    Case(name="unpaced, empty", changes={"block_interval_ms": 1, "idle_interval_ms": 1}),
    Case(name="idle"),
    Case(name="loaded, executor 0.3 E_max", changes=_executors(300)),
    Case(name="one of four crashed", changes={"faults": _down(1), "load": "loaded"}),
    Case(
        name="two of seven Byzantine", nodes=7,
        changes={"byzantine": (1, 4), "strategies": ("mixed", "equivocate"), "load": "loaded"},
    ),
    Case(name="loaded, executor 0.9 E_max", changes=_executors(900)),
    Case(name="loaded, executor 1.5 E_max", changes=_executors(1500)),
)  # fmt: skip


def measure(case: Case, heights: int) -> dict[str, Any]:
    """Run a case; answers its figures, in network delays, as JSON values."""
    links = Links(
        loss_permille=0, duplicate_permille=0, delay_max_ms=DELAY_MS, delay_min_ms=DELAY_MS,
        transfer_ms=TRANSFER_MAX_MS // 2,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "links": links, "healed_links": links, "heights_max": heights, "load": "idle",
        "execute_permille": (0,) * case.nodes, "delta_ms": DELAY_MS,
        "execute_max_ms": EXECUTE_MAX_MS, "transfer_max_ms": TRANSFER_MAX_MS,
        "block_interval_ms": BLOCK_INTERVAL_MS, "idle_interval_ms": IDLE_INTERVAL_MS,
        "expects_live": False,
    }  # fmt: skip
    world = World(quiet(case.nodes, (equal(range(case.nodes)),), **{**settings, **case.changes}))
    outcome = world.run()
    checks = world.checks
    firsts = [min(checks.final_ms[found]) for found in checks.final[1 : heights + 1]]
    intervals = [after - before for before, after in pairwise(firsts)]
    waits = [
        final_ms - checks.proposed_ms[found]
        for found in checks.final[1 : heights + 1]
        if found in checks.proposed_ms
        for final_ms in checks.final_ms[found]
    ]
    return {
        "case": case.name,
        "validators": case.nodes,
        "heights": outcome.height,
        "views": outcome.views,
        "block_interval": _spread(intervals),
        "finality": _spread(waits),
        "messages_per_view": round(outcome.messages / max(1, outcome.views), 1),
        "events": outcome.events,
    }


def _spread(values: Sequence[int]) -> dict[str, float]:
    """Return median, 99th percentile and maximum in delays."""
    cuts = sorted(value / DELAY_MS for value in values)
    return {
        "median": round(statistics.median(cuts), 2),
        "p99": round(cuts[min(len(cuts) - 1, len(cuts) * 99 // 100)], 2),
        "max": round(cuts[-1], 2),
    }


def print_rows(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print all cases, one a line."""
    table = Table(title=f"in network delays; heights {rows[0]['heights']} or more")
    table.add_column("case")
    for name in ("views", "interval", "p99", "finality", "p99", "max", "messages/view"):
        table.add_column(name, justify="right")
    for row in rows:
        interval, finality = row["block_interval"], row["finality"]
        table.add_row(
            row["case"], str(row["views"]), str(interval["median"]), str(interval["p99"]),
            str(finality["median"]), str(finality["p99"]), str(finality["max"]),
            str(row["messages_per_view"]),
        )  # fmt: skip
    console.print(table)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw interval and finality of every case; the suffix of `path` says the format."""
    from matplotlib.figure import Figure  # an extra: only whoever plots has it

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    for shift, name, label in (
        (-0.2, "block_interval", "block interval"),
        (0.2, "finality", "finality"),
    ):
        medians = [row[name]["median"] for row in rows]
        above = [row[name]["p99"] - row[name]["median"] for row in rows]
        axes.barh(
            [place + shift for place in places], medians, 0.4, label=label,
            xerr=[[0] * len(rows), above], capsize=3,
        )  # fmt: skip
    axes.set_yticks(places, [row["case"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("network delays (bar: median, line: to the 99th percentile)")
    axes.set_title(f"commit {rows[0]['machine']['commit']}")
    axes.legend()
    figure.savefig(path, dpi=150)


def read_output(_: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that could not be written in the end."""
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"{value.absolute().parent} is no folder; create it first")
    if value is not None and parameter.name == "plot_file" and value.suffix not in SUFFIXES:
        raise click.BadParameter(f"{value} must end in one of {', '.join(SUFFIXES)}")
    return value


@click.command(context_settings={"max_content_width": 100})
@click.option("--heights", type=click.IntRange(10), default=HEIGHTS, show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=read_output, help="Write all rows.",
)  # fmt: skip
@click.option(
    "--plot", "plot_file", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=read_output, help="Draw interval and finality (.png, .svg, .pdf).",
)  # fmt: skip
def main(heights: int, json_file: Path | None, plot_file: Path | None) -> None:
    """Measure every case and print block interval and finality in network delays."""
    try:
        if plot_file is not None:
            require_matplotlib()
    except PlotUnavailable as error:
        raise click.UsageError(str(error)) from error
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    described = machine.describe(Path())
    console.print(machine.describe_text(described), highlight=False)
    console.print(
        f"delay {DELAY_MS} ms = delta, E_max {EXECUTE_MAX_MS} ms, X_max {TRANSFER_MAX_MS} ms, "
        f"block interval {BLOCK_INTERVAL_MS} ms, idle {IDLE_INTERVAL_MS} ms",
        highlight=False,
    )
    rows = [{**measure(case, heights), "machine": described} for case in CASES]
    print_rows(console, rows)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")
    if plot_file is not None:
        plot(rows, plot_file)


if __name__ == "__main__":
    main()
