"""Payload bytes to durable, finalized blocks through the Unix socket: `end_to_end.py --help`.

An executor runs in a process of its own, on a home on a real disk. This process is consensus: it
sends each block by NewPayload, the next one while one is executed, and finalizes each by
ForkchoiceUpdated as soon as it is VALID. What the disk itself can do is measured in the same run,
before and after, by appending as many bytes with fdatasync. Results of blocks are computed ahead.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.end_to_end_blocks import ChainBlocks, make_chain
from engine.store.store import Store
from engine_api.client import EngineApiClient
from engine_api.protocol import Deadline
from engine_api.transport import UNIX
from engine_api.types import ForkchoiceStatus, NewPayloadAnswer, Verdict

IN_FLIGHT = 2
"""Blocks that are under way at once: one executes, one is received."""
UNFINALIZED_MAX = 4
"""Blocks that may be sent and not final."""
RESENDS_MAX = 3
TIMEOUT_MS = 20_000
WINDOW = 5
"""Blocks of one figure of tx_per_s."""
CEILING_APPENDS = 12
"""Payloads' worth of bytes that the disk's own speed is measured with, before and after."""
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was measured."""

    done_ns: list[int]
    """since the first call: when each block was finalized"""
    client_cpu_ns: int
    """of this process, threads together"""
    executor: dict[str, Any]
    """what the executor's process said"""


def disk_ceiling(folder: Path, record_bytes: int) -> list[float]:
    """Return bytes per second of each append with fdatasync of so many bytes."""
    data = np.random.default_rng(1).integers(0, 256, record_bytes, np.uint8).tobytes()
    rates = []
    path = folder / "ceiling"
    with path.open("wb", buffering=0) as file:
        for _ in range(CEILING_APPENDS):
            start = time.perf_counter_ns()
            file.write(data)
            os.fdatasync(file.fileno())
            rates.append(record_bytes * NS_PER_S / (time.perf_counter_ns() - start))
    path.unlink()
    return rates


def new_payload(client: EngineApiClient, blocks: ChainBlocks, index: int) -> NewPayloadAnswer:
    """Send one block."""
    deadline = Deadline.after_ms(TIMEOUT_MS)
    return client.new_payload(blocks.headers[index], blocks.payloads[index], deadline)


def drive(client: EngineApiClient, blocks: ChainBlocks) -> list[int]:
    """Send and finalize all blocks; return when each was final, in ns since the first call."""
    done_ns = [0] * len(blocks.headers)
    start = time.perf_counter_ns()
    valid = threading.Semaphore(IN_FLIGHT)
    final = threading.Semaphore(UNFINALIZED_MAX)

    def send(index: int) -> None:
        answer = new_payload(client, blocks, index)
        # Two streams may end in the wrong order: the child of a block that is still on its way.
        for _ in range(RESENDS_MAX):
            if answer.verdict is not Verdict.SYNCING:
                break
            answer = new_payload(client, blocks, index)
        valid.release()
        if answer.verdict is not Verdict.VALID:
            raise RuntimeError(f"block {index + 1}: {answer}")

    def finalize(index: int, sent: "Future[None]") -> None:
        sent.result()
        name = blocks.hashes[index]
        status = client.forkchoice_updated(name, name, name, Deadline.after_ms(TIMEOUT_MS)).status
        if status is not ForkchoiceStatus.OK:
            raise RuntimeError(f"block {index + 1} could not be finalized")
        done_ns[index] = time.perf_counter_ns() - start
        final.release()

    with ThreadPoolExecutor(IN_FLIGHT) as senders, ThreadPoolExecutor(1) as finalizer:
        last = []
        for index in range(len(blocks.headers)):
            final.acquire()
            valid.acquire()
            sent = senders.submit(send, index)
            last.append(finalizer.submit(finalize, index, sent))
        for item in last:
            item.result()
    return done_ns


