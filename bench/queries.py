"""How many questions one core answers, and what a thousand readers cost: `--help`.

The node runs in this process, the clients in another one, so that the processor time of this
process is that of the node alone: questions per second of its one thread follow from it. Readers of
events are sockets, some of which never read; the memory of this process is looked at before, while
and after blocks are told to all of them.
"""

import asyncio
import json
import multiprocessing
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click

from bench import machine
from engine.address import encode_address
from engine.dev import dev_genesis, dev_key
from engine.opening import open_service
from engine.queries import answers
from engine.queries.server import QueryServer
from engine.store.config import StoreConfig
from engine.store.store import Store

CONNECTIONS = 32
PAGE_BYTES = 4_096
EVENT_BATCH = 64
"""Events that are told between two pauses; a reader that reads is never overtaken."""


def ask(address: str, texts: list[str], count: int, done: Any) -> None:
    """Ask for accounts over a few connections that stay open; for a process of its own."""
    host, port = address.split(":")
    opened = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
    for item in opened:
        item.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    questions = [f"GET /v1/accounts/{text} HTTP/1.1\r\nhost: x\r\n\r\n".encode() for text in texts]
    begin_ns = time.monotonic_ns()
    for start in range(0, count, CONNECTIONS):
        for place, item in enumerate(opened):
            item.sendall(questions[(start + place) % len(questions)])
        for item in opened:
            data = item.recv(2**16)
            while b"}}" not in data:
                data += item.recv(2**16)
            assert data.startswith(b"HTTP/1.1 200"), data[:200]
    done.put((time.monotonic_ns() - begin_ns) // 1_000)


def listen(address: str, readers: int, silent: int, events: int, done: Any) -> None:
    """Read events with all but some readers; for a process of its own."""
    done.put(asyncio.run(_listen(address, readers, silent, events, done)))


async def _listen(address: str, readers: int, silent: int, events: int, done: Any) -> int:
    """Return how many readers saw every event in order."""
    host, port = address.split(":")
    opened = []
    for place in range(readers):
        raw = socket.socket()
        if place < silent:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PAGE_BYTES)
        raw.connect((host, int(port)))
        raw.sendall(b"GET /v1/events?kinds=finalized HTTP/1.1\r\nhost: x\r\n\r\n")
        opened.append(raw)
    # A stream ends when its writer is forgotten.
    streams = [await asyncio.open_connection(sock=raw) for raw in opened[silent:]]
    for reader, _ in streams:
        await reader.readuntil(b": events of this node")
    done.put("ready")

    async def read(reader: asyncio.StreamReader) -> bool:
        expected = 1
        while expected <= events:
            line = await reader.readline()
            if line.startswith(b"id: "):
                if int(line.rsplit(b"-", 1)[1]) != expected:
                    return False
                expected += 1
        return True

    return sum(await asyncio.gather(*(read(reader) for reader, _ in streams)))


def resident_bytes() -> int:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure_accounts(server: QueryServer, texts: list[str], count: int) -> dict[str, Any]:
    """Return questions per second, as seen outside and per second of the node's processor time."""
    context = multiprocessing.get_context("spawn")
    done: Any = context.Queue()
    for number in (count // 10, count):
        client = context.Process(target=ask, args=(server.address, texts, number, done))
        begin_ns = time.process_time_ns()
        client.start()
        wall_us = done.get()
        cpu_us = (time.process_time_ns() - begin_ns) // 1_000
        client.join()
    return {
        "questions": count,
        "per_s": count * 1_000_000 // wall_us,
        "per_s_of_processor_time": count * 1_000_000 // cpu_us,
    }


def measure_events(server: QueryServer, readers: int, silent: int, events: int) -> dict[str, Any]:
    """Tell events to readers, and return what that came to."""
    context = multiprocessing.get_context("spawn")
    done: Any = context.Queue()
    client = context.Process(target=listen, args=(server.address, readers, silent, events, done))
    before = resident_bytes()
    client.start()
    assert done.get() == "ready"
    connected = highest = resident_bytes()
    log, loop = server.events, server.events.loop
    begin_ns = time.monotonic_ns()

    def tell(first: int, last: int) -> None:
        for height in range(first, last):
            log.add("finalized", answers.FinalizedEvent(height=height, hash="ab" * 32))
        log.wake()

    for start in range(0, events, EVENT_BATCH):
        loop.call_soon_threadsafe(tell, start, min(start + EVENT_BATCH, events))
        time.sleep(0.1)
        highest = max(highest, resident_bytes())
    complete = done.get()
    client.join()
    return {
        "readers": readers,
        "silent": silent,
        "events": events,
        "complete": complete,
        "elapsed_ms": (time.monotonic_ns() - begin_ns) // 1_000_000,
        "bytes_per_reader": (connected - before) // readers,
        "bytes_grown_while_telling": highest - connected,
    }


@click.command()
@click.option("--accounts", type=click.IntRange(1, 10_000), default=10_000, show_default=True)
@click.option("--questions", type=click.IntRange(1_000), default=100_000, show_default=True)
@click.option("--readers", type=click.IntRange(2, 2_000), default=1_000, show_default=True)
@click.option("--silent", type=click.IntRange(0), default=100, show_default=True)
@click.option("--events", type=click.IntRange(1), default=6_000, show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
def main(
    accounts: int, questions: int, readers: int, silent: int, events: int, json_path: Path | None
) -> None:
    """Measure balance queries, then readers of events."""
    described = machine.describe(Path.cwd())
    texts = [encode_address(dev_key(n).public_key, "tos") for n in range(accounts)]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        Store.create(home, dev_genesis(accounts, 1))
        with Store.open(home, StoreConfig()) as store:
            service = open_service(store)
            server = QueryServer(
                "127.0.0.1:0", service, store, software="bench",
                metrics=lambda: (b"", "text/plain"),
            )  # fmt: skip
            server.start()
            figures = {
                "accounts": measure_accounts(server, texts, questions),
                "events": measure_events(server, readers, silent, events),
                "machine": described,
            }
            server.stop()
            service.close()
    click.echo(json.dumps({k: v for k, v in figures.items() if k != "machine"}, indent=2))
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
