"""The process between validators: it forwards ZeroMQ messages late, not at all, or as they are.

Validators dial it in place of each other, one port per pair of dialler and target and per kind of
socket. It speaks none of the protocols above ZeroMQ's framing: a connection there is a connection
here, every frame passes unchanged, in order. A message (all its frames) may be lost; in a partition
nothing passes, heartbeats included, and new connections are refused, so that both ends find out as
they would with a cut cable. What is on its way is bounded; beyond that the sender is made to wait.

    python -m bench.network.relay ROUTES.json

writes `ready` when all ports listen, reads one state of the links (JSON, `faults.LinkState`) per
line of stdin, and ends when stdin does, with one line of what it did.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GREETING_BYTES = 64
"""of ZMTP 3: passed on as they come, since each side waits for the other's half way"""
MORE, LONG, COMMAND = 1, 2, 4
"""Bits of a frame's first byte."""
MESSAGE_BYTES_MAX = 2**24
"""frames of one message; a connection that sends a larger one is closed"""
WAITING_MESSAGES = 4_096
WAITING_BYTES = 2**25
"""of one direction of a connection; more is left in its socket"""
CONNECT_TIMEOUT_S = 5
NS_PER_MS = 1_000_000


class BrokenFraming(Exception):
    """Bytes that are no frames of ZMTP 3, or a message that is too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One port."""

    dialler: int
    target: int
    name: str
    """of the kind of socket"""
    listen: str
    """host:port"""
    forward: str
    """host:port"""


class Links:
    """The state of all links, as it is now."""

    def __init__(self) -> None:
        """Begin with links that do nothing."""
        self.delay_ns = 0
        self.loss_permille = 0
        self._side: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    def change(self, state: dict[str, Any]) -> None:
        """Take over what a line of stdin says."""
        self.delay_ns = int(state["delay_ms"]) * NS_PER_MS
        self.loss_permille = int(state["loss_permille"])
        groups = enumerate(state["groups"])
        self._side = {member: side for side, group in groups for member in group}

    def is_cut(self, one: int, other: int) -> bool:
        """Say whether nothing passes between two validators."""
        return self._side.get(one) != self._side.get(other)


class Line:
    """One direction of a connection: what was read and is not yet written."""

    def __init__(self) -> None:
        """Begin empty."""
        self._queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(WAITING_MESSAGES)
        self._bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def put(self, due_ns: int, data: bytes) -> None:
        """Add bytes to be written at a time; waits while too many wait."""
        await self._has_room.wait()
        self._bytes += len(data)
        if self._bytes >= WAITING_BYTES:
            self._has_room.clear()
        await self._queue.put((due_ns, data))

    async def get(self) -> bytes:
        """Return the next bytes when their time has come."""
        due_ns, data = await self._queue.get()
        wait_ns = due_ns - time.monotonic_ns()
        if wait_ns > 0:
            await asyncio.sleep(wait_ns / 1e9)
        self._bytes -= len(data)
        if self._bytes < WAITING_BYTES:
            self._has_room.set()
        return data


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Return the next message with all its frames, or command, and whether it is a message.

    Raises BrokenFraming, asyncio.IncompleteReadError at the end.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        flags = (await reader.readexactly(1))[0]
        length_bytes = await reader.readexactly(8 if flags & LONG else 1)
        length = int.from_bytes(length_bytes, "big")
        size += length
        if flags & ~(MORE | LONG | COMMAND) or size > MESSAGE_BYTES_MAX:
            raise BrokenFraming(f"flags {flags}, {size} bytes")
        parts += [bytes([flags]), length_bytes, await reader.readexactly(length)]
        if not flags & MORE:
            return b"".join(parts), not flags & COMMAND


async def read_into(
    reader: asyncio.StreamReader, line: Line, route: Route, links: Links, chance: random.Random
) -> None:
    """Read one direction to its end."""
    left = GREETING_BYTES
    while left:
        data = await reader.read(left)
        if not data:
            return
        left -= len(data)
        await line.put(time.monotonic_ns(), data)
    while True:
        data, is_message = await read_message(reader)
        if links.is_cut(route.dialler, route.target):
            links.counts["cut"] += 1
            continue
        if is_message and chance.randrange(1_000) < links.loss_permille:
            links.counts["lost"] += 1
            continue
        links.counts["passed"] += is_message
        await line.put(time.monotonic_ns() + links.delay_ns, data)


async def write_from(line: Line, writer: asyncio.StreamWriter) -> None:
    """Write one direction until somebody ends it."""
    while True:
        writer.write(await line.get())
        await writer.drain()


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    route: Route,
    links: Links,
    chances: tuple[random.Random, random.Random],
) -> None:
    """Serve one connection of a dialler until either side has gone."""
    if links.is_cut(route.dialler, route.target):
        links.counts["refused"] += 1
        writer.transport.abort()
        return
    host, _, port = route.forward.rpartition(":")
    try:
        far_reader, far_writer = await asyncio.wait_for(
            asyncio.open_connection(host, int(port)), CONNECT_TIMEOUT_S
        )
    except OSError:  # nobody listens there now; TimeoutError is one of these
        links.counts["target_down"] += 1
        writer.transport.abort()
        return
    there, back = Line(), Line()
    tasks = [
        asyncio.ensure_future(read_into(reader, there, route, links, chances[0])),
        asyncio.ensure_future(read_into(far_reader, back, route, links, chances[1])),
        asyncio.ensure_future(write_from(there, far_writer)),
        asyncio.ensure_future(write_from(back, writer)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, BrokenFraming):
                links.counts["broken_framing"] += 1
            elif isinstance(found, Exception) and not isinstance(found, OSError | EOFError):
                raise found
        for end in (writer, far_writer):
            end.transport.abort()


async def serve(routes: list[Route], seed: int, links: Links) -> None:
    """Listen on all ports until stdin ends."""
    served: set[asyncio.Task[None]] = set()

    def accept(route: Route) -> Any:
        """Return what asyncio calls for each connection of a route."""
        name = f"{seed} {route.dialler} {route.target} {route.name}"
        chances = random.Random(f"{name} there"), random.Random(f"{name} back")

        async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            served.add(task)
            try:
                await relay(reader, writer, route, links, chances)
            finally:
                served.discard(task)

        return begin

    async with contextlib.AsyncExitStack() as stack:
        for route in routes:
            host, _, port = route.listen.rpartition(":")
            server = await asyncio.start_server(accept(route), host, int(port))
            stack.callback(server.close)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            links.change(json.loads(line))
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


def main() -> None:
    """Run until stdin ends."""
    config = json.loads(Path(sys.argv[1]).read_text())
    links = Links()
    links.change(config["links"])
    asyncio.run(serve([Route(**route) for route in config["routes"]], config["seed"], links))
    sys.stdout.write(json.dumps(links.counts) + "\n")


if __name__ == "__main__":
    main()
