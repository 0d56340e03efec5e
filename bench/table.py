"""Runs as tables for people and as rows of JSON for programs (`report` compares those)."""

import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.arms import STAGES, ArmRun
from bench.blocks import Workload

HASH_CHARACTERS = 12


def row(
    run: ArmRun, workload: Workload, *, is_match: bool, signatures: str, machine: dict[str, Any]
) -> dict[str, Any]:
    """Return one measurement as JSON values; the fields of `tx_per_s` are over repeats."""
    payments = workload.payments
    count = payments.per_block * payments.block_count
    rates = [count * 1e9 / ns for ns in run.pass_ns]
    stages = {
        name: round(statistics.median(item[name] for item in run.stage_ns) / count, 2)
        for name in STAGES
    }
    unnamed = statistics.median(
        ns - sum(item.values()) for ns, item in zip(run.pass_ns, run.stage_ns, strict=True)
    )
    return {
        "workload": payments.name,
        "trace": payments.origin,
        "arm": run.arm.backend,
        "threads": run.arm.threads,
        "accounts": payments.accounts,
        "transactions": payments.per_block,
        "blocks": payments.block_count,
        "repeats": len(rates),
        "signatures": signatures,
        "tx_per_s": {
            "median": round(statistics.median(rates), 1),
            "min": round(min(rates), 1),
            "max": round(max(rates), 1),
        },
        "stage_ns_per_tx": stages,
        "between_stages_ns_per_tx": round(unnamed / count, 2),
        "state_hash": run.blocks[-1].state_hash.hex(),
        "receipts_hash": run.blocks[-1].receipts_hash.hex(),
        "match": is_match,
        "lanes_per_block": sum(workload.lane_counts) // len(workload.lane_counts),
        "payload_bytes_per_block": sum(map(len, workload.payloads)) // len(workload.payloads),
        "commit_bytes_per_block": run.commit_bytes_per_block,
        "resident_bytes_per_account": run.resident_bytes_per_account,
        "peak_memory_bytes": run.peak_memory_bytes,
        "machine": machine,
    } | ({} if run.device is None else {"device": run.device})


def label(item: dict[str, Any]) -> str:
    """Return how a row's arm is called: only the `cpu` arm has a choice of threads."""
    return f"cpu x{item['threads']}" if item["arm"] == "cpu" else str(item["arm"])


def print_rows(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of one workload; the first is the serial arm, which others are divided by."""
    first = rows[0]
    source = {"file": "replayed trace", "twin": "twin of a trace", "none": "synthetic"}
    console.print(
        f"\n[bold]{first['workload']}[/bold] ({source[first['trace']]}): "
        f"{first['accounts']:,} accounts, {first['blocks']} blocks of {first['transactions']:,} "
        f"transactions in {first['lanes_per_block']:,} lanes, signatures {first['signatures']}, "
        f"{first['repeats']} repeats"
    )
    console.print(_throughput(rows))
    console.print(_stages(rows))
    console.print(
        f"{first['resident_bytes_per_account']:.0f} resident bytes per account, "
        f"{first['payload_bytes_per_block']:,} payload bytes and "
        f"{first['commit_bytes_per_block']:,} committed bytes per block"
    )


def _throughput(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("arm")
    for name in ("tx/s", "min", "max", "spread", "to serial", "peak MiB"):
        table.add_column(name, justify="right")
    for name in ("state_hash", "match"):
        table.add_column(name)
    serial = rows[0]["tx_per_s"]["median"]
    for item in rows:
        rate = item["tx_per_s"]
        table.add_row(
            label(item),
            *(f"{rate[name]:,.0f}" for name in ("median", "min", "max")),
            f"{100 * (rate['max'] - rate['min']) / rate['median']:.0f} %",
            f"{rate['median'] / serial:.2f}x",
            f"{item['peak_memory_bytes'] / 2**20:,.0f}",
            item["state_hash"][:HASH_CHARACTERS],
            "yes" if item["match"] else "[bold red]NO[/bold red]",
        )
    return table


def _stages(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("ns/tx")
    for name in (*STAGES, "between", "total"):
        table.add_column(name, justify="right")
    for item in rows:
        stages = [item["stage_ns_per_tx"][name] for name in STAGES]
        stages.append(item["between_stages_ns_per_tx"])
        table.add_row(label(item), *(f"{value:,.1f}" for value in stages), f"{sum(stages):,.1f}")
    return table
