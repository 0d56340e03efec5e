"""Many transactions through one node, and the memory that it holds meanwhile: `--help`.

The node is `python -m engine dev` in a process of its own; signed transfers are sent to it over
HTTP, at most PENDING_MAX waiting at a time, and become final in its blocks. Its own memory, without
mapped files, is looked at after every step. What grows to a bound and stays there is the ring of
outcomes, the marks of verified signatures, the index of what became final lately; the bound on
growth after the first steps is GROWTH_BYTES_MAX, whatever the number of transactions.
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import REPOSITORY, require_environment

    require_environment()
else:
    from bench._start import REPOSITORY

import click

from bench import machine
from bench.load_batches import Traffic, prepare
from engine.client import Client

BATCH = 10_000
PENDING_MAX = 50_000
POLL_S = 0.02
WARM_STEPS = 3
"""after which memory is compared: tables and caches are in use by then"""
GROWTH_BYTES_MAX = 2**27
"""from then to the end: marks of verified signatures alone take 48 bytes of each of 2^21"""
STOP_S = 60


def run(count: int, step: int, accounts: int, block_ms: int) -> dict[str, Any]:
    """Send everything, and return the samples."""
    arguments = ("--accounts", str(accounts), "--block-ms", str(block_ms), "--json")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", "dev", *arguments, "--query-address", "127.0.0.1:0",
             "--keys", str(Path(folder, "keys"))],
            cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            return _drive(process, first_screen(process)["url"], count, step, accounts)
        finally:
            process.terminate()
            process.wait(STOP_S)


def first_screen(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return what a development node prints when it serves."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("}"):
            screen: dict[str, Any] = json.loads(text)
            return screen
    raise SystemExit("the node ended before it served")


def _drive(
    process: "subprocess.Popen[str]", url: str, count: int, step: int, accounts: int
) -> dict[str, Any]:
    samples = []
    begin_s = time.monotonic()
    with Client(url) as client:
        traffic = Traffic(count=count, batch=BATCH, accounts=accounts)
        plan = prepare(client, traffic, partial(click.echo, err=True))
        for number in range(plan.batches):
            while client.status().pending_count > PENDING_MAX - BATCH:
                time.sleep(POLL_S)
            assert not any(client.send_batch(plan.body(number))), "every transfer is taken"
            done = (number + 1) * BATCH
            if done % step == 0 or done >= count:
                while client.status().pending_count:
                    time.sleep(POLL_S)
                sample = {"transactions": min(done, count), **memory_of(process.pid)}
                click.echo("  ".join(f"{name} {value:,}" for name, value in sample.items()))
                samples.append(sample)
        height = client.status().finalized.height
    return {
        "samples": samples,
        "blocks": height,
        "seconds": round(time.monotonic() - begin_s),
        "growth_bytes": samples[-1]["anon_bytes"] - samples[:WARM_STEPS][-1]["anon_bytes"],
        "growth_bytes_max": GROWTH_BYTES_MAX,
    }


def memory_of(pid: int) -> dict[str, int]:
    """Return what a process holds: of its own, and of mapped files."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return {
        "anon_bytes": int(lines["RssAnon"].split()[0]) * 1024,
        "file_bytes": int(lines["RssFile"].split()[0]) * 1024,
    }


@click.command()
@click.option("--count", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--step", type=click.IntRange(BATCH), default=100_000, show_default=True)
@click.option("--accounts", type=click.IntRange(1, 10_000), default=1_000, show_default=True)
@click.option("--block-ms", type=click.IntRange(10), default=200, show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
def main(count: int, step: int, accounts: int, block_ms: int, json_path: Path | None) -> None:
    """Exit with 1 if memory grew by more than its bound."""
    described = machine.describe(Path.cwd())
    values = run(count, step, accounts, block_ms)
    is_flat = values["growth_bytes"] <= GROWTH_BYTES_MAX
    click.echo(
        f"grew by {values['growth_bytes']:,} bytes after {WARM_STEPS} steps, of at most "
        f"{GROWTH_BYTES_MAX:,}: {'flat' if is_flat else 'NOT FLAT'}"
    )
    if json_path is not None:
        values["machine"] = described
        json_path.write_text(json.dumps(values, indent=1) + "\n")
    sys.exit(0 if is_flat else 1)


if __name__ == "__main__":
    main()
