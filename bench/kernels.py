"""What single kernels cost on one core, beside what each has to reach.

    python bench/kernels.py [--accounts 1000000,10000000] [--transactions 100000] [--repeat 9]
                            [--seed S] [--json FILE]

Uniform senders and recipients. Kernels run over a block's columns in memory, again and again, so
that a figure says what the kernel costs and not what reading the block for the first time does:
`bench/lanes.py` shows that, stage by stage. Exit status: 1 when a median misses its bound.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.arms import block_context
from bench.blocks import build
from bench.workloads import synthetic
from engine.codec import decode_payload
from engine.state import State
from kernels.backend import Backend, open_backend
from kernels.blake3 import BLOCK_BYTES, CHUNK_BYTES
from kernels.layout import Rules

MILLION = 1_000_000
BOUNDS_NS = {
    "lookup": {MILLION: 30, 10 * MILLION: 30},
    "execution": {MILLION: 15, 10 * MILLION: 15},
    "compression": {0: 7},
    "transaction hash": {0: 30},
    "state hash": {MILLION: 130, 10 * MILLION: 350},
}
"""Most nanoseconds per item, by kernel and accounts (0: it has none)."""


CACHED_CHUNKS = 512
"""Chunks of 1,024 bytes that stay in a core's second-level cache."""


class Measured(NamedTuple):
    """One kernel's cost over the repeats, in nanoseconds per item."""

    kernel: str
    item: str
    accounts: int
    ns: list[float]


def time_per_item(run: Callable[[], object], count: int, repeat: int) -> list[float]:
    """Return nanoseconds per item of each of `repeat` runs, after one that warms up."""
    run()
    figures = []
    for _ in range(repeat):
        start = time.perf_counter_ns()
        run()
        figures.append((time.perf_counter_ns() - start) / count)
    return figures


def hashes(backend: Backend, count: int, repeat: int, seed: int) -> Iterator[Measured]:
    """Measure compression, within chunks that stay in the cache, and the hash of transactions."""
    messages = np.random.default_rng(seed).integers(0, 256, (CACHED_CHUNKS, CHUNK_BYTES), np.uint8)
    rounds = max(1, count * BLOCK_BYTES // messages.nbytes)

    def compress() -> None:
        for _ in range(rounds):
            backend.hash_messages(messages)

    ns = time_per_item(compress, rounds * messages.nbytes // BLOCK_BYTES, repeat)
    yield Measured("compression", "64-byte block", 0, ns)
    workload = build(
        synthetic("uniform", accounts=1000, per_block=count, blocks=1, seed=seed),
        seed=seed, is_signed=False,
    )  # fmt: skip
    limits = block_context(workload, 1).limits
    columns = decode_payload(workload.payloads[0], limits).columns
    ns = time_per_item(lambda: backend.hash_transactions(columns), count, repeat)
    yield Measured("transaction hash", "transaction", 0, ns)


def state_kernels(
    backend: Backend, accounts: int, count: int, repeat: int, seed: int
) -> Iterator[Measured]:
    """Measure lookup, execution and the state hash over a state of `accounts`."""
    payments = synthetic("uniform", accounts=accounts, per_block=count, blocks=1, seed=seed)
    workload = build(payments, seed=seed, is_signed=False)
    context = block_context(workload, 1)
    batch = decode_payload(workload.payloads[0], context.limits)
    capacity = accounts + payments.created + 1
    state = State(workload.keys, workload.balances, None, backend=backend, capacity=capacity)
    resident = state.accounts
    columns, offsets = batch.columns, batch.lane_offsets
    rules = Rules(context.chain_id, context.height, *context.rules)
    parties = resident.find_parties(columns, offsets)
    keys = len(offsets) - 1 + count
    ns = time_per_item(lambda: resident.find_parties(columns, offsets), keys, repeat)
    yield Measured("lookup", "key", accounts, ns)
    ns = time_per_item(lambda: resident.walk(columns, offsets, *parties, rules), count, repeat)
    yield Measured("execution", "transaction", accounts, ns)
    walk = resident.walk(columns, offsets, *parties, rules)
    changes = resident.settle(columns, offsets, *parties, walk, workload.fee_recipient, rules)
    assert changes is not None, "there is room for the block's accounts"
    resident.update_tree(changes)
    slots, after = changes.slots, changes.count_after
    ns = time_per_item(lambda: resident.update_tree_slots(slots, after, after), count, repeat)
    yield Measured("state hash", "transaction", accounts, ns)


def row(measured: Measured, described: dict[str, Any]) -> dict[str, Any]:
    """Return a measurement as JSON values; `reached` is None where nothing has to be reached."""
    median = statistics.median(measured.ns)
    bound = BOUNDS_NS[measured.kernel].get(measured.accounts)
    return {
        "kernel": measured.kernel,
        "item": measured.item,
        "accounts": measured.accounts,
        "ns": {
            "median": round(median, 2),
            "min": round(min(measured.ns), 2),
            "max": round(max(measured.ns), 2),
        },
        "bound_ns": bound,
        "reached": None if bound is None else median <= bound,
        "machine": described,
    }


def print_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False)
    for name in ("kernel", "per"):
        table.add_column(name)
    for name in ("accounts", "ns", "min", "max", "at most"):
        table.add_column(name, justify="right")
    table.add_column("reached")
    verdicts = {True: "yes", False: "[bold red]NO[/bold red]", None: ""}
    for item in rows:
        ns = item["ns"]
        table.add_row(
            item["kernel"], item["item"], f"{item['accounts']:,}" if item["accounts"] else "",
            *(f"{ns[name]:.1f}" for name in ("median", "min", "max")),
            str(item["bound_ns"] or ""), verdicts[item["reached"]],
        )  # fmt: skip
    console.print(table)


def read_accounts(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    """Read a comma list of state sizes, 2 or more each."""
    try:
        counts = [int(item) for item in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of numbers") from error
    if not all(count >= 2 for count in counts):
        raise click.BadParameter("each must be 2 or more")
    return list(dict.fromkeys(counts))


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--accounts", callback=read_accounts, default=f"{MILLION},{10 * MILLION}", show_default=True,
    metavar="N,...", help="Sizes of the state.",
)  # fmt: skip
@click.option("--transactions", type=click.IntRange(64), default=100_000, show_default=True)
@click.option("--repeat", type=click.IntRange(1), default=9, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63), default=1, show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all rows.",
)  # fmt: skip
def main(
    accounts: list[int], transactions: int, repeat: int, seed: int, json_file: Path | None
) -> None:
    """Measure each kernel on one core; exits with 1 when a median misses its bound."""
    console = Console(width=None if Console().is_terminal else 100)
    described = machine.describe(Path())
    console.print(machine.describe_text(described), highlight=False)
    backend = open_backend("cpu", 1)
    measured = list(hashes(backend, transactions, repeat, seed))
    for count in accounts:
        click.echo(f"{count:,} accounts", err=True)
        measured += state_kernels(backend, count, transactions, repeat, seed)
    backend.close()
    rows = [row(item, described) for item in measured]
    print_rows(console, rows)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(0 if all(item["reached"] is not False for item in rows) else 1)


if __name__ == "__main__":
    main()
