"""A picture of a run: throughput by workload, and what each stage costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.table import label

SUFFIXES = (".png", ".svg", ".pdf")


class PlotUnavailable(Exception):
    """There is nothing to draw with; the message says what to install."""


def require_matplotlib() -> None:
    """Raise PlotUnavailable unless matplotlib can be imported: better before a run than after."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise PlotUnavailable(
            "--plot needs matplotlib; install it with: pip install -e '.[bench]'"
        ) from error


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw rows as `table.row` makes them; the suffix of `path` (SUFFIXES) says the format."""
    from matplotlib.figure import Figure  # an extra: only whoever plots has it

    workloads = list(dict.fromkeys(item["workload"] for item in rows))
    arms = list(dict.fromkeys(label(item) for item in rows))
    cells = {(item["workload"], label(item)): item for item in rows}
    figure = Figure(figsize=(4 + 2.2 * len(workloads), 9), layout="constrained")
    above, below = figure.subplots(2, 1)
    width = 0.8 / len(arms)
    for index, arm in enumerate(arms):
        at = [place + (index - (len(arms) - 1) / 2) * width for place in range(len(workloads))]
        rates = [cells[name, arm]["tx_per_s"] for name in workloads]
        medians = [rate["median"] for rate in rates]
        spread = [
            [rate["median"] - rate["min"] for rate in rates],
            [rate["max"] - rate["median"] for rate in rates],
        ]
        above.bar(at, medians, width, yerr=spread, capsize=3, label=arm)
    above.set_xticks(range(len(workloads)), workloads)
    above.set_ylabel("transactions per second (bar: median, line: min to max)")
    above.set_title(_title(rows))
    above.legend()
    names = [f"{name}\n{arm}" for name in workloads for arm in arms]
    bottom = [0.0] * len(names)
    for stage in rows[0]["stage_ns_per_tx"]:
        heights = [cells[name, arm]["stage_ns_per_tx"][stage] for name in workloads for arm in arms]
        below.bar(range(len(names)), heights, bottom=bottom, label=stage)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    below.set_xticks(range(len(names)), names, fontsize=7)
    below.set_ylabel("ns per transaction")
    below.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)


def _title(rows: Sequence[dict[str, Any]]) -> str:
    machine = rows[0]["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, commit {machine['commit']}\n"
        f"signatures {rows[0]['signatures']}"
    )
