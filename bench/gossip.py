"""How many transactions a second go from one executor to another: `python bench/gossip.py --help`.

Two processes, each with a store, a pool, queries and gossip, each on one core of its own: signed
transfers are sent to the first over HTTP, verified there, pushed, verified again and queued by the
second. The rate is that at which they wait at the second, from the second batch on; no block
is made meanwhile.
"""

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click

from bench import machine
from bench.load_batches import Traffic, prepare
from engine.client import Client
from engine.dev import dev_genesis
from engine.gossip.outbox import Outbox
from engine.gossip.runner import GossipConfig, GossipRunner
from engine.opening import open_service
from engine.queries.server import QueryServer
from engine.store.store import Store
from runtime.keypair import KeyPair

NOWHERE = "tcp://127.0.0.1:1"
"""of a peer that dials us"""
POLL_S = 0.01
LOST_S = 60
"""without any progress: give up"""


def pair_of(number: int) -> KeyPair:
    """Return the transport key of a node of this benchmark."""
    return KeyPair.of(bytes([number + 1]) * 32)


def serve(number: int, accounts: int, is_pinned: bool, peer_address: str, pipe: Connection) -> None:
    """Run one executor until told to stop; answers `count` with what waits and what was counted."""
    cores = sorted(os.sched_getaffinity(0))
    if is_pinned:
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    with tempfile.TemporaryDirectory(prefix="gossip-") as folder:
        home = Path(folder, "home")
        Store.create(home, dev_genesis(accounts, 1))
        outbox = Outbox()
        with Store.open(home) as store:
            service = open_service(store, threads=1, pool_listener=outbox.listen)
            peers = {pair_of(1 - number).public_key: peer_address}
            config = GossipConfig(
                pair=pair_of(number),
                genesis_hash=store.genesis_hash,
                listen="tcp://127.0.0.1:0",
                peers=peers,
            )
            runner = GossipRunner(service, outbox, config, tell=lambda *_: None)
            runner.start()
            server = QueryServer(
                "127.0.0.1:0", service, store, software="bench", metrics=lambda: (b"", "")
            )
            server.start()
            pipe.send((server.url, runner.address))
            while pipe.recv() == "count":
                used = resource.getrusage(resource.RUSAGE_SELF)
                cpu_ms = round((used.ru_utime + used.ru_stime) * 1_000)
                pipe.send((len(service.pool), runner.counts(), cpu_ms))
            server.stop()
            runner.stop()
            service.close()


class Remote:
    """One executor in a process of its own."""

    def __init__(self, number: int, accounts: int, is_pinned: bool, peer_address: str) -> None:
        """Start it, and wait until it serves."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=serve, args=(number, accounts, is_pinned, peer_address, other)
        )
        self._process.start()
        self.url, self.address = self._pipe.recv()

    def ask(self) -> tuple[int, dict[str, int], int]:
        """Return what waits in the pool, the counts of gossip, and processor milliseconds."""
        self._pipe.send("count")
        answer: tuple[int, dict[str, int], int] = self._pipe.recv()
        return answer

    def stop(self) -> None:
        """End it."""
        self._pipe.send("stop")
        self._process.join()


def wait_for(receiver: Remote, count: int) -> None:
    """Return when so many transactions wait at the receiver."""
    moved_s, before = time.monotonic(), 0
    while (waiting := receiver.ask()[0]) < count:
        if waiting > before:
            moved_s, before = time.monotonic(), waiting
        if time.monotonic() > moved_s + LOST_S:
            raise SystemExit(f"{count - waiting} of {count} transfers have not arrived")
        time.sleep(POLL_S)


def measure(count: int, batch: int, accounts: int, is_pinned: bool) -> dict[str, Any]:
    """Send everything through both, and return the figures."""
    receiver = Remote(1, accounts, is_pinned, NOWHERE)
    sender = Remote(0, accounts, is_pinned, receiver.address)
    try:
        with Client(sender.url) as client:
            traffic = Traffic(count=count, batch=batch, accounts=accounts)
            plan = prepare(client, traffic, partial(click.echo, err=True))
            while not receiver.ask()[1]["gossip_peers"]:
                time.sleep(POLL_S)
            # The first batch loads kernels; nothing of it is measured.
            assert not any(client.send_batch(plan.body(0))), "every transfer is taken"
            wait_for(receiver, min(batch, count))
            cpu_ms = [node.ask()[2] for node in (sender, receiver)]
            begin_s = time.monotonic()
            for number in range(1, plan.batches):
                assert not any(client.send_batch(plan.body(number))), "every transfer is taken"
            sent_s = time.monotonic()
        wait_for(receiver, count)
        end_s = time.monotonic()
        after = [node.ask() for node in (sender, receiver)]
    finally:
        sender.stop()
        receiver.stop()
    measured = count - batch
    return {
        "transactions": measured,
        "tx_per_s": round(measured / (end_s - begin_s)),
        "accepted_tx_per_s": round(measured / (sent_s - begin_s)),
        "cpu_ms": [item[2] - start for item, start in zip(after, cpu_ms, strict=True)],
        "frames": after[1][1]["gossip_link_frames_in"],
        "deferred": after[0][1]["gossip_pushes_deferred"] + after[1][1]["gossip_records_deferred"],
        "duplicates": after[1][1]["gossip_records_duplicate"],
        "dropped": sum(
            count for item in after for name, count in item[1].items() if "dropped" in name
        ),
    }


@click.command()
@click.option("--count", type=click.IntRange(1), default=400_000, show_default=True)
@click.option("--batch", type=click.IntRange(1, 32_768), default=10_000, show_default=True)
@click.option("--accounts", type=click.IntRange(1, 10_000), default=1_000, show_default=True)
@click.option("--pinned/--free", default=True, help="each process on one core of its own")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
def main(
    count: int, batch: int, accounts: int, pinned: bool, repeat: int, json_path: Path | None
) -> None:
    """Measure the way of transactions from one executor to another."""
    if count <= batch:
        raise click.UsageError("the first batch is not measured: --count is more than --batch")
    described = machine.describe(Path.cwd())
    rows = []
    for _ in range(repeat):
        rows.append(measure(count, batch, accounts, pinned))
        click.echo("  ".join(f"{name} {value}" for name, value in rows[-1].items()))
    if json_path is not None:
        values = {"rows": rows, "machine": described}
        json_path.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
