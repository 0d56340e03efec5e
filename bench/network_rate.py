"""How much a network of validators finalizes, and how soon: `python bench/network_rate.py --help`.

Two runs of `devnet.py`'s network on this machine. The first finds the rate: a closed loop offers
more than is finalized, whoever is not taken tries again, and what became final per second of the
window is the figure. The second offers 80 % of it in an open loop and times finality from the
intended send. Beside both stands what bounds them: how many cores each kind of process took.
"""

import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
from rich.console import Console
from rich.table import Table

from bench.network.homes import BASE_PORT
from bench.network.report import report
from bench.network.run import Options, Run, run
from bench.network.table import Screen, show_report
from runtime.errors import ExplainedError

FOLDER_DEFAULT = Path("build/network_rate")
WIDTH = 132
SHARE_PERCENT = 80
"""of the highest rate, at which finality is timed"""
STEADY_PERCENT = 25
"""of the window, its beginning, that the highest rate leaves out: pools are still being filled"""
ROLES = ("consensus", "executor", "load", "machine")
"""whose processor time the table shows, of all validators together"""
NS_PER_MS = 1_000_000


def steady_rate(found: Run) -> int:
    """Return transactions per second that became final in the window without its beginning."""
    blocks = found.cluster.watch.blocks()
    length_ns = found.stop_ns - found.start_ns
    since_ns = found.start_ns + length_ns * STEADY_PERCENT // 100
    inside = [block for block in blocks if since_ns <= block.seen_ns <= found.stop_ns]
    if len(inside) < 2:
        return 0
    # From one finality to another, so that no part of a block counts.
    span_ms = (inside[-1].seen_ns - inside[0].seen_ns) // NS_PER_MS
    return sum(block.transaction_count for block in inside[1:]) * 1_000 // max(1, span_ms)


def measure(options: Options, console: Console) -> tuple[dict[str, Any], int]:
    """Run once; return the report, and the steady rate."""
    with Screen(console) as screen:
        found = run(options, screen)
    values = report(options, found, None)
    show_report(console, values)
    return values, steady_rate(found)


def side_by_side(rows: list[dict[str, Any]]) -> Table:
    """Return both runs as a table."""
    table = Table(box=None, pad_edge=False)
    for name in ("run", "offered tx/s", "final tx/s", "p50 ms", "p90 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for name in ("consensus", "executors", "load", "all"):
        table.add_column(f"{name}, cores", justify="right")
    for row in rows:
        latency = row["finality_ms"]
        table.add_row(
            row["run"],
            f"{row['tx_per_s']['offered']:,}",
            f"{row['rate']:,}",
            *(f"{latency.get(name, 0):,}" for name in ("p50", "p90", "p99")),
            *(f"{row['cpu_percent'][name] / 100:.2f}" for name in ROLES),
        )
    return table


@click.command(context_settings={"max_content_width": 100})
@click.option("--validators", type=click.IntRange(1, 32), default=4, show_default=True)
@click.option(
    "--duration",
    type=click.IntRange(5, 3_600),
    default=30,
    show_default=True,
    help="of each window, in seconds",
)
@click.option(
    "--rate",
    type=click.IntRange(100, 10**6),
    default=80_000,
    show_default=True,
    help="that the closed loop tries to offer; above what the network can do",
)
@click.option("--accounts", type=click.IntRange(2, 10_000), default=4_000, show_default=True)
@click.option("--batch", type=click.IntRange(1, 32_768), default=4_000, show_default=True)
@click.option(
    "--connections", type=click.IntRange(1, 64), default=2, show_default=True, help="per validator"
)
@click.option(
    "--in-flight", type=click.IntRange(1), default=200_000, show_default=True,
    help="of the closed loop: transfers that may not be final yet",
)  # fmt: skip
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER_DEFAULT,
    show_default=True,
)
@click.option(
    "--base-port", type=click.IntRange(1_024, 60_000), default=BASE_PORT, show_default=True
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
def main(
    validators: int,
    duration: int,
    rate: int,
    accounts: int,
    batch: int,
    connections: int,
    in_flight: int,
    home: Path,
    base_port: int,
    seed: int,
    json_path: Path | None,
) -> None:
    """Find the highest rate that validators on this machine finalize, then time 80 % of it."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    rows = []
    wanted, is_open = rate, False
    try:
        for name in ("highest", f"{SHARE_PERCENT} %"):
            options = Options(
                folder=home.absolute(),
                validators=validators,
                duration_s=duration,
                rate=wanted,
                accounts=accounts,
                batch=min(batch, max(1, wanted // 10)),
                base_port=base_port,
                seed=seed,
                is_open=is_open,
                connections=connections,
                in_flight=0 if is_open else in_flight,
                follows=False,
            )
            console.rule(name)
            values, steady = measure(options, console)
            rows.append(values | {"run": name, "rate": steady})
            wanted, is_open = max(1, steady * SHARE_PERCENT // 100), True
    except ExplainedError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
    console.print(side_by_side(rows))
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(rows, indent=2) + "\n")
    raise SystemExit(1 if any(row["violations"] for row in rows) else 0)


if __name__ == "__main__":
    main()