def run(
    blocks: ChainBlocks, folder: Path, *, threads: int | None, is_known: bool, is_indexed: bool
) -> Run:
    """Start an executor on a fresh home, drive it, and let it end."""
    home = folder / "home"
    Store.create(home, blocks.genesis)
    hashes = folder / "hashes.npy"
    if is_known:
        np.save(hashes, blocks.transaction_hashes)
    arguments = {
        "home": str(home),
        "socket": str(folder / "api" / "engine.sock"),
        "hashes": str(hashes) if is_known else "",
        "per_block": blocks.per_block,
        "threads": threads,
        "is_indexed": is_indexed,
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.end_to_end_executor"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        child.stdin.write(json.dumps(arguments) + "\n")
        child.stdin.flush()
        if child.stdout.readline() != "ready\n":
            raise RuntimeError("the executor did not start")
        limit = blocks.genesis.parameters.payload_bytes_max
        with EngineApiClient(f"{UNIX}{arguments['socket']}", payload_bytes_max=limit) as client:
            cpu_before = time.process_time_ns()
            done_ns = drive(client, blocks)
            client_cpu_ns = time.process_time_ns() - cpu_before
        child.stdin.close()
        said = json.loads(child.stdout.readline())
    if child.returncode:
        raise RuntimeError(f"the executor ended with status {child.returncode}")
    return Run(done_ns=done_ns, client_cpu_ns=client_cpu_ns, executor=said)


def summarize(
    found: Run, blocks: ChainBlocks, ceiling: list[float], described: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures of a run, as JSON values."""
    count = blocks.per_block * len(blocks.headers)
    edges = [0, *found.done_ns]
    windows = [
        blocks.per_block * (end - begin) * NS_PER_S / (edges[end] - edges[begin])
        for begin in range(0, len(found.done_ns), WINDOW)
        for end in [min(begin + WINDOW, len(found.done_ns))]
    ]
    elapsed_ns = max(found.done_ns)
    said = found.executor
    stages: dict[str, int] = {}
    for item in said["stages"]:
        for name, spent in item.items():
            stages[name] = stages.get(name, 0) + spent
    stages["finalize"] = sum(said["finalize_ns"])
    rate = said["written_bytes"] * NS_PER_S / elapsed_ns
    return {
        "tx_per_s": {
            "median": round(statistics.median(windows)),
            "min": round(min(windows)),
            "max": round(max(windows)),
        },
        "sustained_tx_per_s": round(count * NS_PER_S / elapsed_ns),
        "stage_ns_per_tx": {name: round(spent / count, 1) for name, spent in stages.items()},
        "elapsed_ns_per_tx": round(elapsed_ns / count, 1),
        "cpu_ns_per_tx": {
            "executor": round(said["cpu_ns"] / count, 1),
            "client": round(found.client_cpu_ns / count, 1),
        },
        "bytes_per_tx": round(said["written_bytes"] / count, 1),
        "log_bytes_per_tx": round(said["log_bytes"] / count, 1),
        "index_bytes_per_tx": round(said["index_bytes"] / count, 1),
        "disk_bytes_per_s": round(rate),
        "ceiling_bytes_per_s": round(statistics.median(ceiling)),
        "ratio_to_ceiling": round(rate / statistics.median(ceiling), 3),
        "peak_memory_bytes": said["peak_memory_bytes"],
        "machine": described,
    }


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print the figures for a reader."""
    rate = summary["tx_per_s"]
    console.print(
        f"{summary['sustained_tx_per_s']:,} tx/s sustained; per {WINDOW} blocks median "
        f"{rate['median']:,}, min {rate['min']:,}, max {rate['max']:,}"
    )
    console.print(
        f"{summary['bytes_per_tx']} bytes written per transaction, "
        f"{summary['disk_bytes_per_s'] / 1e6:.0f} MB/s, {100 * summary['ratio_to_ceiling']:.0f} % "
        f"of this disk's {summary['ceiling_bytes_per_s'] / 1e6:.0f} MB/s"
    )
    table = Table("stage", "ns per transaction")
    for name, spent in summary["stage_ns_per_tx"].items():
        table.add_row(name, f"{spent:.1f}")
    table.add_row("elapsed, all together", f"{summary['elapsed_ns_per_tx']:.1f}")
    for name, spent in summary["cpu_ns_per_tx"].items():
        table.add_row(f"CPU of the {name}", f"{spent:.1f}")
    console.print(table)


@click.command(context_settings={"max_content_width": 100})
@click.option("--blocks", type=click.IntRange(1), default=20, show_default=True)
@click.option("--transactions", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--accounts", type=click.IntRange(2), default=1_000_000, show_default=True)
@click.option(
    "--signatures", type=click.Choice(["known", "new"]), default="known", show_default=True,
    help="known: marked as verified before the block comes; new: verified inside NewPayload.",
)  # fmt: skip
@click.option(
    "--indexes/--no-indexes", "is_indexed", default=True, show_default=True,
    help="Whether finalized transactions can be found by hash and by account.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Of the executor. Default: all cores.")
@click.option("--seed", type=click.IntRange(0, 2**62), default=1, show_default=True)
@click.option(
    "--directory", type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(), help="Where the home is made, and removed afterwards. Default: here.",
)  # fmt: skip
@click.option("--json", "json_file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
def main(
    blocks: int,
    transactions: int,
    accounts: int,
    signatures: str,
    is_indexed: bool,
    threads: int | None,
    seed: int,
    directory: Path,
    json_file: Path | None,
) -> None:
    """Measure the executor end to end: NewPayload over its socket, durable, finalized."""
    console = Console()
    described = machine.describe(directory)
    console.print(machine.describe_text(described))
    if described["file_system"] in machine.MEMORY_TYPES:
        console.print("this file system is memory: the figures say nothing about a disk")
    made = make_chain(
        accounts=accounts,
        per_block=transactions,
        blocks=blocks,
        seed=seed,
    )
    folder = Path(tempfile.mkdtemp(prefix="tos-end-to-end-", dir=directory.absolute()))
    try:
        record_bytes = len(made.payloads[0])
        ceiling = disk_ceiling(folder, record_bytes)
        found = run(
            made,
            folder,
            threads=threads,
            is_known=signatures == "known",
            is_indexed=is_indexed,
        )
        ceiling += disk_ceiling(folder, record_bytes)
    finally:
        shutil.rmtree(folder)
    summary = summarize(found, made, ceiling, described)
    summary["signatures"] = signatures
    summary["is_indexed"] = is_indexed
    summary["blocks"] = blocks
    summary["transactions"] = transactions
    summary["accounts"] = accounts
    print_summary(console, summary)
    if json_file is not None:
        json_file.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
