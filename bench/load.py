"""Load for nodes over HTTP: `python bench/load.py --help`.

Transfers between the accounts of a development chain are signed ahead (and kept on disk), then sent
in batches at a rate. With `--open-loop` a batch is sent when it is due, whatever became of those
before it, and every latency counts from that moment: a node that stalls cannot make its own figures
better. Offered, accepted, included and finalized transactions are counted apart; the last two come
from the nonces of all senders at head and finalized, so nothing is counted twice. With `--insist`
what a node did not take or lost is sent again, as wallets do. Read `load_batches.py` for what is
sent, `load_run.py` for how, and `load_final.py` for how finality is timed.
"""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click

from bench import machine
from bench.load_batches import WORKLOADS, Plan, Traffic, prepare
from bench.load_run import Report, run
from engine.client import URL_DEFAULT, Client
from runtime.errors import ExplainedError


def as_json(
    report: Report, plan: Plan, options: dict[str, Any], described: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures of a run with what they were measured on."""
    return {
        "options": options,
        "plan": {"batch": plan.batch, "batches": plan.batches, "transactions": plan.count},
        "counts": report.counts,
        "refused": report.refused,
        "tx_per_s": {
            "offered": report.counts["offered"] * 1_000 // max(1, report.elapsed_ms),
            "accepted": report.counts["accepted"] * 1_000 // max(1, report.elapsed_ms),
            "finalized": report.counts["finalized"] * 1_000 // max(1, report.final_ms),
        },
        "elapsed_ms": report.elapsed_ms,
        "final_ms": report.final_ms,
        "latency_us": report.latency_us,
        "late_us_max": report.late_us_max,
        "machine": described,
    }


def plot(report: Report, path: Path) -> None:
    """Draw both latencies by percentile."""
    from matplotlib.figure import Figure  # an extra: only whoever plots has it

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, figures in report.latency_us.items():
        texts = list(figures)
        axes.plot(texts, [figures[text] / 1_000 for text in texts], marker="o", label=name)
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds from the intended send time")
    axes.legend()
    figure.savefig(path)


def show(values: dict[str, Any]) -> None:
    """Print a run for a person."""
    counts, rates = values["counts"], values["tx_per_s"]
    for name in ("offered", "accepted", "included", "finalized"):
        rate = f"  {rates[name]:>9,} tx/s" if name in rates else ""
        click.echo(f"{name:10} {counts[name]:>12,}{rate}")
    for reason, count in values["refused"].items():
        click.echo(f"  refused  {count:>12,}  {reason}")
    for name, figures in values["latency_us"].items():
        line = "  ".join(f"{text} {us / 1_000:,.1f}" for text, us in figures.items())
        click.echo(f"ms to {name:10} {line}")


def tell_person(values: Mapping[str, Any]) -> None:
    """Say on stderr what happens."""
    if values["event"] == "progress":
        second = values["s"]
        click.echo(
            f"{second} s: offered {values['offered']:,}, accepted {values['accepted']:,} "
            f"({values['accepted'] // second:,}/s), {values['left_s']} s left",
            err=True,
        )
    elif values["event"] == "stuck":
        click.echo(f"{values['what']}: giving up", err=True)


def tell_line(values: Mapping[str, Any]) -> None:
    """Write what happens as one line of JSON."""
    click.echo(json.dumps(values))


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--rate", type=click.IntRange(1, 10**7), required=True, help="transactions per second"
)
@click.option("--duration", type=click.IntRange(1, 86_400), required=True, help="in seconds")
@click.option("--open-loop", is_flag=True, help="send when due, however slow the answers are")
@click.option("--insist", is_flag=True, help="send again what was not taken, or got lost")
@click.option(
    "--in-flight", type=click.IntRange(0), default=0, help="that may not be final yet; closed loop"
)
@click.option("--live", is_flag=True, help="print what happens as lines of JSON; keep no transfers")
@click.option("--accounts", type=click.IntRange(2, 10_000), default=10, show_default=True)
@click.option("--workload", type=click.Choice(WORKLOADS), default=WORKLOADS[0], show_default=True)
@click.option("--batch", type=click.IntRange(1, 32_768), default=1_000, show_default=True)
@click.option("--url", "urls", multiple=True, default=(URL_DEFAULT,), show_default=True)
@click.option(
    "--connections", type=click.IntRange(1, 64), default=4, show_default=True, help="per url"
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path))
def main(
    rate: int,
    duration: int,
    open_loop: bool,
    insist: bool,
    in_flight: int,
    live: bool,
    accounts: int,
    workload: str,
    batch: int,
    urls: tuple[str, ...],
    connections: int,
    seed: int,
    json_path: Path | None,
    plot_path: Path | None,
) -> None:
    """Send transfers between the accounts of `python -m engine dev --accounts N` to nodes.

    --url may be given several times; batches go over all connections in turn, those of one sender
    over one, so that its nonces come in order.
    """
    options = {
        "rate": rate,
        "duration_s": duration,
        "open_loop": open_loop,
        "insist": insist,
        "in_flight": in_flight,
        "accounts": accounts,
        "workload": workload,
        "nodes": len(urls),
        "connections": connections,
        "seed": seed,
    }
    if in_flight and (open_loop or not insist):
        raise click.UsageError("--in-flight needs --insist, and no --open-loop")
    described = machine.describe(Path.cwd())
    try:
        with Client(urls[0]) as client:
            traffic = Traffic(
                count=rate * duration, batch=batch, accounts=accounts, workload=workload,
                seed=seed, connections=len(urls) * connections,
            )  # fmt: skip
            say = partial(click.echo, err=True)
            plan = prepare(client, traffic, say, keeps=not live)
        report = run(
            plan, [url for url in urls for _ in range(connections)], rate=rate, is_open=open_loop,
            insists=insist, in_flight=in_flight, tell=tell_line if live else tell_person,
        )  # fmt: skip
    except ExplainedError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
    values = as_json(report, plan, options, described)
    if live:
        tell_line({"event": "report", "report": values})
    else:
        show(values)
    if json_path is not None:
        json_path.write_text(json.dumps(values, indent=2) + "\n")
    if plot_path is not None:
        plot(report, plot_path)


if __name__ == "__main__":
    main()
